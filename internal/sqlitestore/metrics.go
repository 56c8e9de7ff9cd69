package sqlitestore

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics are what the ledger shows of itself.
type Metrics struct {
	settle  prometheus.Histogram
	backlog prometheus.Gauge
}

// NewMetrics registers the ledger's metrics; with a nil registerer they are
// kept and shown nowhere.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	return &Metrics{
		settle: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "ledger_settle_seconds",
			Help:    "Time from handing a settlement to the ledger until it is written.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5},
		}),
		backlog: f.NewGauge(prometheus.GaugeOpts{
			Name: "ledger_backlog",
			Help: "Ledger writes that wait for their commit.",
		}),
	}
}
