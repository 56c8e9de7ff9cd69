// Package faults_test breaks things on purpose: clients, tollgate, Envoy, the
// ledger's disk. Nothing may leak, nothing that was acknowledged may be lost,
// and every request ends with a name. The default is a short form; PROOF=1 runs
// the full one and prints its figures.
package faults_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"tollgate/e2e/stack"
	"tollgate/internal/admission"
	"tollgate/internal/ledger"
	"tollgate/internal/vllmsim"
)

func TestMain(m *testing.M) {
	m.Run() // its status becomes the program's
	stack.Clean()
}

// proof tells whether the full form was asked for.
func proof() bool { return os.Getenv("PROOF") == "1" }

// times is how often something is done in the short and in the full form.
func times(short, full int) int {
	if proof() {
		return full
	}
	return short
}

// phase is a moment at which a client goes.
type phase struct {
	name string
	// sim scripts the answer.
	sim string
	// pauses: the engine stops in its answer until the client has gone.
	pauses bool
	only2  bool // HTTP/2 alone knows it
	// go_ plays the client up to its end.
	play func(c *cell, w *wire)
	// whole: the answer may have been complete when the client went.
	whole bool
}

// cell is one phase over one protocol, streamed or not. It has a key of its
// own, by which its records are found.
type cell struct {
	*phase
	s          *stack.Stack
	id, key    string
	h2, stream bool
	rep        int
	closed     time.Time
}

const path = "/v1/chat/completions"

func (c *cell) request() string {
	return fmt.Sprintf(`{"model":"tiny","stream":%v,"max_tokens":8,"messages":[{"role":"user","content":"count for me"}],"sim":{"group":%q%s}}`, c.stream, c.id, c.sim)
}

func (c *cell) gone(how func()) {
	c.closed = time.Now()
	how()
}

// reached waits until tollgate has counted all that the engine has written of
// so many requests.
func (c *cell) reached(requests int) {
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(3 * time.Millisecond) {
		if all, n := c.counted(); all && n == requests {
			return
		}
	}
	c.s.TB().Errorf("%s: what the engine had written never reached tollgate", c.id)
}

// counted compares the live requests of the cell's key with the engine's truth.
func (c *cell) counted() (all bool, n int) {
	var live struct {
		Requests []admission.Running `json:"requests"`
	}
	if err := json.Unmarshal(c.s.Admin("GET", "/admin/requests", "").Bytes, &live); err != nil {
		return false, 0
	}
	all = true
	for _, r := range live.Requests {
		if r.KeyID != c.id {
			continue
		}
		truth, ok := c.s.Sim.Truth(r.RequestID)
		if !ok || !truth.Paused {
			return false, n
		}
		n++
		all = all && (r.CompletionTokens == int64(truth.WrittenTokens()) || !c.stream)
	}
	return all && n > 0, n
}

