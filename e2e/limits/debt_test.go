package limits_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// TestADebtIsWaitedOut bursts three times the limit, kills the service in
// between, and comes back when retry-after said.
func TestADebtIsWaitedOut(t *testing.T) {
	t.Parallel()
	s := stack.Start(t, stack.Options{Keys: keys("burst", `"limits":{"tokens_per_minute":1000}`)})
	answer := `{"model":"tiny","messages":[{"role":"user","content":"count for me"}],"sim":{"tokens":1000,"first_delay_ms":500}}`
	var wg sync.WaitGroup
	for range 3 { // 256 are expected of each; none may end before all have begun
		wg.Go(func() {
			if a := ask(s, "burst", answer); a.StatusCode != http.StatusOK {
				t.Errorf("a burst: %d %s", a.StatusCode, a.Bytes)
			}
		})
	}
	wg.Wait()
	if v := view(t, s, "burst"); v.Debt < 1900 || v.Debt > 2040 {
		t.Errorf("debt after three limits: %d, want 2033 less a little time", v.Debt)
	}
	a := ask(s, "burst", answer)
	at, wait := time.Now(), retryAfter(t, a)
	stack.WantProblem(t, a, tooFast)
	if wait < 115*time.Second || wait > 123*time.Second || !strings.Contains(string(a.Bytes), "minutes' worth") {
		t.Errorf("after three limits at once: retry-after %v: %s", wait, a.Bytes)
	}
	s.Tollgate.Kill()
	s.Tollgate.Start()
	s.Ready()
	after := ask(s, "burst", answer)
	stack.WantProblem(t, after, tooFast)
	if off := retryAfter(t, after) - (wait - time.Since(at)); off > 2*time.Second || off < -2*time.Second {
		t.Errorf("a restart changed the wait by %v", off)
	}
	if !long() {
		return // the rest takes two minutes
	}
	<-time.After(time.Until(at.Add(wait - 3*time.Second)))
	stack.WantProblem(t, ask(s, "burst", answer), tooFast)
	<-time.After(time.Until(at.Add(wait + 2*time.Second)))
	if a := ask(s, "burst", stack.Chat(false, 20, "")); a.StatusCode != http.StatusOK {
		t.Errorf("after the time that was said: %d %s", a.StatusCode, a.Bytes)
	}
}

// TestTokensPerMinuteHoldInTheLongRun attacks a key each second: for ten minutes
// in the long form, for half a minute in the short one.
func TestTokensPerMinuteHoldInTheLongRun(t *testing.T) {
	t.Parallel()
	const limited, answer = 5000, 2000
	s := stack.Start(t, stack.Options{Keys: keys("attacker", `"limits":{"tokens_per_minute":5000}`)})
	body := `{"model":"tiny","messages":[{"role":"user","content":"count for me"}],"sim":{"tokens":2000}}`
	ticks := scale(30, 600)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var wg sync.WaitGroup
	for i := range ticks {
		for range scale(20, 50) {
			wg.Go(func() { ask(s, "attacker", body) })
		}
		if i+1 < ticks {
			<-tick.C
		}
	}
	wg.Wait()
	most := int64(ticks)*limited/60 + 20*(answer+11)
	if got := spent(s, "attacker"); got > most {
		t.Errorf("%d tokens in %d s, want at most %d", got, ticks, most)
	} else {
		t.Logf("%d tokens in %d s, at most %d are promised", got, ticks, most)
	}
}
