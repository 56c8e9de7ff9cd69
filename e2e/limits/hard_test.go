package limits_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate/e2e/attack"
	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
	"tollgate/internal/vllmsim"
)

// TestAQuotaIsHard asks for far more than a quota has, in every way at once, with
// the limits in memory and in Redis.
func TestAQuotaIsHard(t *testing.T) {
	t.Parallel()
	t.Run("memory", func(t *testing.T) {
		attack.Run(t, scale(24, 150), stack.Start(t, stack.Options{Keys: attack.Keys(), Sim: vllmsim.Options{MaxTruths: 100000}}))
	})
	t.Run("redis", func(t *testing.T) {
		// A budget under which a busy machine makes no outage.
		store := fmt.Sprintf("store: {kind: redis, redis: {addresses: [%q], timeout: 2s}}", stack.StartRedis(t).Addr)
		attack.Run(t, scale(12, 150), stack.Start(t, stack.Options{Config: store, Keys: attack.Keys(), Sim: vllmsim.Options{MaxTruths: 100000}}))
	})
}

// TestHonestUseOfALargeQuotaIsLeftAlone: nothing is refused or shortened.
func TestHonestUseOfALargeQuotaIsLeftAlone(t *testing.T) {
	t.Parallel()
	s := stack.Start(t, stack.Options{Keys: keys("honest", `"quota":5000000`)})
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			body := stack.Chat(i%2 == 0, 4000, `"tokens":700`)
			if i%3 == 0 {
				body = `{"model":"tiny","messages":[{"role":"user","content":"count for me"}],"sim":{"tokens":700}}`
			}
			a := ask(s, "honest", body)
			if a.StatusCode != http.StatusOK || a.Header.Get("X-Quota-Max-Tokens") != "" || strings.Contains(string(a.Bytes), "insufficient_quota") {
				t.Errorf("%d, x-quota-max-tokens %q", a.StatusCode, a.Header.Get("X-Quota-Max-Tokens"))
			}
			if r := s.RecordWhen(a.RequestID(), "settled", ended); r.Counts.Completion != 700 {
				t.Errorf("%s with %d tokens, want 700", r.Reason, r.Counts.Completion)
			}
		})
	}
	wg.Wait()
}

// endsWithItsQuota streams with the key of that name, which has 300 tokens.
func endsWithItsQuota(t *testing.T, s *stack.Stack, name string, c *http.Client) {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, s.URL+stack.ChatPath, strings.NewReader(stack.Chat(true, 1000, "")))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+secret(name))
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := io.ReadAll(resp.Body) // the connection may end without its end
	_ = resp.Body.Close()
	text := string(got)
	i := strings.Index(text, `data: {"error":`)
	if i < 0 || !strings.Contains(text[i:], `"code":"insufficient_quota"`) || !strings.HasSuffix(text, "data: [DONE]\n\n") {
		t.Errorf("%s: no error event at the end: %.300s", name, text[max(0, len(text)-300):])
	}
	r := s.RecordWhen(resp.Header.Get("X-Request-Id"), "settled", ended)
	if r.Reason != ledger.Quota || r.Quality != ledger.Exact || r.Counts.Prompt+r.Counts.Completion > 300 {
		t.Errorf("%s: %+v", name, r)
	}
	delivered := int64(strings.Count(text[:i], `"content":"`)) - 1 // the first has a role and no text
	if delivered > r.Counts.Completion {
		t.Errorf("%s: %d tokens delivered, %d in the ledger", name, delivered, r.Counts.Completion)
	}
}

// TestAnAnswerEndsWithItsQuota looks at the two ways in which a client learns it.
func TestAnAnswerEndsWithItsQuota(t *testing.T) {
	t.Parallel()
	s := stack.Start(t, stack.Options{Keys: keys("h1", `"quota":300`, "h2", `"quota":300`, "whole", `"quota":300`, "patient", `"quota":300`)})
	for name, c := range map[string]*http.Client{"h1": s.HTTP1, "h2": s.HTTP2} {
		endsWithItsQuota(t, s, name, c)
	}
	a := ask(s, "whole", stack.Chat(false, 1000, ""))
	bound := a.Header.Get("X-Quota-Max-Tokens")
	r := s.RecordWhen(a.RequestID(), "settled", ended)
	if a.StatusCode != http.StatusOK || bound == "" || fmt.Sprint(r.Counts.Completion) != bound {
		t.Errorf("a shortened answer: %d, x-quota-max-tokens %q, %+v", a.StatusCode, bound, r)
	}
	if left := a.Header.Get("X-Quota-Remaining"); left != "0" {
		t.Errorf("x-quota-remaining beside the reservation: %q", left)
	}

	// While only a reservation stands in the way it is worth another try.
	held, end := s.Open(s.HTTP1, secret("patient"), stack.Chat(true, 1000, `"pause_after":2`))
	defer end()
	if held.StatusCode != http.StatusOK {
		t.Fatalf("the first stream: %d", held.StatusCode)
	}
	stack.Eventually(t, 5*time.Second, "the rest to be held", func() bool {
		a := ask(s, "patient", stack.Chat(false, 200, ""))
		if a.StatusCode != http.StatusTooManyRequests {
			return false
		}
		stack.WantProblem(t, a, tooFast)
		if wait := retryAfter(t, a); wait != time.Second {
			t.Errorf("retry-after: %v", wait)
		}
		return true
	})
}