func phases() []*phase {
	stop := func(c *cell, w *wire) { c.gone(w.close) }
	sent := func(c *cell, w *wire) uint32 { return w.send(path, c.key, c.request()) }
	settle := 20 * time.Millisecond // what was written gets to Envoy
	codes := []http2.ErrCode{
		http2.ErrCodeCancel, http2.ErrCodeNo, http2.ErrCodeInternal, http2.ErrCodeProtocol, http2.ErrCodeRefusedStream, http2.ErrCodeEnhanceYourCalm,
	}
	return []*phase{
		{name: "connected", play: stop},
		{name: "in-the-headers", play: func(c *cell, w *wire) {
			w.headers(path, c.key, 100, true)
			time.Sleep(settle)
			stop(c, w)
		}},
		{name: "headers-without-body", play: func(c *cell, w *wire) {
			w.headers(path, c.key, 100, false)
			time.Sleep(settle)
			stop(c, w)
		}},
		{name: "in-the-body", play: func(c *cell, w *wire) {
			b := c.request()
			id := w.headers(path, c.key, len(b), false)
			w.body(id, []byte(b[:len(b)/2]), false)
			time.Sleep(settle)
			stop(c, w)
		}},
		{name: "during-the-check", play: func(c *cell, w *wire) {
			w.headers(path, c.key, 100, false)
			stop(c, w)
		}},
		{name: "body-just-sent", whole: true, sim: `,"first_delay_ms":20`, play: func(c *cell, w *wire) {
			sent(c, w)
			time.Sleep(time.Duration(c.rep%4) * time.Millisecond)
			stop(c, w)
		}},
		{name: "prefill", sim: `,"hang":true`, play: func(c *cell, w *wire) {
			sent(c, w)
			c.running()
			stop(c, w)
		}},
		{name: "after-response-headers", sim: `,"pause_after":1`, pauses: true, play: func(c *cell, w *wire) {
			sent(c, w)
			if c.stream {
				w.saw("HTTP/", 1)
			}
			c.reached(1)
			stop(c, w)
		}},
		{name: "in-an-event", sim: `,"pause_after":5`, pauses: true, play: func(c *cell, w *wire) {
			sent(c, w)
			if c.stream {
				w.saw(`"content":"`, 3)
			}
			c.reached(1)
			stop(c, w)
		}},
		{name: "before-done", sim: `,"pause_after":8`, pauses: true, play: func(c *cell, w *wire) {
			sent(c, w)
			c.reached(1)
			stop(c, w)
		}},
		{name: "after-done", whole: true, play: func(c *cell, w *wire) {
			sent(c, w)
			if c.stream {
				w.saw("[DONE]", 1)
			} else {
				w.saw(`"usage"`, 1)
			}
			stop(c, w)
		}},
		{name: "half-close", whole: true, sim: `,"delay_ms":5`, play: func(c *cell, w *wire) {
			sent(c, w)
			c.gone(func() { _ = w.conn.CloseWrite() })
			w.finish()
			w.close()
		}},
		{name: "tcp-reset", sim: `,"pause_after":5`, pauses: true, play: func(c *cell, w *wire) {
			sent(c, w)
			c.reached(1)
			c.gone(w.reset)
		}},
		{name: "rst-stream", only2: true, sim: `,"pause_after":5`, pauses: true, play: func(c *cell, w *wire) {
			id := sent(c, w)
			c.reached(1)
			c.gone(func() { w.write(func() error { return w.fr.WriteRSTStream(id, codes[c.rep%len(codes)]) }) })
			c.freed()
			w.close()
		}},
		{name: "whole-connection", only2: true, sim: `,"pause_after":5`, pauses: true, play: func(c *cell, w *wire) {
			for range 3 {
				sent(c, w)
			}
			c.reached(3)
			stop(c, w)
		}},
	}
}

// running waits until the engine has a request of the cell.
func (c *cell) running() {
	stack.Eventually(c.s.TB(), 5*time.Second, "the engine to have the request", func() bool { return c.s.Sim.Stats().Groups[c.id].Running > 0 })
}

// freed waits until the engine has none any more, a second at most.
func (c *cell) freed() {
	for end := time.Now().Add(time.Second); time.Now().Before(end) && c.s.Sim.Stats().Groups[c.id].Running > 0; {
		time.Sleep(time.Millisecond)
	}
}

func TestDisconnects(t *testing.T) {
	var cells []*cell
	var keys []string
	for _, p := range phases() {
		for _, h2 := range []bool{false, true} {
			for _, stream := range []bool{false, true} {
				if p.only2 && !h2 {
					continue
				}
				id := fmt.Sprintf("%s-h%d-%s", p.name, map[bool]int{false: 1, true: 2}[h2], map[bool]string{false: "body", true: "stream"}[stream])
				key := fmt.Sprintf("sk-test-cell-%03d-0123456789abcdef", len(cells))
				cells = append(cells, &cell{phase: p, id: id, key: key, h2: h2, stream: stream})
				keys = append(keys, fmt.Sprintf(`{"key":%q,"id":%q,"user":"cell"}`, key, id))
			}
		}
	}
	keys = append(keys, `{"key":"`+stack.AdminKey+`","id":"root","user":"admin"}`)
	s := stack.Start(t, stack.Options{Keys: "[" + strings.Join(keys, ",\n") + "]"})
	reps := times(3, 100)
	address := strings.TrimPrefix(s.URL, "http://")

	var slowest atomic.Int64
	work := make(chan *cell)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for c := range work {
				for rep := range reps {
					c.rep = rep
					w := dial(t, address, c.h2)
					c.play(c, w)
					began := c.closed
					c.freed()
					if n := c.s.Sim.Stats().Groups[c.id].Running; n > 0 {
						t.Errorf("%s: the engine still works on %d requests a second after the client went", c.id, n)
					}
					slowest.Store(max(slowest.Load(), int64(time.Since(began))))
				}
			}
		})
	}
	for _, c := range cells {
		c.s = s
		work <- c
	}
	close(work)
	wg.Wait()

	stack.Eventually(t, 6*time.Second, "all leases to be back", func() bool { return s.Metric("tollgate_leases_live") == 0 })
	nameless(t, s)
	checkCells(t, s, cells)
	if got := s.Metric("tollgate_witness_disagreements_total"); got != 0 {
		t.Errorf("witness disagreements: %v\n%s", got, grep(s.Tollgate.Output(), "witnesses disagree"))
	}
	t.Logf("%d cells × %d: %d rows, 0 leases left, engine freed after at most %v", len(cells), reps, len(s.Records()), time.Duration(slowest.Load()).Round(time.Millisecond))
}

