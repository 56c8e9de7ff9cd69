// Package placement chooses the engine for a request: the one that has least to
// do, or the one whose prefix cache holds most of the prompt, as long as that
// engine does not get more than its part of the load.
//
// It reads no clock, sends nothing and knows neither HTTP nor vLLM: callers say
// which engines are ready, what a prompt looks like, and what became of a request.
package placement

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
)

// Policy is how engines are chosen.
type Policy string

// The policies.
const (
	// LeastLoaded takes the engine with least to do.
	LeastLoaded Policy = "least_loaded"
	// Prefix takes the engine whose cache holds the longest beginning of the
	// prompt, within the bound of [Options.MaxLoad].
	Prefix Policy = "prefix"
)

// Outcome says why an engine was chosen.
type Outcome string

// The outcomes, which are labels of tollgate_placement_total.
const (
	// ByPrefix: its cache has most of the prompt.
	ByPrefix Outcome = "prefix"
	// ByLoad: it has least to do.
	ByLoad Outcome = "least_loaded"
	// Overloaded: another engine has more of the prompt, and too much to do.
	Overloaded Outcome = "overloaded"
	// Fallback: no engine of the model that was meant is ready.
	Fallback Outcome = "fallback"
)

// Outcomes lists every outcome once.
func Outcomes() []Outcome { return []Outcome{ByPrefix, ByLoad, Overloaded, Fallback} }

const (
	// mostBlocks bounds the blocks of all engines together: about 50 MiB at the
	// worst; mostOfOne those of one engine: 8 million tokens, more than engines keep.
	mostBlocks = 1 << 20
	mostOfOne  = 1 << 18
	// mostAddresses is how many engines are worth naming: each one behind the first
	// is a further try where one cannot be reached.
	mostAddresses = 5
)

// Options are what a [Placer] is made of; the zero value is least_loaded.
type Options struct {
	Policy Policy
	// MaxLoad, at least 1, bounds [Prefix]: no engine takes more than this × the mean
	// load for the sake of its cache.
	MaxLoad float64
}

// Engine is a candidate: it is ready and serves the model.
type Engine struct {
	Endpoint string // ip:port; names the engine
	Weight   int    // share of the load, relative; below 1 counts as 1
	Waiting  int64  // requests that wait inside of it, by its own account
}

// Placer keeps what engines have to do and what their caches hold. It is safe for
// concurrent use. Its zero value is not usable.
type Placer struct {
	o       Options
	metrics *metrics

	mu      sync.Mutex
	engines map[string]*engine // guarded by mu
	turn    uint64             // guarded by mu; counts placements
	usual   float64            // guarded by mu; tokens of a usual request
}

// engine is what is known of one engine. Lock order: Placer.mu, then engine.mu.
type engine struct {
	name  string
	load  atomic.Int64 // tokens that are reserved at it and not used yet
	live  atomic.Int64 // seats
	await atomic.Int64 // of them, those whose answer has not begun
	turn  uint64       // guarded by Placer.mu; of the last placement
	cache *cache       // guarded by mu
	mu    sync.Mutex
}

// New returns a placer that knows no engine yet.
func New(o Options) *Placer {
	o.MaxLoad = max(1, o.MaxLoad)
	if o.Policy == "" {
		o.Policy = LeastLoaded
	}
	return &Placer{o: o, metrics: newMetrics(o.Policy), engines: map[string]*engine{}}
}

// Policy is how engines are chosen.
func (p *Placer) Policy() Policy { return p.o.Policy }

// at returns an engine, new where it was not known. Requires p.mu.
func (p *Placer) at(name string) *engine {
	e := p.engines[name]
	if e == nil {
		e = &engine{name: name, cache: newCache(mostOfOne)}
		p.engines[name] = e
		p.divide()
	}
	return e
}

// divide gives every engine an equal part of all blocks. Requires p.mu.
func (p *Placer) divide() {
	part := min(mostOfOne, mostBlocks/max(1, len(p.engines)))
	for _, e := range p.engines {
		e.mu.Lock()
		e.cache.limit(part)
		e.mu.Unlock()
	}
}

// Keep forgets every engine that is not named: what it had to do is gone, and so
// is its cache. Seats at it may still be given back.
func (p *Placer) Keep(names []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range p.engines {
		if !slices.Contains(names, name) {
			delete(p.engines, name)
		}
	}
	p.divide()
}

// Cold forgets what the cache of an engine holds: it was started anew.
func (p *Placer) Cold(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.engines[name]; e != nil {
		e.mu.Lock()
		e.cache = newCache(e.cache.ceiling)
		e.mu.Unlock()
	}
}

// Live is how many seats an engine has that were not given back.
func (p *Placer) Live(name string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.engines[name]; e != nil {
		return int(e.live.Load())
	}
	return 0
}

// Load is the tokens that are reserved at an engine and still work: neither used yet
// nor in its cache.
func (p *Placer) Load(name string) float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.engines[name]; e != nil {
		return float64(e.load.Load())
	}
	return 0
}

