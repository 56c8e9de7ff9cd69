package handover_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
)

// kinds are the routes that stream, with what ends their answers.
var kinds = []struct{ path, body, end string }{
	{"/v1/chat/completions", `{"model":"tiny","stream":true,"n":%d,"max_tokens":%d,"messages":[{"role":"user","content":"count"}],"sim":{"delay_ms":%d}}`, "data: [DONE]"},
	{"/v1/completions", `{"model":"tiny","stream":true,"n":%d,"max_tokens":%d,"prompt":"count","sim":{"delay_ms":%d}}`, "data: [DONE]"},
	{"/v1/responses", `{"model":"tiny","stream":true,"max_output_tokens":%[2]d,"input":"count","sim":{"delay_ms":%[3]d}}`, "event: response.completed"},
	{"/v1/messages", `{"model":"tiny","stream":true,"max_tokens":%[2]d,"messages":[{"role":"user","content":"count"}],"sim":{"delay_ms":%[3]d}}`, "event: message_stop"},
}

// client is one stream and what its reader saw.
type client struct {
	id     string // of the request
	status int
	whole  bool // the end was seen
	err    error
	gap    time.Duration // the longest between two reads, before the end
	hold   time.Duration // before the read that brought the end
	usage  bool          // a usage that was not asked for
}

// crowd is many streams at once.
type crowd struct {
	s       *stack.Stack
	clients []*client
	begun   atomic.Int64 // streams whose first byte has come
	done    sync.WaitGroup
	stop    context.CancelFunc
}

// pace is between two chunks of an engine.
const pace = 20 * time.Millisecond

// start opens n streams of tokens to 1.5 × tokens; half of those that can have three
// choices.
func start(t *testing.T, s *stack.Stack, n, tokens int) *crowd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	c := &crowd{s: s, stop: cancel}
	t.Cleanup(func() { cancel(); c.done.Wait() })
	for i := range n {
		kind := kinds[i%len(kinds)]
		body := fmt.Sprintf(kind.body, 1+2*(i/len(kinds)%2), tokens+tokens/2*i/n, pace.Milliseconds())
		cl := &client{}
		c.clients = append(c.clients, cl)
		httpClient := []*http.Client{s.HTTP1, s.HTTP2}[i/2%2]
		c.done.Go(func() { c.read(ctx, httpClient, cl, kind.path, body, kind.end) })
	}
	stack.Eventually(t, 30*time.Second, "all streams to have begun", func() bool { return int(c.begun.Load()) == n })
	return c
}

// read reads one answer to its end.
func (c *crowd) read(ctx context.Context, hc *http.Client, cl *client, path, body, end string) {
	var begun sync.Once
	begin := func() { begun.Do(func() { c.begun.Add(1) }) }
	defer begin()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.s.URL+path, strings.NewReader(body))
	if err != nil {
		cl.err = err
		return
	}
	req.Header.Set("Authorization", "Bearer "+stack.Key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := hc.Do(req)
	if err != nil {
		cl.err = err
		return
	}
	defer func() { _ = resp.Body.Close() }()
	cl.id, cl.status = resp.Header.Get("x-request-id"), resp.StatusCode
	text := cl.chunks(resp.Body, end, begin)
	cl.whole = strings.Contains(text, end)
	cl.usage = strings.Contains(path, "completions") && strings.Contains(text, `"usage"`)
}

// chunks reads a body and times its pieces; first is called at the first one.
func (cl *client) chunks(body io.Reader, end string, first func()) string {
	var all strings.Builder
	buf, last := make([]byte, 32<<10), time.Time{}
	for {
		n, err := body.Read(buf)
		now := time.Now()
		switch {
		case n == 0 || last.IsZero():
		case strings.Contains(string(buf[:n]), end):
			cl.hold = now.Sub(last)
		default:
			cl.gap = max(cl.gap, now.Sub(last))
		}
		if n > 0 {
			last = now
			first()
			all.Write(buf[:n])
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				cl.err = err
			}
			return all.String()
		}
	}
}

// whole waits for all streams and checks that none was cut, and that every row is
// complete, exact and what the engine made. It returns the longest gap between two
// reads of a client, and the longest before an end.
func (c *crowd) whole(t *testing.T) (gap, hold time.Duration) {
	t.Helper()
	c.done.Wait()
	cut := 0
	for i, cl := range c.clients {
		gap, hold = max(gap, cl.gap), max(hold, cl.hold)
		if cl.err != nil || !cl.whole || cl.status != http.StatusOK {
			cut++
			if cut <= 5 {
				t.Errorf("stream %d (%s): status %d, end seen %v, %v", i, cl.id, cl.status, cl.whole, cl.err)
			}
		}
		if cl.usage {
			t.Errorf("stream %d (%s): the client got usage that it had not asked for", i, cl.id)
		}
	}
	if cut > 0 {
		t.Errorf("%d of %d streams were cut", cut, len(c.clients))
	}
	c.exact(t, func(cl *client) bool { return cl.err == nil && cl.whole })
	return gap, hold
}

// exact checks the rows of the clients that match: complete, and what was made.
func (c *crowd) exact(t *testing.T, match func(*client) bool) {
	t.Helper()
	var rows map[string]ledger.Record
	stack.Eventually(t, 15*time.Second, "every row to be settled", func() bool {
		rows = c.s.Records()
		for _, cl := range c.clients {
			if r, ok := rows[cl.id]; match(cl) && (!ok || r.Open()) {
				return false
			}
		}
		return true
	})
	for _, cl := range c.clients {
		if !match(cl) {
			continue
		}
		r, truth := rows[cl.id], c.s.Truth(cl.id)
		if r.Reason != ledger.Complete || r.Quality != ledger.Exact || r.Counts.Completion != int64(truth.Completion()) || r.Counts.Prompt != int64(truth.PromptTokens) {
			t.Errorf("%s: %s %s %d+%d, the engine made %d+%d", cl.id, r.Reason, r.Quality, r.Counts.Prompt, r.Counts.Completion, truth.PromptTokens, truth.Completion())
		}
	}
}

// settled waits until nothing is held any more, and checks the ledger's invariants.
func settled(t *testing.T, s *stack.Stack) {
	t.Helper()
	s.Idle(15 * time.Second)
	found, err := s.Ledger().Verify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range found {
		t.Errorf("the ledger breaks %s: %s %s", v.Rule, v.LeaseID, v.Detail)
	}
}
