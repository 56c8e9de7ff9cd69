package admission

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Generation is what the engines report of their work, summed over all of them.
type Generation struct {
	Tokens  int64 // generated so far
	Running int64 // sequences running now; below 0: not reported
	Engines int   // how many engines the sum is of
}

const (
	// readEvery is the time between two readings of the engines' counters while
	// whole answers run.
	readEvery = time.Second
	// readAgain is the least time between two readings when answers begin: the page
	// of counters is large, and short answers may follow each other quickly.
	readAgain = 100 * time.Millisecond
	// readTimeout bounds the reading that the end of a whole answer waits for.
	readTimeout = 500 * time.Millisecond
	// gapAfter is the longest interval. A reading after a longer pause begins anew,
	// and the tokens of the pause are attributed to nobody.
	gapAfter = 4 * readEvery
	// mostIntervals bounds the memory: ten minutes.
	mostIntervals = 600
	// oldestReading bounds how long a tollgate may have been away for the last reading
	// of the process before to count: as long as the intervals reach.
	oldestReading = mostIntervals * readEvery
	// resumeWithin is how long after a start the engines of the last reading are waited
	// for: none is ready before it was asked once.
	resumeWithin = 3 * time.Second
	// resumeAgain is between two readings that wait for them.
	resumeAgain = 50 * time.Millisecond
)

// attribution finds out how many tokens the engines made for an answer that ended
// before its usage was seen. It reads the engines' counter of generated tokens and
// attributes its growth: streams tell their tokens as they run, whole answers when
// they end, and the rest is shared by the answers that are not explained, by the
// time that each was running. Its zero value is not usable.
type attribution struct {
	count func(ctx context.Context) (Generation, error) // nil: there is no counter

	reader chan struct{} // holds one token while a reading is under way
	begun  time.Time     // of the last reading; its reader alone uses it

	mu           sync.Mutex
	whole        []*wholeAnswer    // oldest first; guarded by mu, like all that follows
	running      int               // how many whole answers have not ended
	streams      map[*tally]stream // that have not ended
	endedStreams []endedStream     // a moment ago
	endedTokens  int64             // of streams that ended since the last reading
	last         reading
	readAt       time.Time // when the last reading ended, with an answer or without
	intervals    []interval
	rates        map[string]float64 // tokens a second of one choice, by model
	takenOver    map[string]int64   // tokens that streams had told the process before us at its last reading, by lease
	resumeBy     time.Time          // last is a reading of the process before us, which counts if the next comes before this
	unwritten    bool               // something that the next process must know has changed
}

// stream is an answer that tells its tokens as they come.
type stream struct {
	lease            string
	counted, choices int64
}

// endedStream is a stream that the engine may still run.
type endedStream struct {
	at      time.Time
	choices int64
}

// reading is one reading of the engines' counters.
type reading struct {
	Generation
	at      time.Time
	silent  int64 // running sequences that no stream accounts for; below 0: not known
	foreign int64 // silent ones that no whole answer here accounts for
}

func newAttribution(count func(ctx context.Context) (Generation, error)) *attribution {
	return &attribution{
		count: count, reader: make(chan struct{}, 1), streams: make(map[*tally]stream), rates: make(map[string]float64),
	}
}

// join notes that an answer begins, or that one goes on that began at another process.
func (a *attribution) join(ctx context.Context, t *tally, lease string, o Order, begun time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if o.running() {
		counted, ok := a.takenOver[lease]
		if !ok {
			counted = t.completion.Load()
		}
		a.streams[t] = stream{lease: lease, counted: counted, choices: o.choices()}
		return
	}
	a.unwritten = true
	a.running++
	if t.whole = a.resumed(lease); t.whole != nil {
		return
	}
	t.whole = &wholeAnswer{
		lease: lease, model: o.Model, choices: o.choices(), begun: begun, tokens: -1, promptBytes: o.PromptBytes, maxTokens: o.MaxTokens,
	}
	if a.count == nil {
		return
	}
	a.whole = append(a.whole, t.whole)
	if a.running == 1 && a.resumeBy.IsZero() && time.Since(a.readAt) >= readAgain {
		go a.read(context.WithoutCancel(ctx)) // the answer may end before
	}
}

// leave notes that an answer ended then, and how many tokens were made for it; below
// 0: not known.
func (a *attribution) leave(t *tally, tokens int64, then time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unwritten = a.unwritten || a.running > 0
	if s, ok := a.streams[t]; ok {
		delete(a.streams, t)
		a.endedTokens += max(0, tokens-s.counted)
		now := time.Now()
		a.endedStreams = slices.DeleteFunc(a.endedStreams, func(e endedStream) bool { return now.Sub(e.at) >= engineLag })
		a.endedStreams = append(a.endedStreams, endedStream{now, s.choices})
		return
	}
	w := t.whole
	if w == nil {
		return
	}
	if w.ended.IsZero() {
		w.ended = then
		a.running--
	}
	if tokens >= 0 && w.tokens < 0 {
		w.tokens = tokens
		a.learn(w)
	}
}

// learn takes the speed of an answer into the usual one of its model. REQUIRES: mu
// held.
func (a *attribution) learn(w *wholeAnswer) {
	took := w.ended.Sub(w.begun).Seconds()
	if took <= 0 || w.tokens <= 0 {
		return
	}
	rate := float64(w.tokens) / float64(w.choices) / took
	if old, ok := a.rates[w.model]; ok {
		rate = old + (rate-old)/8
	}
	if len(a.rates) < 1024 {
		a.rates[w.model] = rate
	}
}

