package replicas_test

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// TestAReplicaWaitsForRedis: it says what it waits for and what to do, answers as
// soon as Redis does, and stops when it is told to.
func TestAReplicaWaitsForRedis(t *testing.T) {
	redis := stack.StartRedis(t)
	for name, away := range map[string]struct{ goes, comes func() }{
		"it does not answer": {func() { redis.Signal(syscall.SIGSTOP) }, func() { redis.Signal(syscall.SIGCONT) }},
		"it is not there":    {redis.Kill, redis.Start},
	} {
		t.Run(name, func(t *testing.T) {
			s := stack.Start(t, stack.Options{
				Config: fmt.Sprintf("store: {kind: redis, redis: {addresses: [%q], timeout: 300ms}}", redis.Addr), NoStart: true,
				Keys: keys("ann", ""),
			})
			away.goes()
			s.Tollgate.Start()
			stack.Eventually(t, 15*time.Second, "a word of what it waits for", func() bool {
				return strings.Contains(s.Tollgate.Output(), "waiting for redis")
			})
			for _, want := range []string{redis.Addr, "store.redis.addresses", "store.kind"} {
				if !strings.Contains(s.Tollgate.Output(), want) {
					t.Errorf("the message does not name %s:\n%s", want, s.Tollgate.Output())
				}
			}
			away.comes()
			s.Envoy.Start()
			s.Ready()
			if r := shoot(s, "ann", stack.Chat(false, 1, "")); r.code != http.StatusOK {
				t.Errorf("answers %d %s", r.code, r.why)
			}
		})
	}
	t.Run("it never comes", func(t *testing.T) {
		redis.Kill()
		s := stack.Start(t, stack.Options{
			Config: fmt.Sprintf("store: {kind: redis, redis: {addresses: [%q]}}", redis.Addr), NoStart: true,
		})
		s.Tollgate.Start()
		stack.Eventually(t, 15*time.Second, "a word of what it waits for", func() bool {
			return strings.Contains(s.Tollgate.Output(), "waiting for redis")
		})
		s.Tollgate.Signal(syscall.SIGTERM)
		if code := s.Tollgate.Wait(10 * time.Second); code != 0 {
			t.Errorf("exit code %d, want 0", code)
		}
	})
}
