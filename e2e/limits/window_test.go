package limits_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
)

func TestParallelFirstCallsStayWithinTheWindow(t *testing.T) {
	const window, calls = 1000, 100
	s := stack.Start(t, stack.Options{Keys: keys("small", `"limits":{"tokens_per_minute":1000}`)})
	var wg sync.WaitGroup
	answers := make([]*stack.Answer, calls)
	for i := range calls {
		client := s.HTTP1
		if i%2 == 1 {
			client = s.HTTP2
		}
		wg.Go(func() {
			// No max_tokens: the gateway has to guess, 256 at first.
			answers[i] = s.Do(client, "POST", stack.ChatPath, `{"model":"tiny","stream":true,"messages":[{"role":"user","content":"count for me"}],"sim":{"tokens":60,"pause_after":1}}`,
				"Authorization", "Bearer "+secret("small"))
		})
	}
	// All are decided before any ends: the admitted ones are paused.
	var most, largest int64
	stack.Eventually(t, 10*time.Second, "all calls to be decided", func() bool {
		v := view(t, s, "small")
		most = max(most, v.TokensWindow+v.Reserved)
		return s.Metric("tollgate_admission_decisions_total", "decision", "tokens") >= float64(calls-s.Sim.Stats().Running) && s.Sim.Stats().Running > 0
	})
	for _, r := range s.Records() {
		largest = max(largest, r.Reserved)
	}
	s.Sim.Release()
	wg.Wait()
	passed := passedOf(t, answers)
	if passed == 0 || most > window || most > int64(passed)*largest+window-largest {
		t.Errorf("%d passed; used and reserved came to %d of %d", passed, most, window)
	}
	if passed < 2 {
		t.Errorf("only %d of %d small first calls passed", passed, calls)
	}
	s.Idle(2 * time.Second)
	v := view(t, s, "small")
	if sum := spent(s, "small"); v.TokensWindow != sum || sum != int64(passed)*(11+60) || v.Reserved != 0 {
		t.Errorf("window %d, ledger %d, want %d of both", v.TokensWindow, sum, passed*71)
	}
	if v.RequestsWindow != int64(passed) || v.Slots != 0 {
		t.Errorf("requests %d, slots %d; want %d, 0", v.RequestsWindow, v.Slots, passed)
	}
	t.Logf("%d of %d passed, at most %d of %d tokens used and reserved", passed, calls, most, window)
}

// passedOf counts the answers; the others must be refusals by rate.
func passedOf(t *testing.T, answers []*stack.Answer) (n int) {
	t.Helper()
	for _, a := range answers {
		if a.StatusCode == http.StatusOK && a.Err == nil {
			n++
			continue
		}
		stack.WantProblem(t, a, tooFast)
	}
	return n
}

// TestARequestLargerThanTheWindow takes a minute: tokens slide out in real time.
func TestARequestLargerThanTheWindow(t *testing.T) {
	t.Parallel()
	s := stack.Start(t, stack.Options{Keys: keys("polls", `"limits":{"tokens_per_minute":50}`, "waits", `"limits":{"tokens_per_minute":50}`)})
	large := stack.Chat(false, 100, "")
	type refusal struct {
		at   time.Time
		wait time.Duration
	}
	refused := map[string]refusal{}
	for _, id := range []string{"polls", "waits"} {
		a := ask(s, id, large)
		if a.StatusCode != http.StatusOK {
			t.Fatalf("%s: on an empty window: %d %s", id, a.StatusCode, a.Bytes)
		}
		rec := s.RecordWhen(a.RequestID(), "settled", ended)
		if rec.Counts.Prompt+rec.Counts.Completion != 111 || rec.Reason != ledger.Complete {
			t.Fatalf("%s: %+v", id, rec)
		}
		next := ask(s, id, large)
		at := time.Now()
		stack.WantProblem(t, next, tooFast)
		refused[id] = refusal{at, retryAfter(t, next)}
	}
	var wg sync.WaitGroup
	wg.Go(func() { // at retry-after it passes
		r := refused["waits"]
		<-time.After(time.Until(r.at.Add(r.wait)))
		if a := ask(s, "waits", large); a.StatusCode != http.StatusOK {
			t.Errorf("after retry-after (%v): %d %s", r.wait, a.StatusCode, a.Bytes)
		}
	})
	wg.Go(func() { // and long before it would not have
		r := refused["polls"]
		<-time.After(time.Until(r.at.Add(r.wait - 3*time.Second)))
		for ask(s, "polls", large).StatusCode != http.StatusOK {
			<-time.After(50 * time.Millisecond)
		}
		if early := r.wait - time.Since(r.at); early > 1500*time.Millisecond {
			t.Errorf("retry-after said %v, it passed %v sooner", r.wait, early)
		} else {
			t.Logf("retry-after %v, passed %v before it", r.wait, early)
		}
	})
	wg.Wait()
}
