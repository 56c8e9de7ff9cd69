package placement

import "sync"

// Seat is what one request holds of an engine: the tokens that it has reserved
// there and not used yet. Every seat must be given back with [Seat.Leave].
//
// A nil seat is one of a request that was not placed; all methods take it.
type Seat struct {
	// Endpoints are the engines to try, the best first; at least one.
	Endpoints []string
	// Outcome says why the first of them was chosen.
	Outcome Outcome

	placer  *Placer
	matched int // blocks that the cache of the first engine was believed to have

	mu      sync.Mutex
	engine  *engine // guarded by mu, like all that follows; nil once left
	prompt  *Prompt
	tokens  int64 // that were reserved
	left    int64 // of them, what is still work for the engine
	started bool
}

// expect counts the prompt as in an engine's cache already, so that what begins alike
// and comes before the answer goes there, too. [Seat.recant] undoes that.
func (s *Seat) expect(e *engine) {
	if s.placer.o.Policy != Prefix || s.prompt.Blocks() == 0 {
		return
	}
	e.mu.Lock()
	e.cache.add(s.prompt.blocks)
	e.mu.Unlock()
}

// recant says that the engine has not answered and so has nothing of the prompt.
func (s *Seat) recant() {
	if s.started || s.placer.o.Policy != Prefix || s.prompt.Blocks() == 0 {
		return
	}
	s.engine.mu.Lock()
	s.engine.cache.withdraw(s.prompt.blocks)
	s.engine.mu.Unlock()
}

// enter adds what the seat holds to an engine, leave takes it away.
func (s *Seat) enter(e *engine) {
	s.engine = e
	e.load.Add(s.left)
	e.live.Add(1)
	if !s.started {
		e.await.Add(1)
	}
}

func (s *Seat) leave() {
	s.engine.load.Add(-s.left)
	s.engine.live.Add(-1)
	if !s.started {
		s.engine.await.Add(-1)
	}
	s.engine = nil
}

// ServedBy names the engine that answers, which may be a later one of the list or
// none of it.
func (s *Seat) ServedBy(endpoint string) {
	if s == nil || endpoint == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.engine == nil || s.engine.name == endpoint {
		return
	}
	s.placer.mu.Lock()
	e := s.placer.at(endpoint)
	s.placer.mu.Unlock()
	s.recant()
	s.leave()
	if !s.started {
		s.left = s.tokens
		s.expect(e)
	}
	s.enter(e)
	s.matched = 0 // of that engine nothing was believed
}

// Started says that the answer has begun: the prompt is in the engine's cache, and
// what is left to do is output tokens at most.
func (s *Seat) Started(output int64) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.engine == nil || s.started {
		return
	}
	s.started = true
	s.engine.await.Add(-1)
	s.remain(output)
	if s.placer.o.Policy == Prefix && s.prompt.Blocks() > 0 {
		s.engine.mu.Lock()
		s.engine.cache.confirm(s.prompt.blocks)
		s.engine.mu.Unlock()
	}
}

// Remain says how many tokens of output are left at most.
func (s *Seat) Remain(output int64) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.engine != nil && s.started {
		s.remain(output)
	}
}

func (s *Seat) remain(tokens int64) {
	tokens = min(max(tokens, 0), s.left)
	s.engine.load.Add(tokens - s.left)
	s.left = tokens
}

// Cached takes the engine's word on how much of the prompt, in tokens, came from
// its cache: it corrects what that cache is believed to hold. Below 0: not said.
func (s *Seat) Cached(prompt, cached int64) {
	if s == nil || cached < 0 || prompt <= 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.engine == nil {
		return
	}
	s.placer.metrics.hits.WithLabelValues(s.engine.name).Add(float64(cached))
	if s.matched == 0 || s.prompt == nil {
		return
	}
	had := s.prompt.upTo(float64(cached) / float64(prompt))
	s.engine.mu.Lock()
	defer s.engine.mu.Unlock()
	if s.matched-had <= slack(s.matched) {
		s.engine.cache.kept()
		return
	}
	s.engine.cache.missed(s.prompt.used[had])
}

// slack is how many blocks of a match may be missing without a meaning: engines
// cache in blocks of their own, of 16 to 500 tokens, tokens are not spread evenly
// over the text, and what a chat template adds is in no block here.
func slack(matched int) int { return 8 + matched/4 }

// Leave gives the seat back; calls after the first do nothing.
func (s *Seat) Leave() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.engine == nil {
		return
	}
	s.recant()
	s.leave()
	s.prompt.Free()
	s.prompt = nil
}
