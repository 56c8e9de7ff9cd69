package limits_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// TestSequencesTakeSlots: a request takes a slot for each choice of each prompt.
func TestSequencesTakeSlots(t *testing.T) {
	t.Parallel()
	s := stack.Start(t, stack.Options{
		Config: "rate_limit: {concurrent: 200}",
		Keys:   keys("one", `"limits":{"concurrent":1}`, "many", `"limits":{"concurrent":40}`, "free", ""),
	})
	complete := func(id, more string) *stack.Answer {
		return s.Do(s.HTTP1, "POST", "/v1/completions", `{"model":"tiny","max_tokens":3,`+more+`}`, "Authorization", "Bearer "+secret(id))
	}
	// All of the key's limit is enough for any request, however many it makes.
	if a := complete("one", `"prompt":["a","b","c","d"],"n":4`); a.StatusCode != http.StatusOK {
		t.Errorf("a key's only request: %d %s", a.StatusCode, a.Bytes)
	}
	held, end := s.Open(s.HTTP1, secret("many"), strings.Replace(stack.Chat(true, 20, `"pause_after":2`), `{`, `{"n":16,`, 1))
	if held.StatusCode != http.StatusOK {
		t.Fatalf("the first request: %d", held.StatusCode)
	}
	if got := s.Metric("tollgate_slots_taken"); got != 16 {
		t.Errorf("slots_taken: %v, want 16", got)
	}
	if got := s.Metric("tollgate_leases_live"); got != 1 {
		t.Errorf("leases_live: %v, want 1", got)
	}
	full := complete("many", `"prompt":["a","b","c","d","e"],"n":5`)
	stack.WantProblem(t, full, tooMany)
	if text := string(full.Bytes); !strings.Contains(text, "needs 24 more") || !strings.Contains(text, "23 are free") {
		t.Errorf("the refusal does not say what is needed and free: %s", text)
	}
	if a := complete("many", `"prompt":["a","b","c","d"],"n":6`); a.StatusCode != http.StatusOK {
		t.Errorf("24 sequences of 40 beside 16: %d %s", a.StatusCode, a.Bytes)
	}
	end()
	s.Idle(5 * time.Second)
	if got := s.Metric("tollgate_slots_taken"); got != 0 {
		t.Errorf("slots_taken in the end: %v", got)
	}
	// Tokenizing takes one, and no tokens.
	one, end := s.Open(s.HTTP1, secret("one"), stack.Chat(true, 20, `"pause_after":2`))
	defer end()
	if one.StatusCode != http.StatusOK {
		t.Fatalf("a stream: %d", one.StatusCode)
	}
	stack.WantProblem(t, s.Do(s.HTTP1, "POST", "/tokenize", `{"model":"tiny","prompt":"a"}`, "Authorization", "Bearer "+secret("one")), tooMany)
}

// TestALargeRequestIsNotStarved keeps a gateway 90 % busy with small requests: one
// of 16 sequences finds its place within a minute.
func TestALargeRequestIsNotStarved(t *testing.T) {
	t.Parallel()
	s := stack.Start(t, stack.Options{Config: "rate_limit: {concurrent: 160}", Keys: keys("small", "", "large", "")})
	stop := make(chan struct{})
	done := make(chan struct{}, 144)
	for i := range 144 {
		go func() {
			defer func() { done <- struct{}{} }()
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
					ask(s, "small", stack.Chat(true, 20, `"delay_ms":`+[]string{"20", "30", "40"}[(i+n)%3]))
				}
			}
		}()
	}
	stack.Eventually(t, 20*time.Second, "the gateway to be busy", func() bool { return s.Metric("tollgate_slots_taken") > 120 })
	begun := time.Now()
	stack.Eventually(t, time.Minute, "a request of 16 sequences to pass", func() bool {
		a := ask(s, "large", strings.Replace(stack.Chat(false, 3, ""), `{`, `{"n":16,`, 1))
		return a.StatusCode == http.StatusOK
	})
	t.Logf("passed after %v", time.Since(begun).Round(time.Millisecond))
	close(stop)
	for range 144 {
		<-done
	}
}
