package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate/internal/supervisor"
)

// childrenTimeout bounds what a scrape waits for the launchers.
const childrenTimeout = time.Second

// Children is a metric of what launchers say of their processes. It asks them
// at every scrape. It is a [prometheus.Collector].
//
// Its counters do not fall when a launcher is started anew, and stay where they
// are while one does not answer.
type Children struct {
	hosts    []Host
	restarts *prometheus.CounterVec

	mu   sync.Mutex
	seen map[series]int // guarded by mu; what the launcher said last
}

// series is one counter of one launcher.
type series struct{ child, host, reason string }

// NewChildren is the metric for those launchers. What they run is known
// beforehand, so that every series is there, at 0, before the first restart.
func NewChildren(hosts []Host) *Children {
	c := &Children{
		hosts: hosts, seen: map[series]int{},
		restarts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "child_restarts_total", Help: "Starts after the first of a process that a launcher looks after, by reason.",
		}, []string{"child", "host", "reason"}),
	}
	for _, h := range hosts {
		names := []string{"vllm"}
		if h.Name() == localHost {
			names = append(names, "tollgate", "envoy")
		}
		for _, name := range names {
			for _, cause := range supervisor.Causes() {
				c.restarts.WithLabelValues(name, h.Name(), string(cause))
			}
		}
	}
	return c
}

// Describe implements [prometheus.Collector].
func (c *Children) Describe(ch chan<- *prometheus.Desc) { c.restarts.Describe(ch) }

// Collect implements [prometheus.Collector].
func (c *Children) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), childrenTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, h := range c.hosts {
		wg.Go(func() { c.ask(ctx, h) })
	}
	wg.Wait()
	c.restarts.Collect(ch)
}

// ask adds what has happened on a host since the last time. A host without a
// launcher has no children.
func (c *Children) ask(ctx context.Context, h Host) {
	status, body, err := h.Call(ctx, http.MethodGet, "/state", nil)
	var state struct {
		Children []struct {
			Name     string         `json:"name"`
			Restarts map[string]int `json:"restarts_by"`
		} `json:"children"`
	}
	if err != nil || status != http.StatusOK || json.Unmarshal(body, &state) != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, child := range state.Children {
		for reason, n := range child.Restarts {
			s := series{child.Name, h.Name(), reason}
			more := n - c.seen[s]
			if more < 0 {
				more = n // the launcher is another one and counts from zero
			}
			c.restarts.WithLabelValues(s.child, s.host, s.reason).Add(float64(max(more, 0)))
			c.seen[s] = n
		}
	}
}

var _ prometheus.Collector = (*Children)(nil)