// read reads the engines' counters. Callers that wait for a reading under way share
// the next one: however many ask at once, and however slow the engine is, two
// readings are enough.
func (a *attribution) read(ctx context.Context) {
	if a.count == nil {
		return
	}
	asked := time.Now()
	select {
	case a.reader <- struct{}{}:
		defer func() { <-a.reader }()
	case <-ctx.Done():
		return
	}
	if a.begun.After(asked) {
		return
	}
	a.begun = time.Now()
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	g, err := a.count(ctx)
	at := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.readAt = at
	if err == nil && a.accepts(g, at) { // else the next interval begins where this one would have
		a.extend(g, at)
	}
	a.forget(at)
}

// extend adds the interval that a reading ends. REQUIRES: mu held.
func (a *attribution) extend(g Generation, at time.Time) {
	last, now, longest := a.last, a.compare(g, at), gapAfter
	if !a.resumeBy.IsZero() {
		longest, a.resumeBy = oldestReading, time.Time{}
	}
	a.last, a.unwritten = now, true
	streamed := a.endedTokens
	a.endedTokens = 0
	for t, s := range a.streams {
		completion := max(s.counted, t.completion.Load())
		streamed += completion - s.counted
		s.counted = completion
		a.streams[t] = s
	}
	grown := now.Tokens - last.Tokens
	if last.at.IsZero() || at.Sub(last.at) >= longest || grown < 0 || now.Engines != last.Engines {
		return
	}
	next := interval{from: last.at, to: at, grown: max(0, grown-streamed), running: now.silent}
	if next.running >= 0 {
		// A reading at the begin or the end of an answer may not count that answer: the
		// larger numbers are the true ones.
		next.running = max(now.silent, last.silent)
		next.foreign = max(now.foreign, last.foreign)
	}
	a.intervals = append(a.intervals, next)
}

// compare compares what the engines report with what runs here. The engines count an
// answer a moment longer than the gate does; what that can explain is not foreign.
// REQUIRES: mu held.
func (a *attribution) compare(g Generation, at time.Time) reading {
	now := reading{Generation: g, at: at, silent: -1}
	if g.Running < 0 {
		return now
	}
	producing, perhaps := int64(0), int64(0)
	for t, s := range a.streams {
		if t.completion.Load() > 0 {
			producing += s.choices
		} else {
			perhaps += s.choices // it may wait in the queue
		}
	}
	for _, e := range a.endedStreams {
		if at.Sub(e.at) < engineLag {
			perhaps += e.choices
		}
	}
	for _, w := range a.whole {
		if exit := w.exit(); exit.IsZero() || at.Sub(exit) < engineLag {
			perhaps += w.choices
		}
	}
	now.silent = max(0, g.Running-producing)
	now.foreign = max(0, now.silent-perhaps)
	return now
}

// forget drops what is too old, and the answers that no interval covers or will
// cover: they would pile up while the engines do not answer. REQUIRES: mu held.
func (a *attribution) forget(now time.Time) {
	if len(a.intervals) > mostIntervals {
		a.intervals = slices.Delete(a.intervals, 0, len(a.intervals)-mostIntervals)
	}
	next := a.last.at // where the next interval begins
	if now.Sub(next) >= gapAfter {
		next = now
	}
	oldest, newest := next, time.Time{}
	if n := len(a.intervals); n > 0 {
		oldest, newest = a.intervals[0].from, a.intervals[n-1].to
	}
	a.whole = slices.DeleteFunc(a.whole, func(w *wholeAnswer) bool {
		between := w.begun.After(newest) && w.ended.Before(next)
		return !w.ended.IsZero() && (w.ended.Before(oldest) || between)
	})
	if a.running == 0 {
		a.intervals = a.intervals[:0]
		a.whole = a.whole[:0]
	}
}

// resumed is the answer of a lease that began at the process before us; nil when it
// knew of none. REQUIRES: mu held.
func (a *attribution) resumed(lease string) *wholeAnswer {
	for _, w := range a.whole {
		if w.lost && w.lease == lease {
			w.lost, w.resumed, w.ended, w.gone = false, true, time.Time{}, time.Time{}
			return w
		}
	}
	return nil
}

// accepts reports whether a reading is good enough to end an interval. Right after a
// start it must be of all engines of the last one. REQUIRES: mu held.
func (a *attribution) accepts(g Generation, at time.Time) bool {
	return a.resumeBy.IsZero() || g.Engines >= a.last.Engines || at.After(a.resumeBy)
}

// readFirst reads the counters. Right after a start it goes on until the engines of
// the last reading have answered.
func (a *attribution) readFirst(ctx context.Context) {
	for {
		a.read(ctx)
		a.mu.Lock()
		by := a.resumeBy
		a.mu.Unlock()
		if by.IsZero() || time.Now().After(by) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(resumeAgain):
		}
	}
}

// due reports whether it is time for a reading.
func (a *attribution) due() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count != nil && a.running > 0 && time.Since(a.readAt) >= readEvery
}

// tokens estimates how many tokens were made for a whole answer that ended then, a
// moment or a restart ago, at most most. guess is returned where there is neither a
// counter nor a usual speed; 0 for an answer that is not a whole one.
func (a *attribution) tokens(ctx context.Context, t *tally, end time.Time, most, guess int64) int64 {
	w := t.whole
	if w == nil {
		return 0
	}
	a.mu.Lock()
	w.gone = end
	a.mu.Unlock()
	a.readFirst(ctx)
	a.mu.Lock()
	n := neighboursOf(a.intervals, a.whole, w, end)
	rate, learned := a.rates[w.model]
	a.mu.Unlock()
	share := 0.0
	for i := range n.intervals {
		share += n.shareOf(&n.intervals[i])
	}
	if len(n.intervals) == 0 {
		if !learned {
			return min(guess, most)
		}
		share = rate * end.Sub(w.begun).Seconds() * float64(w.choices)
	}
	return min(int64(share+0.5), most)
}
