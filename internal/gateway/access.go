package gateway

import (
	"context"
	"io"
	"log/slog"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"tollgate/internal/admission"
	"tollgate/internal/genai"
	"tollgate/internal/trace"
	"tollgate/internal/usage"
)

// recorder turns access records into the log's lines and the base metrics of
// design B4.
type recorder struct {
	lines    *slog.Logger // nil: no lines
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	errors   *prometheus.CounterVec
	refused  *refusals      // set where lines is
	spans    *spans         // nil: nothing is traced
	named    *genai.Metrics // by the names of OpenTelemetry; nil: none
}

// newRecorder returns a recorder that writes its lines to out, where given.
func newRecorder(base prometheus.Registerer, out io.Writer) *recorder {
	r := &recorder{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "http_requests_total", Help: "Requests at the edge, local replies included.",
		}, []string{"method", "endpoint", "status_code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "http_request_duration_seconds", Help: "From the first byte of a request to the last byte of its answer.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2.5, 13),
		}, []string{"method", "endpoint"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "http_errors_total", Help: "Requests that were refused, failed or cut, by what went wrong.",
		}, []string{"method", "endpoint", "error_type"}),
	}
	base.MustRegister(r.requests, r.duration, r.errors)
	r.named = genai.FromEnvironment().NewMetrics(base)
	if out != nil {
		r.lines = slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{ReplaceAttr: likeTheLog}))
		r.refused = newRefusals(r.lines)
	}
	return r
}

// likeTheLog gives the lines the names of hclog, whose lines stand between
// them. They do not come from hclog itself because it sorts a map by reflection
// for each: a twentieth of the service's CPU of a short request.
func likeTheLog(_ []string, a slog.Attr) slog.Attr {
	switch a.Key {
	case slog.TimeKey:
		return slog.String("@timestamp", a.Value.Time().Format(hclog.TimeFormatJSON))
	case slog.LevelKey:
		return slog.String("@level", "info")
	case slog.MessageKey:
		a.Key = "@message"
	}
	return a
}

// record takes one finished request.
func (r *recorder) record(a admission.Access) {
	r.requests.WithLabelValues(a.Method, a.Endpoint, strconv.Itoa(a.Status)).Inc()
	trace.Observe(r.duration.WithLabelValues(a.Method, a.Endpoint), a.Duration.Seconds(), a.Trace)
	failed := errorType(a)
	if failed != "" {
		r.errors.WithLabelValues(a.Method, a.Endpoint, failed).Inc()
	}
	r.named.Count(&a, failure(&a, failed))
	if r.refused != nil && r.refused.counted(&a) {
		return // neither a line nor a span, or strangers could fill the disk and the queue
	}
	if r.lines != nil {
		r.line(&a, failed)
	}
	r.spans.record(&a, failed)
}

// Run writes what was only counted, until ctx ends.
func (r *recorder) Run(ctx context.Context) error {
	if r.refused == nil {
		<-ctx.Done()
		return nil
	}
	return r.refused.Run(ctx)
}

// line writes the record of one request.
func (r *recorder) line(a *admission.Access, failed string) {
	attrs := append(make([]slog.Attr, 0, 24),
		slog.String("@module", "tollgate.access"), slog.String("request_id", a.RequestID), slog.String("lease_id", a.LeaseID),
		slog.String("key_id", a.KeyID), slog.String("user", a.User), slog.String("method", a.Method),
		slog.String("endpoint", a.Endpoint), slog.String("model", a.Model), slog.String("requested_model", a.RequestedModel), slog.Int("status", a.Status),
		milliseconds("duration_ms", a.Duration), milliseconds("first_byte_ms", a.FirstByte),
		slog.Uint64("bytes_in", a.BytesIn), slog.Uint64("bytes_out", a.BytesOut),
		slog.String("client_addr", a.ClientAddr), slog.String("details", a.Details))
	if a.Reason != "" {
		attrs = append(attrs, slog.String("end_reason", string(a.Reason)), slog.String("quality", string(a.Quality)),
			slog.Int64("prompt_tokens", max(0, a.Counts.Prompt)), slog.Int64("completion_tokens", max(0, a.Counts.Completion)))
		if a.Counts.Cached != usage.Unsaid {
			attrs = append(attrs, slog.Int64("cached_tokens", a.Counts.Cached))
		}
	}
	if failed != "" {
		attrs = append(attrs, slog.String("error_type", failed))
	}
	if !a.Trace.None() {
		attrs = append(attrs, slog.String("trace_id", a.Trace.TraceID()))
	}
	r.lines.LogAttrs(context.Background(), slog.LevelInfo, "request", attrs...)
}

func milliseconds(name string, d time.Duration) slog.Attr { return slog.Int64(name, d.Milliseconds()) }

// errorType is what went wrong, of a closed set; "" when nothing did.
func errorType(a admission.Access) string {
	if a.Denied != "" {
		return string(a.Denied)
	}
	switch a.Cause {
	case admission.CauseClient:
		return "client_gone"
	case admission.CauseUpstream:
		return "upstream_cut"
	case admission.CauseUnreached:
		return "engine_unavailable"
	case admission.CauseTimeout:
		return "timeout"
	case admission.CauseGateway:
		return "gateway"
	case admission.CauseRequest:
		return "invalid_request"
	case admission.CauseDenied, admission.CauseNone:
	}
	switch {
	case a.Status >= 500:
		return "upstream_5xx"
	case a.Status >= 400:
		return "upstream_4xx"
	case a.Reason == "upstream_error":
		return "upstream_error"
	}
	return ""
}
