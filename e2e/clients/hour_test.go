package clients_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"tollgate/e2e/stack"
)

// TestAKeyWorksWhenItsCommandHasReturned: a new key works as soon as its command
// returns, and a removed one is refused as soon.
func TestAKeyWorksWhenItsCommandHasReturned(t *testing.T) {
	t.Parallel()
	s := start(t)
	ask := func(key string) int {
		return s.Do(s.HTTP1, http.MethodPost, stack.ChatPath, strings.Replace(stack.Chat(false, 2, ""), "tiny", "simulated", 1),
			"Authorization", "Bearer "+key).StatusCode
	}
	command := func(args ...string) string {
		code, out, errs := s.Command(args...)
		if code != 0 {
			t.Fatalf("%v: %d %s", args, code, errs)
		}
		return strings.TrimSpace(out)
	}
	for i := range 5 {
		id := fmt.Sprintf("k%d", i)
		key := command("keys", "add", "--user", "ann", "--id", id)
		if got := ask(key); got != http.StatusOK {
			t.Errorf("key %d, just made: %d", i, got)
		}
		fresh := command("keys", "rotate", id, "--grace", "0s")
		if got, old := ask(fresh), ask(key); got != http.StatusOK || old != http.StatusUnauthorized {
			t.Errorf("key %d, just rotated: the new secret gets %d, the old one %d", i, got, old)
		}
		command("keys", "disable", id)
		if got := ask(fresh); got != http.StatusUnauthorized {
			t.Errorf("key %d, just disabled: %d", i, got)
		}
	}
}
