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

// Children collects metrics of the processes that launchers run. It asks the launchers
// at every scrape.
//
// Its counters do not fall when a launcher restarts, and they keep their values while a
// launcher does not answer.
type Children struct {
	hosts    []Host
	own      func() int64 // lost lines of our own log; nil where a launcher writes it
	restarts *prometheus.CounterVec
	lost     *prometheus.CounterVec

	mu   sync.Mutex
	seen map[series]int // guarded by mu; what the launcher said last
}

// series is one counter of one launcher.
type series struct{ child, host, reason string }

// The reasons under which lost lines of a log are counted.
const (
	lostLines = "lost lines"
	ownLines  = "own lost lines"
)

// NewChildren returns a collector for these launchers. The children of each are known
// beforehand, so that every series exists with the value 0 before the first restart.
// own returns how many lines of this process's log were lost; it is nil where a
// launcher writes that log.
func NewChildren(hosts []Host, own func() int64) *Children {
	c := &Children{
		hosts: hosts, own: own, seen: map[series]int{},
		lost: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "log_lines_lost_total", Help: "Lines of a process's log that could not be written, as on a full disk.",
		}, []string{"child", "host"}),
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
			c.lost.WithLabelValues(name, h.Name())
			for _, cause := range supervisor.Causes() {
				c.restarts.WithLabelValues(name, h.Name(), string(cause))
			}
		}
	}
	return c
}

// Describe implements [prometheus.Collector].
func (c *Children) Describe(ch chan<- *prometheus.Desc) {
	c.restarts.Describe(ch)
	c.lost.Describe(ch)
}

// Collect implements [prometheus.Collector].
func (c *Children) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), childrenTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, h := range c.hosts {
		wg.Go(func() { c.ask(ctx, h) })
	}
	wg.Wait()
	if c.own != nil {
		c.mu.Lock()
		c.grow(c.lost.WithLabelValues("tollgate", localHost), series{"tollgate", localHost, ownLines}, int(c.own()))
		c.mu.Unlock()
	}
	c.restarts.Collect(ch)
	c.lost.Collect(ch)
}

// ask adds the events on one host since the last scrape. A host without a launcher has
// no children.
func (c *Children) ask(ctx context.Context, h Host) {
	status, body, err := h.Call(ctx, http.MethodGet, "/state", nil)
	var state struct {
		Children []struct {
			Name     string         `json:"name"`
			Restarts map[string]int `json:"restarts_by"`
			Lost     int            `json:"lost_log_lines"`
		} `json:"children"`
	}
	if err != nil || status != http.StatusOK || json.Unmarshal(body, &state) != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, child := range state.Children {
		for reason, n := range child.Restarts {
			c.grow(c.restarts.WithLabelValues(child.Name, h.Name(), reason), series{child.Name, h.Name(), reason}, n)
		}
		c.grow(c.lost.WithLabelValues(child.Name, h.Name()), series{child.Name, h.Name(), lostLines}, child.Lost)
	}
}

// grow raises a counter to n, the launcher's value. REQUIRES: mu held.
func (c *Children) grow(to prometheus.Counter, s series, n int) {
	more := n - c.seen[s]
	if more < 0 {
		more = n // the launcher is another one and counts from zero
	}
	to.Add(float64(max(more, 0)))
	c.seen[s] = n
}

var _ prometheus.Collector = (*Children)(nil)
