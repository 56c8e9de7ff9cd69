package gateway

import (
	"strconv"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"tollgate/internal/admission"
	"tollgate/internal/usage"
)

// recorder turns access records into the log's lines and the base metrics of
// design B4.
type recorder struct {
	log      hclog.Logger
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	errors   *prometheus.CounterVec
}

func newRecorder(base prometheus.Registerer, log hclog.Logger) *recorder {
	r := &recorder{
		log: log,
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
	return r
}

// record takes one finished request.
func (r *recorder) record(a admission.Access) {
	r.requests.WithLabelValues(a.Method, a.Endpoint, strconv.Itoa(a.Status)).Inc()
	r.duration.WithLabelValues(a.Method, a.Endpoint).Observe(a.Duration.Seconds())
	failed := errorType(a)
	if failed != "" {
		r.errors.WithLabelValues(a.Method, a.Endpoint, failed).Inc()
	}
	args := []any{
		"request_id", a.RequestID, "lease_id", a.LeaseID, "key_id", a.KeyID, "user", a.User, "method", a.Method,
		"endpoint", a.Endpoint, "model", a.Model, "status", a.Status, "duration_ms", a.Duration.Milliseconds(),
		"first_byte_ms", a.FirstByte.Milliseconds(), "bytes_in", a.BytesIn, "bytes_out", a.BytesOut,
		"client_addr", a.ClientAddr, "details", a.Details,
	}
	if a.Reason != "" {
		args = append(args, "end_reason", string(a.Reason), "quality", string(a.Quality),
			"prompt_tokens", max(0, a.Counts.Prompt), "completion_tokens", max(0, a.Counts.Completion))
		if a.Counts.Cached != usage.Unsaid {
			args = append(args, "cached_tokens", a.Counts.Cached)
		}
	}
	if failed != "" {
		args = append(args, "error_type", failed)
	}
	r.log.Info("request", args...)
}

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
