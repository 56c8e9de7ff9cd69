package admission

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Generation is what the engines say of their work, all of them together.
type Generation struct {
	Tokens  int64 // generated so far
	Running int64 // sequences that are running now; below 0: not said
	Engines int   // of how many engines this is the sum
}

const (
	// lookEvery is between two looks at the engines' counters while answers are
	// made whose tokens nobody sees.
	lookEvery = time.Second
	// lookAgain is the least time between two looks at the begin of answers: the page
	// of counters is a large one, and short answers may follow each other quickly.
	lookAgain = 100 * time.Millisecond
	// lookWait bounds the look that the end of such an answer waits for.
	lookWait = 500 * time.Millisecond
	// gapAfter: a look after so long a pause begins anew. What came in between is
	// nobody's.
	gapAfter = 4 * lookEvery
	// spansKept bounds how far back is remembered: ten minutes.
	spansKept = 600
)

// unseen finds out how many tokens the engine made for an answer of which no
// usage was seen: what its own counter grew by over the request's life and no
// other request explains. Where several are unexplained they share it by the time
// that each was running. Its zero value is not usable.
type unseen struct {
	count func(ctx context.Context) (Generation, error) // nil: there is no counter

	looking chan struct{} // holds one while somebody looks
	begun   time.Time     // when the last look began; only who looks uses it

	mu     sync.Mutex
	makers []*maker // of answers whose tokens are seen at their end, oldest first; guarded by mu, like what follows
	live   int      // of them
	seen   map[*tally]stream
	left   []leaving // streams that ended a moment ago
	extra  int64     // tokens of ended streams since the last look
	last   sight
	tried  time.Time // when the last look ended, with an answer or without
	spans  []span
	rates  map[string]float64 // tokens a second of one choice, by model
}

// stream is an answer that tells its tokens as they come.
type stream struct{ counted, choices int64 }

// leaving is a stream that the engine may still run.
type leaving struct {
	at      time.Time
	choices int64
}

// sight is what one look saw.
type sight struct {
	Generation
	at      time.Time
	unseen  int64 // sequences that run and of which no stream tells tokens; below 0: not said
	foreign int64 // of them, those that no answer here explains
}

func newUnseen(count func(ctx context.Context) (Generation, error)) *unseen {
	return &unseen{count: count, looking: make(chan struct{}, 1), seen: make(map[*tally]stream), rates: make(map[string]float64)}
}

// join notes that an answer is being made. A stream with running usage explains
// its tokens as they come.
func (u *unseen) join(ctx context.Context, t *tally, o Order) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if o.running() {
		u.seen[t] = stream{choices: o.choices()}
		return
	}
	t.maker = &maker{model: o.Model, choices: o.choices(), begun: time.Now(), tokens: -1}
	u.live++
	if u.count == nil {
		return
	}
	u.makers = append(u.makers, t.maker)
	if u.live == 1 && time.Since(u.tried) >= lookAgain {
		go u.look(context.WithoutCancel(ctx)) // the answer may end before
	}
}

// leave notes an end with the tokens that are known to have been made, below 0
// for none.
func (u *unseen) leave(t *tally, tokens int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if st, ok := u.seen[t]; ok {
		delete(u.seen, t)
		u.extra += max(0, tokens-st.counted)
		now := time.Now()
		u.left = slices.DeleteFunc(u.left, func(l leaving) bool { return now.Sub(l.at) >= noticed })
		u.left = append(u.left, leaving{now, st.choices})
		return
	}
	m := t.maker
	if m == nil {
		return
	}
	if m.ended.IsZero() {
		m.ended = time.Now()
		u.live--
	}
	if tokens < 0 || m.tokens >= 0 {
		return
	}
	m.tokens = tokens
	if took := m.ended.Sub(m.begun).Seconds(); took > 0 && tokens > 0 {
		rate := float64(tokens) / float64(m.choices) / took
		if old, ok := u.rates[m.model]; ok {
			rate = old + (rate-old)/8
		}
		if len(u.rates) < 1024 {
			u.rates[m.model] = rate
		}
	}
}

