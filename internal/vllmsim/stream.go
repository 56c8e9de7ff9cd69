package vllmsim

import (
	"bytes"
	"errors"
	"net/http"
	"time"
)

const contentSSE = "text/event-stream; charset=utf-8"

const finishAbort = "abort"

// dialect writes the answer of one route.
type dialect interface {
	// open writes the events before the first token.
	open(e *emitter)
	// token writes the event of the last token of c, if it has one. c.over
	// says that it is the last.
	token(e *emitter, c *choice)
	// abort ends c without a token.
	abort(e *emitter, c *choice)
	// close writes the end without the very last event, which is last's.
	close(e *emitter)
	last(e *emitter)
	// fail writes the error event and whatever may follow it.
	fail(e *emitter, p *problem)
	// body is the answer that is not streamed.
	body() []byte
}

// emitter writes events: each is one write and one flush, hence one HTTP
// chunk, unless the script says otherwise. After an error it does nothing.
type emitter struct {
	x       *exchange
	rc      *http.ResponseController
	buf     []byte // of the event being built, reused
	pending []byte // events held back for Join
	held    int
	err     error
}

func newEmitter(x *exchange) *emitter {
	return &emitter{x: x, rc: http.NewResponseController(x.w)}
}

// event writes one event, which ends with an empty line.
func (e *emitter) event(b []byte) {
	if e.err != nil {
		return
	}
	e.x.rec.update(func(t *Truth) { t.Events++ })
	e.put(b)
}

// content writes an event with tokens of c up to c.sent.
func (e *emitter) content(c *choice, b []byte) {
	if e.err != nil {
		return
	}
	e.x.rec.update(func(t *Truth) {
		t.Events++
		t.Chunks[c.index]++
		t.Written[c.index] = c.sent
	})
	e.x.chunk()
	e.put(b)
}

func (e *emitter) put(b []byte) {
	sc := e.x.script
	if sc.Comments {
		b = append([]byte(": keep-alive\n\n"), b...)
	}
	if sc.CRLF {
		b = bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))
	}
	if sc.Join <= 1 {
		e.err = e.write(b)
		return
	}
	e.pending = append(e.pending, b...)
	e.held++
	if e.held >= sc.Join {
		e.flush()
	}
}

// flush writes what is held back.
func (e *emitter) flush() {
	if e.err == nil && len(e.pending) > 0 {
		e.err = e.write(e.pending)
	}
	e.pending, e.held = e.pending[:0], 0
}

// settle writes what is held back before a scripted pause.
func (e *emitter) settle() {
	if e.x.gate != nil && !e.x.resumed {
		e.flush()
	}
}

// write sends b, in pieces if the script says so.
func (e *emitter) write(b []byte) error {
	size := e.x.script.ChunkBytes
	if size <= 0 {
		size = len(b)
	}
	for len(b) > 0 {
		k := min(size, len(b))
		if _, err := e.x.w.Write(b[:k]); err != nil {
			return errGone
		}
		if e.rc.Flush() != nil {
			return errGone
		}
		b = b[k:]
	}
	return nil
}

// answer gives the planned answer in the dialect of its route.
func (x *exchange) answer(p *plan, d dialect) {
	if full := x.busy(p); full != nil {
		x.refuse(full)
		return
	}
	if p.stream {
		x.stream(p, d)
		return
	}
	x.block(p, d)
}

// block gives it in one piece.
func (x *exchange) block(p *plan, d dialect) {
	err := x.start(p)
	if err == nil {
		x.arm()
		err = x.produce(p, func(c *choice) error {
			if c.index == 0 {
				x.chunk()
			}
			return nil
		})
	}
	switch {
	case errors.Is(err, errDead):
		x.refuse(internalError(messageEngineDead))
		return
	case errors.Is(err, errStopped):
		p.abort()
	case err != nil:
		x.ranAhead(p)
		x.finish(0, err)
		return
	}
	x.success(p)
	x.rec.update(func(t *Truth) {
		for _, c := range p.choices {
			t.Written[c.index] = c.sent
		}
	})
	x.whole(http.StatusOK, d.body())
}

// stream gives it token by token.
func (x *exchange) stream(p *plan, d dialect) {
	x.rec.update(func(t *Truth) { t.Status = http.StatusOK })
	x.w.Header().Set("Content-Type", contentSSE)
	x.w.WriteHeader(http.StatusOK)
	e := newEmitter(x)
	if e.rc.Flush() != nil {
		e.err = errGone
	}
	if err := x.start(p); err != nil && e.err == nil {
		e.err = err
	}
	if e.err == nil {
		for _, c := range p.choices {
			x.generate(c, 1) // the opening event comes with the first token
		}
		x.arm()
		d.open(e)
		e.settle()
	}
	err := e.err
	if err == nil {
		err = x.produce(p, func(c *choice) error {
			d.token(e, c)
			e.settle()
			return e.err
		})
	}
	x.conclude(p, d, e, errors.Join(err, e.err))
}

// conclude ends a stream as err says.
func (x *exchange) conclude(p *plan, d dialect, e *emitter, err error) {
	e.err = nil
	switch {
	case errors.Is(err, errGone), errors.Is(err, errCut):
		e.flush()
		x.ranAhead(p)
		x.finish(http.StatusOK, err)
		return
	case errors.Is(err, errDead):
		x.leaving()
		d.fail(e, internalError(messageEngineDead))
	default:
		if errors.Is(err, errStopped) {
			x.abortAll(p, d, e)
		}
		d.close(e)
		x.success(p)
		x.leaving()
		if !x.script.NoDone {
			d.last(e)
		}
	}
	e.flush()
	x.finish(http.StatusOK, e.err)
}

func (x *exchange) abortAll(p *plan, d dialect, e *emitter) {
	var live []*choice
	for _, c := range p.choices {
		if !c.over {
			live = append(live, c)
		}
	}
	p.abort()
	for _, c := range live {
		d.abort(e, c)
	}
}

// start waits for a place in the batch and for the first token.
func (x *exchange) start(p *plan) error {
	if err := x.seat(p); err != nil {
		return err
	}
	return x.wait(delay(x.script.FirstDelayMS, x.sim.opts.FirstDelay+x.prefill(p)))
}

// prefill is how long the prompt is read.
func (x *exchange) prefill(p *plan) time.Duration {
	rate := x.sim.opts.PrefillRate
	if rate == 0 {
		return 0
	}
	return time.Duration(max(0, p.promptTokens()-p.cached)) * time.Second / time.Duration(rate)
}

// ranAhead accounts for what a busy engine makes after its client has gone.
func (x *exchange) ranAhead(p *plan) {
	for _, c := range p.choices {
		if c.made > 0 {
			x.generate(c, c.made+x.script.RunAhead)
		}
	}
}

// speed is the metrics object of --enable-per-request-metrics.
func (x *exchange) speed(tokens int) (firstMS, totalMS, perToken, rate float64) {
	if x.first.IsZero() {
		return 0, 0, 0, 0
	}
	firstMS = milliseconds(x.first.Sub(x.began))
	totalMS = milliseconds(time.Since(x.first))
	if tokens > 1 {
		perToken = totalMS / float64(tokens-1)
	}
	if total := firstMS + totalMS; total > 0 {
		rate = float64(tokens) * 1000 / total
	}
	return firstMS, totalMS, perToken, rate
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
