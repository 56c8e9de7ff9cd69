package replicas_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// TestAReplicaDoesNotStartWithoutRedis: it says why and what to do, soon.
func TestAReplicaDoesNotStartWithoutRedis(t *testing.T) {
	redis := stack.StartRedis(t)
	for name, away := range map[string]func(){
		"it does not answer": func() { redis.Signal(syscall.SIGSTOP) },
		"it is not there":    func() { redis.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			redis.Kill()
			redis.Start()
			s := stack.Start(t, stack.Options{
				Config: fmt.Sprintf("store: {kind: redis, redis: {addresses: [%q]}}", redis.Addr), NoStart: true,
			})
			away()
			began := time.Now()
			s.Tollgate.Start()
			code := s.Tollgate.Wait(10 * time.Second)
			out := s.Tollgate.Output()
			if code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			for _, want := range []string{redis.Addr, "store.redis.addresses", "store.kind"} {
				if !strings.Contains(out, want) {
					t.Errorf("the message does not name %s:\n%s", want, out)
				}
			}
			t.Logf("gave up after %v: %s", time.Since(began).Round(time.Millisecond), s.Tollgate.Tail(3))
		})
	}
}
