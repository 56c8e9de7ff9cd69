package vllmsim

import (
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// How an answer can end before its end.
var (
	errGone    = errors.New("the client is gone")
	errCut     = errors.New("the connection is to be cut")
	errStopped = errors.New("the engine aborts the request")
	errDead    = errors.New("the engine failed")
)

// exchange is one inference request. It belongs to the handler's goroutine.
type exchange struct {
	sim      *Sim
	w        http.ResponseWriter
	r        *http.Request
	endpoint string
	f        fields
	script   *Script
	rec      *record
	life     *life
	tally    *tally

	id      string // of the answer, without its prefix
	model   string // as answered
	adapter string // "" for the base model
	created int64
	began   time.Time
	first   time.Time       // when the first token was made
	chunks  int             // content chunks written, over all choices
	gate    <-chan struct{} // of the scripted pause, nil before it
	resumed bool            // the scripted pause is over
	out     sync.Once       // leaving
	seats   int64           // places taken in the batch
}

// infer runs the life of a request around the answer of its route.
func (s *Sim) infer(w http.ResponseWriter, r *http.Request, endpoint string, answer func(*exchange)) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // gone before it had asked for anything
	}
	f, p := parseBody(r, body)
	x := &exchange{
		sim: s, w: w, r: r, endpoint: endpoint, f: f, script: &Script{},
		rec: newRecord(r, endpoint, body, f), created: time.Now().Unix(), began: time.Now(),
	}
	x.life, x.tally = s.current()
	if p == nil {
		x.script, p = s.scriptOf(f)
	}
	if p != nil {
		x.script = &Script{}
	}
	x.rec.truth.Group = x.script.Group // nobody else has the record yet
	s.records.add(x.rec)
	x.tally.enter(x.script.Group)
	defer x.end()
	if p == nil {
		p = x.accept()
	}
	switch {
	case p != nil:
		x.refuse(p)
	case x.scripted():
	default:
		answer(x)
	}
}

// parseBody is what FastAPI does before vLLM sees a request.
func parseBody(r *http.Request, body []byte) (fields, *problem) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, &problem{
			status: http.StatusBadRequest, kind: kindValidation,
			message: "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed",
		}
	}
	return parseFields(body)
}

// accept refuses what an ending engine refuses, and names the answer.
func (x *exchange) accept() *problem {
	x.sim.mu.Lock()
	draining := x.sim.draining
	x.sim.mu.Unlock()
	switch err := x.life.err(); {
	case draining, errors.Is(err, errStopped):
		return internalError(messageDraining)
	case err != nil:
		return internalError(messageEngineDead)
	}
	x.id = x.r.Header.Get("X-Request-Id")
	if x.id == "" {
		var p *problem
		if x.id, p = x.f.text("request_id"); p != nil {
			return p
		}
	}
	if x.id == "" {
		x.id = randomHex(8)
	}
	return nil
}

// scripted gives the answers that no model takes part in.
func (x *exchange) scripted() bool {
	switch sc := x.script; {
	case sc.Hang:
		err := x.hold(nil, 0)
		if !errors.Is(err, errGone) {
			err = errCut // an answer that never began cannot end
		}
		x.finish(0, err)
	case sc.ErrorStatus != 0:
		body := []byte(sc.ErrorBody)
		if len(body) == 0 {
			p := &problem{status: sc.ErrorStatus, kind: kindInternal, message: "simulated error"}
			body = p.openAI()
		}
		x.whole(sc.ErrorStatus, body)
	case sc.Raw != nil:
		kind := sc.RawContentType
		if stream, _ := x.f.flag("stream"); kind == "" && stream {
			kind = contentSSE
		} else if kind == "" {
			kind = "application/json"
		}
		x.raw(orStatus(sc.RawStatus), kind)
	default:
		return false
	}
	return true
}

func orStatus(status int) int {
	if status == 0 {
		return http.StatusOK
	}
	return status
}

