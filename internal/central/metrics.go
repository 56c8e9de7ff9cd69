package central

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"tollgate/internal/ledger"
)

// Metrics are what a shipper shows of itself.
type Metrics struct {
	reg     prometheus.Registerer
	up      prometheus.Gauge
	shipped prometheus.Counter
	seconds prometheus.Histogram
}

// NewMetrics registers the shipper's metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	return &Metrics{
		reg: reg,
		up: f.NewGauge(prometheus.GaugeOpts{
			Name: "central_up", Help: "1 while the central ledger takes rows.",
		}),
		shipped: f.NewCounter(prometheus.CounterOpts{
			Name: "central_shipped_rows_total", Help: "Rows that the central ledger has confirmed, corrections included.",
		}),
		seconds: f.NewHistogram(prometheus.HistogramOpts{
			Name: "central_ship_seconds", Help: "Time that one batch of rows took.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
	}
}

// watch shows what waits in the outbox, as it is when the page is read.
func (m *Metrics) watch(from Source, mark string) {
	look := &look{from: from, mark: mark}
	f := promauto.With(m.reg)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "outbox_rows", Help: "Settled rows that the central ledger does not have yet, at most a million.",
	}, func() float64 { return float64(look.now().Rows) })
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "outbox_oldest_seconds", Help: "Time since the oldest row ended that the central ledger does not have; 0 where it has all.",
	}, func() float64 { return age(look.now()).Seconds() })
}

// look counts the outbox, once for the gauges of one page.
type look struct {
	from Source
	mark string

	mu   sync.Mutex
	at   time.Time
	last ledger.Backlog
}

const (
	lookEvery   = time.Second
	lookTimeout = 2 * time.Second
)

// now is the outbox of the last second; the last known one where the ledger
// cannot be read.
func (l *look) now() ledger.Backlog {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Since(l.at) < lookEvery {
		return l.last
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	after, err := l.from.Mark(ctx, l.mark)
	if err == nil {
		var b ledger.Backlog
		if b, err = l.from.Backlog(ctx, after); err == nil {
			l.last, l.at = b, time.Now()
		}
	}
	return l.last
}