// nameless reports the rows that have not ended or have no cause after a grace.
func nameless(t *testing.T, s *stack.Stack) {
	t.Helper()
	var left []string
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		left = nil
		for id, r := range s.Records() {
			if r.Open() || r.Reason == ledger.Aborted {
				left = append(left, fmt.Sprintf("%s of %s: %q status %d, %d + %d %s", id, r.KeyID, r.Reason, r.Status, r.Counts.Prompt, r.Counts.Completion, r.Quality))
			}
		}
		if len(left) == 0 {
			return
		}
	}
	t.Errorf("rows without an end or a cause:\n%s", strings.Join(left, "\n"))
}

// checkCells compares every row with the engine's truth.
func checkCells(t *testing.T, s *stack.Stack, cells []*cell) {
	t.Helper()
	byID := map[string]*cell{}
	for _, c := range cells {
		byID[c.id] = c
	}
	records := s.Records()
	for id, r := range records {
		c := byID[r.KeyID]
		truth, reached := s.Sim.Truth(id)
		if c == nil {
			t.Errorf("a row of no cell: %+v", r)
			continue
		}
		checkRow(t, c, &r, truth, reached)
	}
	for _, truth := range s.Sim.Truths() {
		if _, ok := records[truth.RequestID]; !ok {
			t.Errorf("the engine had request %s, which is in no row", truth.RequestID)
		}
	}
}

// misnamed says what is wrong with the end of a row, "" when it is right.
func misnamed(c *cell, r *ledger.Record, reached bool) string {
	switch {
	case r.Reason == ledger.ClientAbort, r.Reason == ledger.Complete && c.whole, r.Reason == ledger.Refused && !reached:
		return ""
	case r.Reason == ledger.Complete:
		return "complete although the client had gone"
	case r.Reason == ledger.Refused:
		return "refused although the engine had it"
	}
	return "a wrong name"
}

func checkRow(t *testing.T, c *cell, r *ledger.Record, truth vllmsim.Truth, reached bool) {
	t.Helper()
	bad := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s: %s %s %d + %d: %s", c.id, r.Reason, r.Quality, r.Counts.Prompt, r.Counts.Completion, fmt.Sprintf(format, args...))
	}
	if wrong := misnamed(c, r, reached); wrong != "" {
		bad("%s", wrong)
	}
	if !reached {
		// Envoy had sent it to an engine, which found its connection closed before it read: nobody but the engine can tell
		// that from a request that was begun.
		sent := r.Engine != "" && r.Quality == ledger.Estimated
		if r.Counts.Completion != 0 && !sent {
			bad("the engine never had it")
		}
		return
	}
	if wrong := miscounted(c, r, truth); wrong != "" {
		bad("%s", wrong)
	}
	if c.pauses && !truth.Aborted {
		bad("the engine was not told")
	}
}

// miscounted says what is wrong with the count of a row that the engine has
// seen, "" when it is right.
func miscounted(c *cell, r *ledger.Record, truth vllmsim.Truth) string {
	exact, said := r.Quality == ledger.Exact, c.pauses && c.stream
	switch written := int64(truth.WrittenTokens()); {
	case !exact && said && truth.Events > 0:
		return "an estimate although usage had come"
	case exact && said && r.Counts.Completion != written:
		return fmt.Sprintf("the engine had written %d", written)
	case exact && r.Counts.Completion > int64(truth.Completion()):
		return fmt.Sprintf("the engine had made %d", truth.Completion())
	}
	return ""
}

// grep returns the lines that have s.
func grep(text, s string) string {
	var out []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, s) {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}
