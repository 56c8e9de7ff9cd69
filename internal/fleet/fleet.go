package fleet

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"tollgate/internal/openai"
)

// Options are what a [Fleet] begins with.
type Options struct {
	File []Entry // engines of the configuration file; their origin is [FromFile]
	// Path keeps the engines that came at run time; empty: they are forgotten.
	Path       string
	APIKeyFile string // bearer for all engines; "" = none. Read at every look
	// Resolve: vLLM resolves unknown adapter names itself, so a name that looks
	// like an adapter's passes without being listed.
	Resolve bool
	// Self are addresses of this gateway, which can be no engine of it.
	Self []string
	// Silence is how long a launcher may say nothing; 0: 10 s.
	Silence time.Duration
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

// Fleet is the set of engines. Its zero value is not usable; after [New],
// [Fleet.Run] finds out what the engines are.
type Fleet struct {
	o   Options
	log hclog.Logger
	up  *prometheus.GaugeVec
	now atomic.Pointer[View]

	// announcing keeps the calls of hooks in the order of the views.
	announcing sync.Mutex
	told       *View // guarded by announcing

	mu      sync.Mutex
	entries []*entry // in the order of the file, then of their coming; guarded by mu
	hooks   []func(*View)
	busy    func(endpoint string) int // nil: the engines' own gauges say it
	ctx     context.Context           // of Run; nil before it and after it
	begun   chan struct{}             // closed when Run has begun
	running sync.WaitGroup
	shown   map[string]bool // engines that have a gauge; guarded by mu
	warned  map[string]bool // warnings that the log has; guarded by mu
}

// New returns a fleet in which nothing is ready. It fails where the file of engines
// that came at run time cannot be read.
func New(o Options) (*Fleet, error) {
	if o.Silence == 0 {
		o.Silence = silence
	}
	f := &Fleet{
		o: o, log: o.Log, begun: make(chan struct{}), shown: map[string]bool{}, warned: map[string]bool{},
		up: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "engine_up", Help: "1 while the engine answers /health and lists its models.",
		}, []string{"engine"}),
	}
	if f.log == nil {
		f.log = hclog.NewNullLogger()
	}
	if err := f.restore(); err != nil {
		return nil, err
	}
	if o.Reg != nil {
		o.Reg.MustRegister(f.up)
	}
	f.mu.Lock()
	f.publish()
	f.mu.Unlock()
	return f, nil
}

// View is the fleet now.
func (f *Fleet) View() *View { return f.now.Load() }

// OnChange calls hook with every new view, one after the other, and at once with the
// present one. Hooks must not wait for long, nor call the fleet's changing methods.
func (f *Fleet) OnChange(hook func(*View)) {
	f.announcing.Lock()
	defer f.announcing.Unlock()
	f.mu.Lock()
	f.hooks = append(f.hooks, hook)
	f.mu.Unlock()
	hook(f.View())
}

// SetBusy tells how to count the requests that are on their way to an endpoint or
// at it. An engine that drains goes when there are none.
func (f *Fleet) SetBusy(busy func(endpoint string) int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.busy = busy
}

// Run watches until ctx ends. It is called once.
func (f *Fleet) Run(ctx context.Context) error {
	f.mu.Lock()
	f.ctx = ctx
	for _, e := range f.entries {
		f.watch(e) //nolint:contextcheck // it is ctx, kept for engines that come later
	}
	f.mu.Unlock()
	close(f.begun)
	f.tidyUntil(ctx)
	f.mu.Lock()
	f.ctx = nil
	f.mu.Unlock()
	f.running.Wait()
	return nil
}

func (f *Fleet) tidyUntil(ctx context.Context) {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			f.tidy()
		}
	}
}

