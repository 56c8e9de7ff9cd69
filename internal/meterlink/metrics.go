package meterlink

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// holdBounds are the upper bounds in seconds of what a meter counts its holds by;
// those that were longer it counts behind them.
var holdBounds = [...]float64{.001, .005, .025, .1, .5, 2}

// Metrics are what the link counts, and what meters count themselves and tell.
type Metrics struct {
	connected prometheus.Gauge
	malformed prometheus.Counter

	mu  sync.Mutex
	of  map[string]counters // guarded by mu; the last words of each instance
	old counters            // guarded by mu; of instances that are gone
}

// counters are those of one meter since its start.
type counters struct {
	spilled, panics, refused, unenforced int64
	heldMicros                           int64
	hold                                 [len(holdBounds) + 1]int64
}

// NewMetrics registers the link's metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{of: map[string]counters{}}
	m.connected = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "meters_connected", Help: "Envoys whose meter is connected to this tollgate.",
	})
	m.malformed = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "meter_lines_malformed_total", Help: "Lines of meters that could not be read. Must be 0.",
	})
	reg.MustRegister(m.connected, m.malformed,
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "meter_spilled_total", Help: "Records that a meter wrote into its file because tollgate did not acknowledge them in time.",
		}, m.sum(func(c *counters) int64 { return c.spilled })),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "meter_panics_total", Help: "Streams that a meter cut because of a fault of its own. Must be 0.",
		}, m.sum(func(c *counters) int64 { return c.panics })),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "meter_refused_total", Help: "Requests that a meter refused because too many records waited for tollgate.",
		}, m.sum(func(c *counters) int64 { return c.refused })),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "meter_unenforced_total", Help: "Streams that went on although their quota could not be asked for in time.",
		}, m.sum(func(c *counters) int64 { return c.unenforced })),
		newHolds(prometheus.HistogramOpts{
			Name: "meter_hold_seconds", Help: "Time that the ends of answers have waited inside Envoy for their record to be written.",
		}, m.all),
	)
	return m
}

// all is the sum over all meters that there were.
func (m *Metrics) all() counters {
	m.mu.Lock()
	defer m.mu.Unlock()
	sum := m.old
	for _, c := range m.of {
		sum.add(&c)
	}
	return sum
}

func (m *Metrics) sum(of func(*counters) int64) func() float64 {
	return func() float64 {
		c := m.all()
		return float64(of(&c))
	}
}

// holds shows a histogram that meters keep.
type holds struct {
	desc *prometheus.Desc
	all  func() counters
}

func newHolds(o prometheus.HistogramOpts, all func() counters) holds {
	return holds{prometheus.NewDesc(o.Name, o.Help, nil, nil), all}
}

// Describe implements [prometheus.Collector].
func (h holds) Describe(ch chan<- *prometheus.Desc) { ch <- h.desc }

// Collect implements [prometheus.Collector].
func (h holds) Collect(ch chan<- prometheus.Metric) {
	c := h.all()
	buckets, under := map[float64]uint64{}, uint64(0)
	for i, bound := range holdBounds {
		under += uint64(c.hold[i]) //nolint:gosec // not below zero
		buckets[bound] = under
	}
	count := under + uint64(c.hold[len(holdBounds)]) //nolint:gosec // not below zero
	ch <- prometheus.MustNewConstHistogram(h.desc, count, float64(c.heldMicros)/1e6, buckets)
}

func (c *counters) add(o *counters) {
	c.spilled += o.spilled
	c.panics += o.panics
	c.refused += o.refused
	c.unenforced += o.unenforced
	c.heldMicros += o.heldMicros
	for i, n := range o.hold {
		c.hold[i] += n
	}
}

// told takes what a meter says of itself: words of the form name=value. Names that
// are not known are a newer meter's.
func (m *Metrics) told(instance string, w [][]byte) error {
	var c counters
	for _, word := range w {
		name, value, ok := bytes.Cut(word, []byte{'='})
		if !ok || !c.set(string(name), string(value)) {
			return fmt.Errorf("%w: i", errLine)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.of[instance] = c
	return nil
}

// set reports whether the value can be read.
func (c *counters) set(name, value string) bool {
	if name == "hold" {
		list := strings.Split(value, ",")
		if len(list) != len(c.hold) {
			return false
		}
		for i, s := range list {
			if !whole(s, &c.hold[i]) {
				return false
			}
		}
		return true
	}
	to, known := map[string]*int64{
		"spilled": &c.spilled, "panics": &c.panics, "refused": &c.refused, "unenforced": &c.unenforced,
		"held_us": &c.heldMicros,
	}[name]
	return !known || whole(value, to)
}

func whole(s string, to *int64) bool {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return false
	}
	*to = n
	return true
}

// gone keeps what an instance has counted, without its name.
func (m *Metrics) gone(instance string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.of[instance]
	m.old.add(&c)
	delete(m.of, instance)
}