// raw writes the scripted bytes, without a length so that they can be cut.
func (x *exchange) raw(status int, kind string) {
	x.w.Header().Set("Content-Type", kind)
	x.w.WriteHeader(status)
	x.rec.update(func(t *Truth) { t.Status = status })
	em := newEmitter(x)
	if reached(x.script.CutAfter, 0) {
		x.finish(status, errors.Join(em.write(x.script.Raw), errCut))
		return
	}
	x.leaving()
	x.finish(status, em.write(x.script.Raw))
}

// whole writes an answer that is not streamed.
func (x *exchange) whole(status int, body []byte) {
	x.rec.update(func(t *Truth) { t.Status = status })
	if x.r.Context().Err() != nil {
		x.finish(status, errGone)
		return
	}
	x.leaving()
	h := x.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	x.w.WriteHeader(status)
	_, err := x.w.Write(body)
	x.finish(status, err)
}

// refuse answers with an error, on /v1/messages in Anthropic's shape unless
// the request did not parse.
func (x *exchange) refuse(p *problem) {
	body := p.openAI()
	if x.endpoint == pathMessages && p.kind != kindValidation {
		body = p.anthropic(p.kind)
	}
	x.whole(p.status, body)
}

// leaving counts the request out and marks it finished: the next bytes are
// the last.
func (x *exchange) leaving() {
	x.leave()
	x.rec.update(func(t *Truth) { t.Finished = true })
}

func (x *exchange) leave() {
	x.out.Do(func() {
		x.unseat()
		x.tally.leave(x.script.Group)
	})
}

// finish records how the answer ended, and cuts the connection if that is how.
func (x *exchange) finish(status int, err error) {
	x.leave()
	cut := errors.Is(err, errCut)
	x.rec.update(func(t *Truth) {
		t.Status = status
		t.Cut = cut
		t.Finished = err == nil
		t.Aborted = err != nil && !cut
		t.Paused = false
	})
	x.tally.do(func(t *tally) {
		switch {
		case err == nil:
			t.Finished++
		case cut:
			t.Cut++
		default:
			t.Aborted++
		}
	})
	if cut {
		x.rec.end()
		cutConnection(x.w, x.script.Cut)
	}
}

// end is deferred: whatever happened, the request is over.
func (x *exchange) end() {
	x.leave()
	x.rec.end()
}

// hold waits until released, d has passed or the answer must end. A nil
// channel and a zero d are waited for without end.
func (x *exchange) hold(released <-chan struct{}, d time.Duration) error {
	var timer <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-released:
		return nil
	case <-timer:
		return nil
	case <-x.r.Context().Done():
		return errGone
	case <-x.life.over:
		return x.life.cause
	}
}

// wait pauses for d, and notices at once what ends the answer.
func (x *exchange) wait(d time.Duration) error {
	if d > 0 {
		return x.hold(nil, d)
	}
	select {
	case <-x.r.Context().Done():
		return errGone
	case <-x.life.over:
		return x.life.cause
	default:
		return nil
	}
}

// chunk counts a content chunk that is about to be written.
func (x *exchange) chunk() {
	x.chunks++
	x.arm()
}

// arm begins the scripted pause with the chunk before it, not after: a test that has
// read that chunk may release the pause at once.
func (x *exchange) arm() {
	if x.gate == nil && reached(x.script.PauseAfter, x.chunks) {
		x.gate = x.rec.pause()
	}
}

// marks acts on what is scripted after the chunks so far.
func (x *exchange) marks() error {
	if x.gate != nil && !x.resumed {
		x.resumed = true
		err := x.hold(x.gate, 0)
		x.rec.release()
		if err != nil {
			return err
		}
	}
	switch sc := x.script; {
	case reached(sc.CutAfter, x.chunks):
		return errCut
	case reached(sc.ErrorAfter, x.chunks):
		return errDead
	case reached(sc.EngineAbortAfter, x.chunks):
		return errStopped
	}
	return x.wait(0)
}

// cutConnection closes the connection in the middle of whatever it carries.
func cutConnection(w http.ResponseWriter, how string) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // not a connection of its own: the server's way to break an answer off
	}
	if tcp, ok := conn.(*net.TCPConn); ok && how == cutRST {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

func writeJSON(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may be gone
}

func fixed(body string) func(*Sim, http.ResponseWriter, *http.Request) {
	return func(_ *Sim, w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, []byte(body)) }
}
