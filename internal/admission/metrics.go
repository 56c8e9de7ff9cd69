package admission

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate/internal/ledger"
	"tollgate/internal/limit"
	"tollgate/internal/trace"
	"tollgate/internal/usage"
)

// Metrics are what the gate counts. Create them with [NewMetrics].
type Metrics struct {
	decisions     *prometheus.CounterVec
	active        prometheus.Gauge
	tokenUsage    *prometheus.CounterVec
	settledTotal  *prometheus.CounterVec
	settledTokens *prometheus.CounterVec
	models        *prometheus.CounterVec
	modelTokens   *prometheus.CounterVec
	firstToken    prometheus.Histogram
	interToken    prometheus.Histogram
	estimateError prometheus.Histogram
	disagreements prometheus.Counter
	anomalyTotal  *prometheus.CounterVec
}

// NewMetrics registers the gate's metrics: the two that have no prefix on
// base, the others on own, which adds the prefix tollgate_.
func NewMetrics(base, own prometheus.Registerer) *Metrics {
	m := &Metrics{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "admission_decisions_total", Help: "Admission decisions: admitted, or the limit or check that refused.",
		}, []string{"decision"}),
		active: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "http_active_requests", Help: "Requests that hold a lease now.",
		}),
		tokenUsage: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "token_usage_total", Help: "Tokens charged, by key id and type; added once, at the final settlement.",
		}, []string{"api_key", "type"}),
		settledTotal: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "requests_settled_total", Help: "Requests settled in the ledger, by end reason and quality.",
		}, []string{"end_reason", "quality"}),
		settledTokens: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tokens_settled_total", Help: "Tokens settled in the ledger, by type and quality.",
		}, []string{"type", "quality"}),
		models: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "model_requests_total", Help: "Requests settled in the ledger, by the model that served and by the name that was asked for.",
		}, []string{"model", "requested_model"}),
		modelTokens: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "model_tokens_total", Help: "Tokens settled in the ledger, by the model that served and type.",
		}, []string{"model", "type"}),
		firstToken: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "time_to_first_token_seconds", Help: "From admission to the first byte of the answer's body.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2, 14),
		}),
		interToken: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "inter_token_seconds", Help: "Mean time between the output tokens of one stream.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		estimateError: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "estimate_error_ratio", Help: "Tokens reserved divided by tokens used, of complete requests.",
			Buckets: []float64{0.1, 0.25, 0.5, 0.75, 0.9, 1, 1.1, 1.5, 2, 4, 8, 16, 64},
		}),
		disagreements: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "witness_disagreements_total", Help: "Ends on which the stream and the proxy's access log disagree.",
		}),
		anomalyTotal: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "anomalies_total", Help: "Nonsense met in answers of vLLM, by kind; counted, never added.",
		}, []string{"kind"}),
	}
	base.MustRegister(m.active, m.tokenUsage)
	own.MustRegister(m.decisions, m.settledTotal, m.settledTokens, m.models, m.modelTokens, m.firstToken, m.interToken,
		m.estimateError, m.disagreements, m.anomalyTotal)
	m.touch()
	return m
}

// touch makes every series of a closed label set exist at 0.
func (m *Metrics) touch() {
	m.decisions.WithLabelValues("admitted")
	for _, r := range Reasons() {
		m.decisions.WithLabelValues(string(r))
	}
	qualities := []ledger.Quality{ledger.Exact, ledger.Partial, ledger.Estimated}
	for _, q := range qualities {
		for _, r := range ledger.EndReasons() {
			m.settledTotal.WithLabelValues(string(r), string(q))
		}
		m.settledTokens.WithLabelValues("input", string(q))
		m.settledTokens.WithLabelValues("output", string(q))
	}
	for _, name := range append(anomalyNames[:], anomalyUnreadable, anomalyAbsurd, anomalyInconsistent) {
		m.anomalyTotal.WithLabelValues(name)
	}
}

var anomalyNames = [usage.Anomalies]string{
	usage.Negative: "negative", usage.Fractional: "fractional", usage.Overflow: "overflow",
	usage.Decreasing: "decreasing", usage.WrongType: "wrong_type", usage.BadIndex: "bad_index",
	usage.Malformed: "malformed", usage.Oversize: "oversize", usage.Encoded: "encoded",
}

// The anomalies that show in a whole account only, beside those of package usage.
const (
	// anomalyUnreadable: an answer that is neither JSON nor an event stream.
	anomalyUnreadable = "unreadable"
	// anomalyAbsurd: more tokens than the request can have cost.
	anomalyAbsurd = "absurd"
	// anomalyInconsistent: a part that is larger than its whole.
	anomalyInconsistent = "inconsistent"
)

func (m *Metrics) decided(r Reason) { m.decisions.WithLabelValues(string(r)).Inc() }

// anomalies counts the nonsense in a report, and one more kind, "" for none.
func (m *Metrics) anomalies(r usage.Report, more string) {
	if more != "" {
		m.anomalyTotal.WithLabelValues(more).Inc()
	}
	for kind, n := range r.Anomalies {
		if n > 0 {
			m.anomalyTotal.WithLabelValues(anomalyNames[kind]).Add(float64(n))
		}
	}
}

// settled counts one final settlement. first and whole are the times from
// admission to the first byte (0 = none) and to now.
func (m *Metrics) settled(rec ledger.Record, first, whole time.Duration) {
	in, out := float64(max(0, rec.Counts.Prompt)), float64(max(0, rec.Counts.Completion))
	m.settledTotal.WithLabelValues(string(rec.Reason), string(rec.Quality)).Inc()
	m.settledTokens.WithLabelValues("input", string(rec.Quality)).Add(in)
	m.settledTokens.WithLabelValues("output", string(rec.Quality)).Add(out)
	m.tokenUsage.WithLabelValues(rec.KeyID, "input").Add(in)
	m.tokenUsage.WithLabelValues(rec.KeyID, "output").Add(out)
	if first <= 0 {
		return
	}
	span := trace.Read(rec.Trace)
	trace.Observe(m.firstToken, first.Seconds(), span)
	if rec.Stream && out > 1 {
		trace.Observe(m.interToken, (whole-first).Seconds()/(out-1), span)
	}
}

// amended counts the tokens by which a better account exceeds one that was counted.
func (m *Metrics) amended(rec *ledger.Record, moved usage.Counts) {
	for kind, n := range map[string]int64{"input": moved.Prompt, "output": moved.Completion} {
		m.settledTokens.WithLabelValues(kind, string(rec.Quality)).Add(float64(max(0, n)))
		m.tokenUsage.WithLabelValues(rec.KeyID, kind).Add(float64(max(0, n)))
	}
}

// RegisterStore exposes the gauges of the limit store on own.
func RegisterStore(own prometheus.Registerer, store limit.Store) {
	read := func(pick func(limit.Totals) float64) func() float64 {
		return func() float64 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			t, err := store.Totals(ctx)
			if err != nil {
				return 0
			}
			return pick(t)
		}
	}
	own.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "leases_live", Help: "Live leases, provisional ones included."},
			read(func(t limit.Totals) float64 { return float64(t.Leases) })),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "slots_taken", Help: "Slots of the gateway that live requests hold, one for each sequence."},
			read(func(t limit.Totals) float64 { return float64(t.Slots) })),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tokens_reserved", Help: "Tokens in open reservations."},
			read(func(t limit.Totals) float64 { return float64(t.Reserved) })),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "leases_expired_total", Help: "Leases that nobody claimed or renewed in time."},
			read(func(t limit.Totals) float64 { return float64(t.Expired) })),
	)
}
