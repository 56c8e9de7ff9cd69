package handover_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
)

// wholes are the routes that answer in one piece.
var wholes = []struct{ path, body string }{
	{"/v1/chat/completions", `{"model":"tiny","max_tokens":%d,"messages":[{"role":"user","content":"count"}],"sim":{"delay_ms":%d}}`},
	{"/v1/completions", `{"model":"tiny","max_tokens":%d,"prompt":"count","sim":{"delay_ms":%d}}`},
	{"/v1/responses", `{"model":"tiny","max_output_tokens":%d,"input":"count","sim":{"delay_ms":%d}}`},
	{"/v1/messages", `{"model":"tiny","max_tokens":%d,"messages":[{"role":"user","content":"count"}],"sim":{"delay_ms":%d}}`},
}

// asked is one answer that comes whole, or is left.
type asked struct {
	id    string
	leave context.CancelFunc
	done  sync.WaitGroup
	got   *stack.Answer
}

// ask sends a request whose answer comes in one piece after tokens × pace, and returns
// when the engine has it.
func ask(t *testing.T, s *stack.Stack, kind, tokens int) *asked {
	t.Helper()
	known := map[string]bool{}
	for _, tr := range s.Sim.Truths() {
		known[tr.RequestID] = true
	}
	ctx, cancel := context.WithCancel(t.Context())
	a := &asked{leave: cancel}
	t.Cleanup(func() { cancel(); a.done.Wait() })
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+wholes[kind].path,
		strings.NewReader(fmt.Sprintf(wholes[kind].body, tokens, pace.Milliseconds())))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+stack.Key)
	req.Header.Set("Content-Type", "application/json")
	a.done.Go(func() {
		resp, err := s.HTTP1.Do(req)
		if err != nil {
			return // it was left
		}
		defer func() { _ = resp.Body.Close() }()
		a.got = &stack.Answer{Response: resp}
	})
	stack.Eventually(t, 10*time.Second, "the engine to have it", func() bool {
		for _, tr := range s.Sim.Truths() {
			if !known[tr.RequestID] {
				a.id = tr.RequestID
				return true
			}
		}
		return false
	})
	return a
}

// TestWholeAnswersOutliveTollgate: answers that come in one piece are exact when they
// end while tollgate is away or right after it is back, and one that is left costs what
// the engine has made for it, not a guess.
func TestWholeAnswersOutliveTollgate(t *testing.T) {
	stack.NeedModule(t)
	s := stack.Start(t, stack.Options{})
	streams := start(t, s, 4, 120)
	var ends, left []*asked
	for kind := range wholes {
		ends = append(ends, ask(t, s, kind, 60), ask(t, s, kind, 150))
		left = append(left, ask(t, s, kind, 2000))
	}
	gone := ask(t, s, 0, 2000)
	time.Sleep(1200 * time.Millisecond) // the engines' counters are read each second
	s.Tollgate.Kill()
	gone.leave()
	time.Sleep(away)
	s.Tollgate.Start()
	s.Ready()
	for _, a := range left {
		a.leave()
	}
	for _, a := range append(left, gone) {
		a.done.Wait()
		r, made := s.Settled(a.id), int64(s.Truth(a.id).Completion())
		if r.Reason != ledger.ClientAbort || r.Quality != ledger.Estimated {
			t.Errorf("%s: %s %s", a.id, r.Reason, r.Quality)
		}
		if r.Counts.Prompt == 0 {
			t.Errorf("%s: nothing charged for its prompt", a.id)
		}
		if got := r.Counts.Completion; got < made*6/10-5 || got > made*14/10+5 {
			t.Errorf("%s: charged %d, the engine made %d", a.id, got, made)
		}
		t.Logf("left: charged %d+%d, made %d+%d", r.Counts.Prompt, r.Counts.Completion, s.Truth(a.id).PromptTokens, made)
	}
	for _, a := range ends {
		a.done.Wait()
		r, made := s.Settled(a.id), s.Truth(a.id)
		if a.got == nil || a.got.StatusCode != http.StatusOK {
			t.Errorf("%s: no answer", a.id)
		}
		if r.Reason != ledger.Complete || r.Quality != ledger.Exact || r.Counts.Completion != int64(made.Completion()) {
			t.Errorf("%s: %s %s %d, made %d", a.id, r.Reason, r.Quality, r.Counts.Completion, made.Completion())
		}
	}
	streams.whole(t)
	settled(t, s)
}