// look reads the counters now. Who waits for another look takes the next one for
// its own: however many ask at once, and however slow the engine is, two are
// enough.
func (u *unseen) look(ctx context.Context) {
	if u.count == nil {
		return
	}
	asked := time.Now()
	select {
	case u.looking <- struct{}{}:
		defer func() { <-u.looking }()
	case <-ctx.Done():
		return
	}
	if u.begun.After(asked) {
		return
	}
	u.begun = time.Now()
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	g, err := u.count(ctx)
	at := time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.tried = at
	if err != nil {
		u.forget(at)
		return // the next look spans this one too
	}
	last, now := u.last, u.sight(g, at)
	streamed := u.extra
	u.extra = 0
	for t, st := range u.seen {
		completion := max(st.counted, t.completion.Load())
		streamed += completion - st.counted
		st.counted = completion
		u.seen[t] = st
	}
	if grown := now.Tokens - last.Tokens; !last.at.IsZero() && at.Sub(last.at) < gapAfter && grown >= 0 && now.Engines == last.Engines {
		next := span{from: last.at, to: at, grown: max(0, grown-streamed), running: now.unseen}
		if next.running >= 0 {
			// At an end the request itself is gone already, and at its begin not there
			// yet: the larger numbers count.
			next.running = max(now.unseen, last.unseen)
			next.foreign = max(now.foreign, last.foreign)
		}
		u.spans = append(u.spans, next)
	}
	u.last = now
	u.forget(at)
}

// sight compares what the engines say with what is known here. Foreign is only
// what can be nothing of ours: who begins or ends is noticed here a moment sooner
// than at the engine. REQUIRES: mu held.
func (u *unseen) sight(g Generation, at time.Time) sight {
	now := sight{Generation: g, at: at, unseen: -1}
	if g.Running < 0 {
		return now
	}
	producing, maybe := int64(0), int64(0)
	for t, st := range u.seen {
		if t.completion.Load() > 0 {
			producing += st.choices
		} else {
			maybe += st.choices // it may wait in the queue
		}
	}
	for _, l := range u.left {
		if at.Sub(l.at) < noticed {
			maybe += l.choices
		}
	}
	for _, m := range u.makers {
		if exit := m.exit(); exit.IsZero() || at.Sub(exit) < noticed {
			maybe += m.choices
		}
	}
	now.unseen = max(0, g.Running-producing)
	now.foreign = max(0, now.unseen-maybe)
	return now
}

// forget drops what is too old, and what no span reaches or will reach: without
// an answer of the engines the ends would pile up. REQUIRES: mu held.
func (u *unseen) forget(now time.Time) {
	if len(u.spans) > spansKept {
		u.spans = slices.Delete(u.spans, 0, len(u.spans)-spansKept)
	}
	next := u.last.at // where the next span begins
	if now.Sub(next) >= gapAfter {
		next = now
	}
	oldest, newest := next, time.Time{}
	if n := len(u.spans); n > 0 {
		oldest, newest = u.spans[0].from, u.spans[n-1].to
	}
	u.makers = slices.DeleteFunc(u.makers, func(m *maker) bool {
		between := m.begun.After(newest) && m.ended.Before(next)
		return !m.ended.IsZero() && (m.ended.Before(oldest) || between)
	})
	if u.live == 0 {
		u.spans = u.spans[:0]
		u.makers = u.makers[:0]
	}
}

// busy tells that looks are needed.
func (u *unseen) busy() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.count != nil && u.live > 0 && time.Since(u.tried) >= lookEvery
}

// tokens is what an answer that ends now has probably cost, at most most. guess is
// what is taken where nothing can be known.
func (u *unseen) tokens(ctx context.Context, t *tally, most, guess int64) int64 {
	m := t.maker
	if m == nil {
		return 0
	}
	u.mu.Lock()
	m.gone = time.Now()
	u.mu.Unlock()
	u.look(ctx)
	u.mu.Lock()
	end := time.Now()
	n := nearbyOf(u.spans, u.makers, m, end)
	rate, learned := u.rates[m.model]
	u.mu.Unlock()
	share := 0.0
	for i := range n.spans {
		share += n.shareOf(&n.spans[i])
	}
	if len(n.spans) == 0 {
		if !learned {
			return min(guess, most)
		}
		share = rate * end.Sub(m.begun).Seconds() * float64(m.choices)
	}
	return min(int64(share+0.5), most)
}
