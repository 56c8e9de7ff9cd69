package extproc

import "github.com/prometheus/client_golang/prometheus"

// Metrics are what the adapter counts.
type Metrics struct {
	unmetered  prometheus.Counter
	badTickets prometheus.Counter
	panics     prometheus.Counter
}

// NewMetrics registers the adapter's metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		unmetered: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "unmetered_bytes_total", Help: "Bytes of metered routes that passed without a meter. Must be 0.",
		}),
		badTickets: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tickets_refused_total", Help: "Streams whose ticket was unknown, expired or used already.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stream_panics_total", Help: "Streams cut because of a fault of ours. Must be 0.",
		}),
	}
	reg.MustRegister(m.unmetered, m.badTickets, m.panics)
	return m
}
