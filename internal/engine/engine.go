// Package engine watches the vLLM servers behind the gate: which are ready and
// what they serve. It asks them over HTTP every second and never sends them
// work, which would cost tokens.
package engine

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"tollgate/internal/adapter"
	"tollgate/internal/openai"
	"tollgate/internal/vllm"
)

const (
	// interval is between two looks at an engine. Envoy's own health check runs
	// at the same pace (envoy.yaml).
	interval = time.Second
	// askTimeout bounds one question.
	askTimeout = 2 * time.Second
	// patience is how long an engine may be silent and still count as ready:
	// its host swaps, or it compiles something. What is sent to it waits. Envoy's
	// health check is as patient (envoy.yaml).
	patience = 10 * time.Second
)

// Options are what a [Pool] watches.
type Options struct {
	Endpoints  []string // host:port each, at least one
	APIKeyFile string   // bearer for /v1/models; "" = none. Read at every look
	// Resolve: vLLM resolves unknown adapter names itself, so a name that looks
	// like an adapter's passes without being listed.
	Resolve bool
	Log     hclog.Logger
	Reg     prometheus.Registerer
}

// State is one engine as it was seen last.
type State struct {
	Target string   `json:"target"` // http://host:port
	Ready  bool     `json:"ready"`
	Models []string `json:"models,omitempty"`
	Error  string   `json:"error,omitempty"` // why it is not ready
}

// Pool is the set of engines. Its zero value is not usable.
type Pool struct {
	o       Options
	clients []*vllm.Client // in the order of Options.Endpoints
	up      *prometheus.GaugeVec
	now     atomic.Pointer[view]
	kick    chan chan struct{}

	mu     sync.Mutex
	states []State // in the order of Options.Endpoints; guarded by mu
	lens   []map[string]int64
	heard  []time.Time      // guarded by mu; when each was ready last
	lists  [][]openai.Model // as listed last, also of an engine that is not ready now; guarded by mu
}

// view is what requests read: no lock on their path.
type view struct {
	ready bool
	lens  map[string]int64 // context length in tokens by served name
}

// New returns a pool in which nothing is ready; [Pool.Run] finds out.
func New(o Options) *Pool {
	p := &Pool{
		o: o,
		up: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "engine_up", Help: "1 while the engine answers /health and lists its models.",
		}, []string{"engine"}),
		kick:   make(chan chan struct{}),
		states: make([]State, len(o.Endpoints)),
		lens:   make([]map[string]int64, len(o.Endpoints)),
		heard:  make([]time.Time, len(o.Endpoints)),
		lists:  make([][]openai.Model, len(o.Endpoints)),
	}
	for i, e := range o.Endpoints {
		p.clients = append(p.clients, vllm.New(vllm.Options{Address: e, KeyFile: o.APIKeyFile, Timeout: askTimeout}))
		p.states[i] = State{Target: "http://" + e, Error: "not asked yet"}
		p.up.WithLabelValues(e).Set(0)
	}
	if o.Reg != nil {
		o.Reg.MustRegister(p.up)
	}
	p.now.Store(&view{lens: map[string]int64{}})
	return p
}

// Run watches until ctx ends.
func (p *Pool) Run(ctx context.Context) error {
	t := time.NewTicker(interval)
	defer t.Stop()
	defer p.close()
	for {
		p.look(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		case done := <-p.kick:
			p.look(ctx)
			close(done)
		}
	}
}

func (p *Pool) close() {
	for _, c := range p.clients {
		c.Close()
	}
}

// Refresh looks at every engine now: the served names have changed. It returns
// when that is done or ctx ends.
func (p *Pool) Refresh(ctx context.Context) {
	done := make(chan struct{})
	select {
	case p.kick <- done:
	case <-ctx.Done():
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// Ready reports whether at least one engine can answer.
func (p *Pool) Ready() bool { return p.now.Load().ready }

// Model returns the context length in tokens of a served name (0 = unknown)
// and whether it may be asked for.
func (p *Pool) Model(name string) (int64, bool) {
	v := p.now.Load()
	if n, ok := v.lens[name]; ok {
		return n, true
	}
	if p.o.Resolve && adapter.Valid(name) {
		return 0, true
	}
	return 0, false
}

// Names lists the served names.
func (p *Pool) Names() []string { return slices.Collect(maps.Keys(p.now.Load().lens)) }

// Only is the address of the engine when there is exactly one, else "".
func (p *Pool) Only() string {
	if len(p.o.Endpoints) == 1 {
		return p.o.Endpoints[0]
	}
	return ""
}

// States lists the engines as they were seen last.
func (p *Pool) States() []State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.states)
}

// Models is the union of what the engines list, in their order: as they listed it
// last where they are not ready now, nothing of one that was never ready.
func (p *Pool) Models() []openai.Model {
	p.mu.Lock()
	defer p.mu.Unlock()
	all, seen := []openai.Model{}, map[string]bool{}
	for _, list := range p.lists {
		for _, m := range list {
			if !seen[m.ID] {
				seen[m.ID] = true
				all = append(all, m)
			}
		}
	}
	return all
}

// look asks every engine at once and publishes what they said.
func (p *Pool) look(ctx context.Context) {
	var wg sync.WaitGroup
	for i := range p.o.Endpoints {
		wg.Go(func() { p.ask(ctx, i) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return
	}
	v := &view{lens: map[string]int64{}}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, s := range p.states {
		if s.Ready {
			v.ready = true
			maps.Copy(v.lens, p.lens[i])
		}
	}
	p.now.Store(v)
}

func (p *Pool) ask(ctx context.Context, i int) {
	target := "http://" + p.o.Endpoints[i]
	models, err := models(ctx, p.clients[i])
	if err != nil && p.silent(i, err) {
		return
	}
	s := State{Target: target, Ready: err == nil}
	lens := make(map[string]int64, len(models))
	for _, m := range models {
		s.Models = append(s.Models, m.ID)
		lens[m.ID] = m.MaxLen
	}
	// An adapter has its base model's context (vLLM lists null for it).
	for _, m := range models {
		if lens[m.ID] == 0 {
			lens[m.ID] = lens[m.Parent]
		}
	}
	up := 1.0
	if err != nil {
		s.Error, up = err.Error(), 0
	}
	p.mu.Lock()
	was := p.states[i]
	p.states[i], p.lens[i] = s, lens
	if s.Ready {
		p.heard[i] = time.Now()
		p.lists[i] = models
	}
	p.mu.Unlock()
	p.up.WithLabelValues(p.o.Endpoints[i]).Set(up)
	if was.Ready != s.Ready && p.o.Log != nil {
		p.o.Log.Info("engine changed", "engine", target, "ready", s.Ready, "models", s.Models, "error", s.Error)
	}
}

// silent says whether an engine that was ready has only not answered yet. One
// that refuses, answers something else or cannot be reached is not silent.
func (p *Pool) silent(i int, err error) bool {
	var timeout interface{ Timeout() bool }
	var dial *net.OpError
	if !errors.As(err, &timeout) || !timeout.Timeout() || errors.As(err, &dial) && dial.Op == "dial" {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.states[i].Ready && time.Since(p.heard[i]) < patience
}

// models are what a healthy engine lists.
func models(ctx context.Context, c *vllm.Client) ([]openai.Model, error) {
	if err := c.Health(ctx); err != nil {
		return nil, err
	}
	return c.Models(ctx)
}