// publish makes a view of what is known; the caller holds the lock, and calls
// [Fleet.announce] when it has given it back.
func (f *Fleet) publish() {
	var engines []*Engine
	var twice []string
	seen := map[string]string{}
	for _, e := range f.entries {
		for _, m := range e.members {
			if first, ok := seen[m.endpoint]; ok {
				twice = append(twice, m.address+" and "+first+" are the same engine, "+m.endpoint+": the first of them counts")
				continue
			}
			seen[m.endpoint] = m.address
			engines = append(engines, m.engine())
		}
		if len(e.members) == 0 {
			engines = append(engines, e.absent())
		}
	}
	v := viewOf(engines, f.o.Resolve)
	v.warnings = append(v.warnings, twice...)
	v.settled = !slices.ContainsFunc(f.entries, func(e *entry) bool { return !e.settled() })
	f.show(v)
	f.now.Store(v)
}

// show sets the gauges and logs what has changed.
func (f *Fleet) show(v *View) {
	old := map[string]bool{}
	if was := f.now.Load(); was != nil {
		for _, e := range was.engines {
			old[e.Address] = e.Ready
		}
	}
	there := map[string]bool{}
	for _, e := range v.engines {
		there[e.Address] = true
		up := 0.0
		if e.Ready {
			up = 1
		}
		f.up.WithLabelValues(e.Address).Set(up)
		if was, known := old[e.Address]; known && was != e.Ready {
			f.log.Info("engine changed", "engine", "http://"+e.Address, "ready", e.Ready, "models", len(e.Models), "error", e.Error)
		}
	}
	for address := range f.shown {
		if !there[address] {
			f.up.DeleteLabelValues(address)
		}
	}
	f.shown = there
	warned := map[string]bool{}
	for _, w := range v.warnings {
		if !f.warned[w] {
			f.log.Warn(w)
		}
		warned[w] = true
	}
	f.warned = warned
}

// announce calls the hooks with the newest view, unless somebody else has.
func (f *Fleet) announce() {
	f.announcing.Lock()
	defer f.announcing.Unlock()
	v := f.View()
	if v == f.told {
		return
	}
	f.told = v
	f.mu.Lock()
	hooks := slices.Clone(f.hooks)
	f.mu.Unlock()
	for _, hook := range hooks {
		hook(v)
	}
}

// Refresh looks at every engine now: the served names have changed. It returns when
// that is done or ctx ends.
func (f *Fleet) Refresh(ctx context.Context) {
	select {
	case <-f.begun:
	case <-ctx.Done():
		return
	}
	f.mu.Lock()
	var all []chan struct{}
	for _, e := range f.entries {
		for _, m := range e.members {
			done := make(chan struct{})
			m.lookNow(done)
			all = append(all, done)
		}
	}
	f.mu.Unlock()
	for _, done := range all {
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
	}
}

// Ready reports whether at least one engine can answer.
func (f *Fleet) Ready() bool { return f.View().Ready() }

// Model is [View.Model] of the present view.
func (f *Fleet) Model(name string) (int64, bool) { return f.View().Model(name) }

// Names lists the served names.
func (f *Fleet) Names() []string { return f.View().Names() }

// Models is [View.Models] of the present view.
func (f *Fleet) Models() []openai.Model { return f.View().Models() }

// Only is the address of the engine when there is exactly one, else "".
func (f *Fleet) Only() string {
	if engines := f.View().Engines(); len(engines) == 1 {
		return engines[0].Address
	}
	return ""
}

// Addresses are those of all engines.
func (f *Fleet) Addresses() []string {
	var out []string
	for _, e := range f.View().Engines() {
		out = append(out, e.Address)
	}
	return out
}

// States lists the engines as they were seen last.
func (f *Fleet) States() []State {
	engines := f.View().Engines()
	out := make([]State, len(engines))
	for i, e := range engines {
		out[i] = State{Target: "http://" + e.Address, Ready: e.Ready, Error: e.Error}
		if e.Ready {
			for _, m := range e.Models {
				out[i].Models = append(out[i].Models, m.ID)
			}
		}
	}
	return out
}
