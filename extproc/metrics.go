package extproc

import "github.com/prometheus/client_golang/prometheus"

// Metrics are what the adapter counts.
type Metrics struct {
	unmetered  prometheus.Counter
	badTickets prometheus.Counter
	panics     prometheus.Counter
	metered    *prometheus.CounterVec
}

// The hosts of the meter, as a label.
const (
	hostModule  = "module"
	hostExtProc = "ext_proc"
)

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
			Name: "stream_panics_total", Help: "Streams cut because tollgate panicked. Must be 0.",
		}),
	}
	m.metered = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "requests_metered_total", Help: "Requests sent to an engine, by where their answers are metered.",
	}, []string{"host"})
	m.metered.WithLabelValues(hostModule)
	m.metered.WithLabelValues(hostExtProc)
	reg.MustRegister(m.unmetered, m.badTickets, m.panics, m.metered)
	return m
}
