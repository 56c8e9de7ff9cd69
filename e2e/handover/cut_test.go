package handover_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
)

// long is a stream that pauses until it is released or cut.
const long = `"pause_after":20`

const annsOther = "sk-test-bob-0123456789abcdef0"

// TestCutsReachStreamsThatAreHandedOver: an administrator and a key that is disabled
// end a stream that Envoy meters, also one that a tollgate before this one has admitted,
// and such a stream holds its slot.
func TestCutsReachStreamsThatAreHandedOver(t *testing.T) {
	stack.NeedModule(t)
	s := stack.Start(t, stack.Options{Config: "rate_limit: {concurrent_per_key: 3}", Keys: `[
  {"key": "` + stack.Key + `", "id": "ann", "user": "ann"},
  {"key": "` + annsOther + `", "id": "bob", "user": "bob"},
  {"key": "` + stack.AdminKey + `", "id": "root", "user": "admin"}
]`})
	t.Run("of this tollgate", func(t *testing.T) { cuts(t, s, func() {}) })
	t.Run("of the one before", func(t *testing.T) {
		cuts(t, s, func() {
			s.Tollgate.Kill()
			s.Tollgate.Start()
			s.Ready()
		})
	})
}

// paused opens a stream that pauses, and returns its request id.
func paused(t *testing.T, s *stack.Stack, key string) string {
	t.Helper()
	a, _ := s.Open(s.HTTP1, key, stack.Chat(true, 40, long))
	id := a.RequestID()
	stack.Eventually(t, 10*time.Second, "the stream to pause", func() bool { return s.Truth(id).Paused })
	return id
}

func cuts(t *testing.T, s *stack.Stack, restart func()) {
	t.Helper()
	cancelled, stays, revoked := paused(t, s, stack.Key), paused(t, s, stack.Key), paused(t, s, annsOther)
	restart()
	stack.Eventually(t, 10*time.Second, "all streams to be live", func() bool { return s.Metric("tollgate_slots_taken") == 3 })
	paused(t, s, stack.Key)
	if a := s.Post(stack.ChatPath, stack.Chat(true, 1, "")); a.StatusCode != http.StatusTooManyRequests {
		t.Errorf("a fourth stream of a key that may have three: %d %s", a.StatusCode, a.Bytes)
	}
	if a := s.Admin(http.MethodDelete, "/admin/requests/"+cancelled, ""); a.StatusCode != http.StatusOK {
		t.Errorf("cancel: %d %s", a.StatusCode, a.Bytes)
	}
	disable(t, s, true)
	for id, want := range map[string]ledger.EndReason{cancelled: ledger.Cancelled, revoked: ledger.Revoked} {
		if r := s.Settled(id); r.Reason != want || r.Quality != ledger.Exact || r.Counts.Completion != 20 {
			t.Errorf("%s %s %d, want %s exact 20", r.Reason, r.Quality, r.Counts.Completion, want)
		}
	}
	disable(t, s, false)
	s.Sim.Release()
	if r := s.Settled(stays); r.Reason != ledger.Complete || r.Quality != ledger.Exact || r.Counts.Completion != 40 {
		t.Errorf("the one beside them: %s %s %d", r.Reason, r.Quality, r.Counts.Completion)
	}
	settled(t, s)
}

func disable(t *testing.T, s *stack.Stack, disabled bool) {
	t.Helper()
	body := `{"enabled":true}`
	if disabled {
		body = strings.Replace(body, "true", "false", 1)
	}
	if a := s.Admin(http.MethodPatch, "/admin/keys/bob", body); a.StatusCode != http.StatusOK {
		t.Fatalf("change the key: %d %s", a.StatusCode, a.Bytes)
	}
}
