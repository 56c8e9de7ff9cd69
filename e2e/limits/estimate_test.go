package limits_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
)

// TestALargeMaxTokensIsNoBlock is a coding agent: it allows 32,000 tokens and
// uses 200 under a limit of 20,000 a minute.
func TestALargeMaxTokensIsNoBlock(t *testing.T) {
	t.Parallel()
	s := stack.Start(t, stack.Options{Keys: keys("agent", `"limits":{"tokens_per_minute":20000}`)})
	passed := 0
	for range 30 {
		if a := ask(s, "agent", stack.Chat(false, 32000, `"tokens":200`)); a.StatusCode == http.StatusOK {
			passed++
		}
	}
	if passed < 25 {
		t.Errorf("%d of 30 requests passed within the minute, want 25 at least", passed)
	}
	t.Logf("%d of 30 requests passed", passed)
}

// TestNoNeighbourMovesAReservationOrABill lets another key send what once moved
// both: many short prompts, then long words.
func TestNoNeighbourMovesAReservationOrABill(t *testing.T) {
	t.Parallel()
	s := stack.Start(t, stack.Options{Keys: keys("me", "", "other", "")})
	reserved := func() int64 {
		t.Helper()
		a := ask(s, "me", `{"model":"tiny","messages":[{"role":"user","content":"`+strings.Repeat("word and ", 900)+`"}],"sim":{"error_status":500}}`)
		return s.Settled(a.RequestID()).Reserved
	}
	bill := func() int64 {
		t.Helper()
		a := s.Do(s.HTTP1, "POST", "/v1/messages", `{"model":"tiny","stream":true,"max_tokens":500,"messages":[{"role":"user","content":"count"}],"sim":{"cut_after":60,"delay_ms":3,"text":"`+
			strings.Repeat("twelveletter ", 90)+`"}}`, "Authorization", "Bearer "+secret("me"))
		r := s.RecordWhen(a.RequestID(), "named", ended)
		if r.Quality != ledger.Estimated {
			t.Errorf("a cut stream is %s", r.Quality)
		}
		return r.Counts.Completion
	}
	reservedBefore, billBefore := reserved(), bill()
	for name, body := range map[string]string{
		"short prompts": `{"model":"tiny","messages":[{"role":"user","content":"hi"}],"max_tokens":1}`,
		"long words":    fmt.Sprintf(`{"model":"tiny","messages":[{"role":"user","content":%q}],"max_tokens":1}`, strings.Repeat("abcdefghijk ", 700)),
	} {
		for range 150 {
			ask(s, "other", body)
		}
		for what, pair := range map[string][2]int64{"reservation": {reservedBefore, reserved()}, "bill": {billBefore, bill()}} {
			if off := float64(pair[1])/float64(pair[0]) - 1; off > 0.1 || off < -0.1 {
				t.Errorf("a neighbour's %s moved the %s from %d to %d", name, what, pair[0], pair[1])
			}
			t.Logf("%s: %s %d before, %d after", name, what, pair[0], pair[1])
		}
	}
}
