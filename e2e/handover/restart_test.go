package handover_test

import (
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// away is how long tollgate is not there.
const away = 700 * time.Millisecond

// holdLimit is how long an end waits for a tollgate that hangs.
const holdLimit = 2 * time.Second

// slack is what a client may wait longer than without a fault. The short form runs
// beside other things.
func slack() time.Duration {
	if proof() {
		return 250 * time.Millisecond
	}
	return time.Second
}

// TestStreamsOutliveTollgate: whatever becomes of tollgate, no stream is cut or waits,
// and every row is exact.
func TestStreamsOutliveTollgate(t *testing.T) {
	stack.NeedModule(t)
	s := stack.Start(t, stack.Options{Config: "rate_limit: {tokens_per_minute: 100000000}"})
	o := outlived{s: s, n: times(40, 200)}
	for _, f := range []struct {
		name  string
		fault func(t *testing.T)
		hold  time.Duration // what an end may wait for it
	}{
		{"SIGKILL", o.killed, 0}, {"SIGTERM", o.stopped, 0}, {"SIGSTOP", o.hung, holdLimit}, {"upgrade", o.upgraded, 0},
	} {
		t.Run(f.name, func(t *testing.T) {
			for range asMany("PROOF_ROUNDS", 1, 50) {
				o.round(t, f.fault, f.hold)
			}
		})
	}
	if n := s.Metric("tollgate_requests_metered_total", "host", "ext_proc"); n > 0 {
		t.Errorf("%v requests were not handed over", n)
	}
}

// outlived are faults of tollgate under n streams.
type outlived struct {
	s *stack.Stack
	n int
}

func (o outlived) killed(t *testing.T) {
	t.Helper()
	o.s.Tollgate.Kill()
	time.Sleep(away)
	o.s.Tollgate.Start()
}

func (o outlived) stopped(t *testing.T) {
	t.Helper()
	began := time.Now()
	o.s.Tollgate.Signal(syscall.SIGTERM)
	if code := o.s.Tollgate.Wait(10 * time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("it waited %v for streams that go on without it", took)
	}
	time.Sleep(away)
	o.s.Tollgate.Start()
}

func (o outlived) hung(t *testing.T) {
	t.Helper()
	o.s.Tollgate.Signal(syscall.SIGSTOP)
	time.Sleep(5 * time.Second)
	o.s.Tollgate.Signal(syscall.SIGCONT)
}

func (o outlived) upgraded(t *testing.T) {
	t.Helper()
	o.s.Tollgate.Signal(syscall.SIGTERM)
	o.s.Tollgate.Wait(10 * time.Second)
	o.s.Tollgate.Start()
}

// round lets streams run once without the fault and once with it.
func (o outlived) round(t *testing.T, fault func(*testing.T), holdMost time.Duration) {
	t.Helper()
	const tokens = 100
	calm, calmHold := start(t, o.s, o.n, tokens).whole(t)
	c := start(t, o.s, o.n, tokens)
	fault(t)
	gap, hold := c.whole(t)
	if gap > calm+slack() {
		t.Errorf("a client waited %v between two reads, without a fault %v", gap, calm)
	}
	if hold > max(calm, calmHold)+slack()+holdMost {
		t.Errorf("a client waited %v for its end, without a fault %v", hold, calmHold)
	}
	t.Logf("%d streams, longest gap %v (calm: %v), longest wait for an end %v (calm: %v)", o.n,
		gap.Round(time.Millisecond), calm.Round(time.Millisecond), hold.Round(time.Millisecond), calmHold.Round(time.Millisecond))
	o.s.Ready()
	settled(t, o.s)
}