// candidate is an engine in one decision.
type candidate struct {
	*engine
	matched int     // first blocks of the prompt that count as in its cache
	sure    int     // of them, those that are not only expected
	private bool    // the last of them is of one conversation
	held    float64 // tokens at it ÷ weight
	fresh   float64 // tokens of this request that would be work there
	spare   float64 // tokens by which it may pass the bound
	weight  float64
}

// Work is what a request has reserved, in tokens.
type Work struct{ Prompt, Output int64 }

// Place takes a seat at one of the engines, at least one, for a request. The prompt may be nil, and belongs to the seat from now on. fallback says
// that the engines stand in for those of another model.
func (p *Placer) Place(engines []Engine, prompt *Prompt, w Work, fallback bool) *Seat {
	var room [8]candidate
	all := room[:0]
	p.mu.Lock()
	for _, e := range engines {
		all = append(all, candidate{engine: p.at(e.Endpoint), weight: float64(max(1, e.Weight))})
	}
	p.mu.Unlock()
	if p.o.Policy == Prefix && prompt.Blocks() > 0 && len(all) > 1 {
		for i := range all {
			all[i].mu.Lock()
			all[i].matched, all[i].sure, all[i].private = all[i].cache.known(prompt.blocks)
			all[i].mu.Unlock()
		}
	}
	w.Prompt, w.Output = max(0, w.Prompt), max(0, w.Output)
	tokens := float64(w.Prompt + w.Output)
	s := &Seat{placer: p, prompt: prompt, tokens: w.Prompt + w.Output}
	p.mu.Lock()
	p.usual += (tokens - p.usual) / 16
	s.Outcome = p.choose(all, engines, prompt, w)
	chosen := all[0].engine
	p.turn++
	chosen.turn = p.turn
	s.left = int64(all[0].fresh)
	s.enter(chosen)
	p.mu.Unlock()
	if fallback {
		s.Outcome = Fallback
	}
	p.metrics.why[s.Outcome].Inc()
	s.matched = all[0].sure
	if p.o.Policy == Prefix && prompt.Blocks() > 0 {
		chosen.mu.Lock()
		prompt.used = chosen.cache.touch(prompt.blocks[:all[0].matched], prompt.used[:0])
		chosen.mu.Unlock()
		s.expect(chosen)
	}
	s.Endpoints = make([]string, min(len(all), mostAddresses))
	for i := range s.Endpoints {
		s.Endpoints[i] = all[i].name
	}
	return s
}

// Rejoin takes a seat at an engine that a request is at already.
func (p *Placer) Rejoin(endpoint string, tokens int64) *Seat {
	s := &Seat{placer: p, Endpoints: []string{endpoint}, Outcome: ByLoad, left: max(0, tokens)}
	s.tokens = s.left
	p.mu.Lock()
	defer p.mu.Unlock()
	s.enter(p.at(endpoint))
	return s
}

// choose sorts the candidates, the best first. Requires p.mu.
func (p *Placer) choose(all []candidate, engines []Engine, prompt *Prompt, w Work) Outcome {
	tokens := float64(w.Prompt + w.Output)
	var total, weights float64
	for i := range all {
		c := &all[i]
		// The reservations of our own waiting requests are counted already.
		others := max(0, engines[i].Waiting-c.await.Load())
		held := float64(c.load.Load()) + float64(others)*p.usual
		c.held = held / c.weight
		c.fresh = tokens
		if c.matched > 0 {
			saved := float64(w.Prompt) * prompt.share(c.matched)
			c.fresh -= saved
			if c.private {
				c.spare = saved
			}
		}
		total += held
		weights += c.weight
	}
	slices.SortFunc(all, lighter)
	outcome := ByLoad
	if best := p.fullest(all, (total+tokens)/weights); best >= 0 {
		outcome = ByPrefix
		for _, c := range all {
			if c.matched > all[best].matched {
				outcome = Overloaded
			}
		}
		first := all[best]
		copy(all[1:best+1], all[:best])
		all[0] = first
	} else if slices.ContainsFunc(all, func(c candidate) bool { return c.matched > 0 }) {
		outcome = Overloaded
	}
	return outcome
}

// lighter orders by load; of equals the one that has most of the prompt, then the
// one that had no request for longest.
func lighter(a, b candidate) int {
	return cmp.Or(cmp.Compare(a.held, b.held), cmp.Compare(b.matched, a.matched), cmp.Compare(a.turn, b.turn))
}

// fullest is the candidate that has most of the prompt and room for it, given the
// mean load as it will be; -1 where none has any of it. Who has least to do
// always has room. all is in the order of load.
//
// A conversation has its past in one place: its engine may pass the bound by what that
// spares, which is less than this one request. What many send can be in every cache
// soon, and is no reason.
func (p *Placer) fullest(all []candidate, mean float64) int {
	best := -1
	for i, c := range all {
		switch {
		case c.matched == 0, best >= 0 && c.matched <= all[best].matched:
		case c.held > all[0].held && c.held+(c.fresh-c.spare)/c.weight > p.o.MaxLoad*mean:
		default:
			best = i
		}
	}
	return best
}
