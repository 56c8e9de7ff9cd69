package genai

import (
	"github.com/prometheus/client_golang/prometheus"

	"tollgate/internal/admission"
	"tollgate/internal/trace"
)

// Metrics are the conventions' metrics of requests to engines, with the buckets and the
// names that they have in Prometheus. Nil counts nothing.
type Metrics struct {
	tokens                              *prometheus.HistogramVec
	duration, firstToken, betweenTokens *prometheus.HistogramVec
}

// NewMetrics registers the metrics on base; nil unless the names are the latest.
func (v Version) NewMetrics(base prometheus.Registerer) *Metrics {
	if !v.latest {
		return nil
	}
	m := &Metrics{
		tokens: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gen_ai_client_token_usage", Help: "Input and output tokens of a request, as the ledger has them.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 14),
		}, []string{"gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_response_model", "gen_ai_token_type"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gen_ai_server_request_duration_seconds", Help: "From the check of a request to its settlement.",
			Buckets: prometheus.ExponentialBuckets(0.01, 2, 14),
		}, []string{"gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_response_model", "error_type"}),
		firstToken: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gen_ai_server_time_to_first_token_seconds", Help: "From the check of a request to the first byte of its stream.",
			Buckets: []float64{0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10},
		}, []string{"gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_response_model"}),
		betweenTokens: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gen_ai_server_time_per_output_token_seconds", Help: "Mean time between the output tokens of a stream after its first.",
			Buckets: []float64{0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5},
		}, []string{"gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_response_model"}),
	}
	base.MustRegister(m.tokens, m.duration, m.firstToken, m.betweenTokens)
	return m
}

// Count adds a finished request that was sent to an engine. failed is what went wrong, ""
// when nothing did.
func (m *Metrics) Count(a *admission.Access, failed string) {
	if m == nil || a.Reason == "" {
		return
	}
	op := operation(a.Endpoint)
	whole := a.Ended.Sub(a.Started).Seconds()
	trace.Observe(m.duration.WithLabelValues(op, provider, a.RequestedLabel, a.ModelLabel, failed), whole, a.Trace)
	for kind, n := range map[string]int64{"input": a.Counts.Prompt, "output": a.Counts.Completion} {
		if n > 0 {
			trace.Observe(m.tokens.WithLabelValues(op, provider, a.RequestedLabel, a.ModelLabel, kind), float64(n), a.Trace)
		}
	}
	first := a.FirstByte.Seconds()
	if !a.Stream || first <= 0 {
		return
	}
	trace.Observe(m.firstToken.WithLabelValues(op, provider, a.RequestedLabel, a.ModelLabel), first, a.Trace)
	if out := a.Counts.Completion; out > 1 {
		trace.Observe(m.betweenTokens.WithLabelValues(op, provider, a.RequestedLabel, a.ModelLabel), max(0, whole-first)/float64(out-1), a.Trace)
	}
}
