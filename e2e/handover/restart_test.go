package handover_test

import (
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// away is how long tollgate is not there.
const away = 700 * time.Millisecond

const (
	// slack is what a client may wait longer than without a fault.
	slack = 250 * time.Millisecond
	// holdLimit is how long an end waits for a tollgate that hangs.
	holdLimit = 2 * time.Second
)

// TestStreamsOutliveTollgate: whatever becomes of tollgate, no stream is cut or waits,
// and every row is exact.
func TestStreamsOutliveTollgate(t *testing.T) {
	stack.NeedModule(t)
	s := stack.Start(t, stack.Options{Config: "rate_limit: {tokens_per_minute: 100000000}"})
	n, tokens := times(40, 200), 100
	calm, _ := start(t, s, n, tokens).whole(t) // the same without a fault
	for name, fault := range map[string]func(t *testing.T){
		"SIGKILL": func(*testing.T) {
			s.Tollgate.Kill()
			time.Sleep(away)
			s.Tollgate.Start()
		},
		"SIGTERM": func(t *testing.T) {
			began := time.Now()
			s.Tollgate.Signal(syscall.SIGTERM)
			if code := s.Tollgate.Wait(10 * time.Second); code != 0 {
				t.Errorf("exit code %d", code)
			}
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("it waited %v for streams that go on without it", took)
			}
			time.Sleep(away)
			s.Tollgate.Start()
		},
		"SIGSTOP": func(*testing.T) {
			s.Tollgate.Signal(syscall.SIGSTOP)
			time.Sleep(5 * time.Second)
			s.Tollgate.Signal(syscall.SIGCONT)
		},
		"upgrade": func(t *testing.T) {
			s.Tollgate.Signal(syscall.SIGTERM)
			s.Tollgate.Wait(10 * time.Second)
			s.Tollgate.Start()
		},
	} {
		t.Run(name, func(t *testing.T) {
			for range times(1, 50) {
				c := start(t, s, n, tokens)
				fault(t)
				gap, hold := c.whole(t)
				if gap > calm+slack {
					t.Errorf("a client waited %v between two reads, without a fault %v", gap, calm)
				}
				most := calm + slack
				if name == "SIGSTOP" {
					most += holdLimit
				}
				if hold > most {
					t.Errorf("a client waited %v for its end", hold)
				}
				t.Logf("%d streams, longest gap %v (calm: %v), longest wait for an end %v", n, gap.Round(time.Millisecond), calm.Round(time.Millisecond), hold.Round(time.Millisecond))
				s.Ready()
				settled(t, s)
			}
		})
	}
	if n := s.Metric("tollgate_requests_metered_total", "host", "ext_proc"); n > 0 {
		t.Errorf("%v requests were not handed over", n)
	}
}
