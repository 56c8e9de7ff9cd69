package fleet

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"tollgate/internal/adapter"
	"tollgate/internal/openai"
)

// Engine is one engine at a moment. It never changes, but for its load.
type Engine struct {
	// Address is host:port as people know it, Endpoint the IP and port that requests
	// go to: Envoy, the ledger and the metrics of placement know it by that.
	Address, Endpoint string
	Weight            int // its share of the load, relative; at least 1
	Ready             bool
	Draining          bool           // no new requests
	Models            []openai.Model // as it listed them last, also when it is not ready now
	Error             string         // why it is not ready
	Restarts          int            // how often its counters began anew; its caches did, too
	Named             Entry          // who named it

	lens map[string]int64 // context length by name
	load *load
}

// load changes every second, views do not.
type load struct{ waiting, running atomic.Int64 }

// Waiting is how many sequences wait for a place at the engine, a second ago at most.
func (e *Engine) Waiting() int64 { return e.load.waiting.Load() }

// Running is how many sequences the engine runs, also those of other gateways.
func (e *Engine) Running() int64 { return e.load.running.Load() }

// View is the fleet at a moment. It never changes.
type View struct {
	engines  []*Engine
	serving  map[string][]*Engine
	ready    []*Engine
	lens     map[string]int64
	listed   map[string]bool
	names    []string
	warnings []string
	resolve  bool
	settled  bool
}

// Settled reports whether every engine was asked once at least.
func (v *View) Settled() bool { return v.settled }

// Engines are all of them, in the order of the file and then of their coming.
// Callers must not change the list.
func (v *View) Engines() []*Engine { return v.engines }

// Serving are the engines that a request for the model can go to: ready, not
// draining, and listing that name. Callers must not change the list.
func (v *View) Serving(model string) []*Engine {
	if list := v.serving[model]; list != nil || !v.Resolves(model) {
		return list
	}
	return v.ready
}

// Resolves reports whether the name may be an adapter that an engine finds by
// itself: it looks like one, and no engine lists it.
func (v *View) Resolves(name string) bool {
	return v.resolve && !v.listed[name] && adapter.Valid(name)
}

// Model returns the context length of a model in tokens (0 = unknown) and whether
// an engine can serve it now. Where engines differ the smallest length counts.
func (v *View) Model(name string) (int64, bool) {
	if n, ok := v.lens[name]; ok {
		return n, true
	}
	return 0, v.Resolves(name)
}

// Listed reports whether an engine of the fleet listed the model, ready now or not.
func (v *View) Listed(name string) bool { return v.listed[name] }

// Lost are models that an engine listed and none can serve now, sorted.
func (v *View) Lost() []string {
	var lost []string
	for name := range v.listed {
		if _, ok := v.serving[name]; !ok {
			lost = append(lost, name)
		}
	}
	slices.Sort(lost)
	return lost
}

// Names are the models that can be served now, sorted.
func (v *View) Names() []string { return v.names }

// Ready reports whether an engine can serve anything.
func (v *View) Ready() bool { return len(v.ready) > 0 }

// Warnings are what is probably not meant, a sentence each.
func (v *View) Warnings() []string { return v.warnings }

// Models is the union of what the engines list, in their order: as listed last where
// one is not ready now, nothing of one that was never ready.
func (v *View) Models() []openai.Model {
	all, seen := []openai.Model{}, map[string]bool{}
	for _, e := range v.engines {
		for _, m := range e.Models {
			if !seen[m.ID] {
				seen[m.ID] = true
				all = append(all, m)
			}
		}
	}
	return all
}

// viewOf puts a view together; the engines are as [View.Engines] has them.
func viewOf(engines []*Engine, resolve bool) *View {
	v := &View{
		engines: engines, serving: map[string][]*Engine{}, lens: map[string]int64{}, listed: map[string]bool{}, resolve: resolve,
	}
	differ := map[string]bool{}
	for _, e := range engines {
		for _, m := range e.Models {
			v.listed[m.ID] = true
		}
		if !e.Ready || e.Draining {
			continue
		}
		v.ready = append(v.ready, e)
		for name, n := range e.lens {
			v.serving[name] = append(v.serving[name], e)
			old, known := v.lens[name]
			if known && old != n && old != 0 && n != 0 {
				differ[name] = true
			}
			if !known || n != 0 && (old == 0 || n < old) {
				v.lens[name] = n
			}
		}
	}
	v.names = slices.Sorted(maps.Keys(v.lens))
	for _, name := range slices.Sorted(maps.Keys(differ)) {
		v.warnings = append(v.warnings, v.differs(name))
	}
	return v
}

// differs says that the engines of a model take contexts of different length.
func (v *View) differs(name string) string {
	list := slices.Clone(v.serving[name])
	slices.SortStableFunc(list, func(a, b *Engine) int { return cmp.Compare(a.lens[name], b.lens[name]) })
	parts := make([]string, len(list))
	for i, e := range list {
		parts[i] = fmt.Sprintf("%s takes %d tokens", e.Address, e.lens[name])
	}
	return fmt.Sprintf("the engines of %s have different context lengths, and the smallest counts: %s", name, strings.Join(parts, ", "))
}
