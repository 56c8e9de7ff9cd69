package limits_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// TestManyTinyRequestsDoNotGetAroundAQuota: each underestimates its prompt by what
// the chat template adds, which is most of it.
func TestManyTinyRequestsDoNotGetAroundAQuota(t *testing.T) {
	t.Parallel()
	const quota = 600
	s := stack.Start(t, stack.Options{Keys: keys("tiny", `"quota":600`)})
	body := `{"model":"tiny","max_tokens":1,"messages":[{"role":"user","content":"a"}]}` // 10 tokens, 2 of them seen
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() { ask(s, "tiny", body) })
	}
	wg.Wait()
	s.Idle(5 * time.Second)
	for range 100 {
		if a := ask(s, "tiny", body); a.StatusCode == http.StatusTooManyRequests {
			break
		}
	}
	if got := spent(s, "tiny"); got > quota*102/100 || got < quota*9/10 {
		t.Errorf("%d tokens of a quota of %d", got, quota)
	}
}
