package trace

import "github.com/prometheus/client_golang/prometheus"

// Observe adds a value to a histogram, with the trace as its exemplar where there is one.
func Observe(h prometheus.Observer, value float64, s Span) {
	if with, ok := h.(prometheus.ExemplarObserver); ok && !s.None() {
		with.ObserveWithExemplar(value, prometheus.Labels{"trace_id": s.TraceID()})
		return
	}
	h.Observe(value)
}
