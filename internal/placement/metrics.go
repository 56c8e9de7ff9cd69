package placement

import "github.com/prometheus/client_golang/prometheus"

// metrics are what a placer counts; registered by [Placer.Register].
type metrics struct {
	load   *prometheus.GaugeVec
	placed *prometheus.CounterVec
	// why is placed of the placer's own policy: looked up once, not for every request.
	why  map[Outcome]prometheus.Counter
	hits *prometheus.CounterVec
}

func newMetrics(policy Policy) *metrics {
	m := &metrics{
		why: map[Outcome]prometheus.Counter{},
		load: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "engine_load", Help: "Tokens that are reserved at an engine and still work for it: neither used yet nor in its cache.",
		}, []string{"engine"}),
		placed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "placement_total", Help: "Requests for which an engine was chosen, by policy and by what decided.",
		}, []string{"policy", "outcome"}),
		hits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "prefix_hit_tokens_total", Help: "Prompt tokens that engines say they had in their cache.",
		}, []string{"engine"}),
	}
	for _, o := range Outcomes() {
		m.why[o] = m.placed.WithLabelValues(string(policy), string(o))
	}
	return m
}

// Register adds the placer's metrics to reg, which adds the prefix tollgate_.
func (p *Placer) Register(reg prometheus.Registerer) {
	reg.MustRegister(p.metrics.placed, p.metrics.hits, loads{p})
}

// loads reads the load of every engine when it is scraped.
type loads struct{ p *Placer }

// Describe implements [prometheus.Collector].
func (l loads) Describe(to chan<- *prometheus.Desc) { l.p.metrics.load.Describe(to) }

// Collect implements [prometheus.Collector].
func (l loads) Collect(to chan<- prometheus.Metric) {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	l.p.metrics.load.Reset()
	for name, e := range l.p.engines {
		l.p.metrics.load.WithLabelValues(name).Set(float64(e.load.Load()))
	}
	l.p.metrics.load.Collect(to)
}
