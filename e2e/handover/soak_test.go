package handover_test

import (
	"os"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/vllmsim"
)

// TestASoak: an hour of small requests, a third of which their clients leave, while
// tollgate is killed, stopped and hung in turn. Nobody's memory grows, nothing is lost,
// and both witnesses of every end agree. PROOF_SOAK is another length.
func TestASoak(t *testing.T) {
	stack.NeedModule(t)
	length, err := time.ParseDuration(os.Getenv("PROOF_SOAK"))
	if err != nil || !proof() {
		length = map[bool]time.Duration{false: 12 * time.Second, true: time.Hour}[proof()]
	}
	s := stack.Start(t, stack.Options{Sim: vllmsim.Options{MaxTruths: 1_000_000}})
	end := time.Now().Add(length)
	st := &storm{s: s, endings: map[string]ending{}, rest: 50 * time.Millisecond, more: func() bool { return time.Now().Before(end) }}
	over := st.begin(t.Context(), 8)
	w := watch{s: s}
	faults := []func(){s.Tollgate.Kill, w.stop, w.hang}
	next := time.NewTicker(max(length/18, 3*time.Second))
	defer next.Stop()
	look := time.NewTicker(min(5*time.Second, length/40))
	defer look.Stop()
	for running, i := true, 0; running; {
		select {
		case <-over:
			running = false
		case <-look.C:
			w.envoy = append(w.envoy, s.Envoy.RSS())
		case <-next.C:
			s.Ready()
			w.before()
			faults[i%len(faults)]()
			if !s.Tollgate.Running() {
				time.Sleep(200 * time.Millisecond)
				s.Tollgate.Start()
			}
			i++
		}
	}
	s.Ready()
	settled(t, s)
	w.before()
	st.check(t, len(w.tollgate)-1, int(length.Seconds()))
	w.flat(t)
}

// watch is what the programs held over time, and on how many ends they disagreed.
type watch struct {
	s        *stack.Stack
	envoy    []int64 // bytes, every few seconds
	tollgate []int64 // bytes, each time before a fault: all of about the same age
	disagree float64
}

func (w *watch) before() {
	w.tollgate = append(w.tollgate, w.s.Tollgate.RSS())
	w.disagree += w.s.Metric("tollgate_witness_disagreements_total")
}

func (w *watch) stop() {
	w.s.Tollgate.Signal(syscall.SIGTERM)
	w.s.Tollgate.Wait(10 * time.Second)
}

func (w *watch) hang() {
	w.s.Tollgate.Signal(syscall.SIGSTOP)
	time.Sleep(3 * time.Second)
	w.s.Tollgate.Signal(syscall.SIGCONT)
}

// flat compares the second quarter of the time with the last: the first fills caches.
func (w *watch) flat(t *testing.T) {
	t.Helper()
	const mib = 1 << 20
	for name, held := range map[string][]int64{"envoy": w.envoy, "tollgate": w.tollgate} {
		n := len(held)
		early, late := mean(held[n/4:n/2]), mean(held[n-n/4:])
		t.Logf("%s: %.1f MiB in the second quarter, %.1f in the last", name, early/mib, late/mib)
		if late > 1.1*early+8*mib {
			t.Errorf("%s grew from %.1f MiB to %.1f", name, early/mib, late/mib)
		}
	}
	if w.disagree > 0 {
		t.Errorf("the witnesses disagree on %v ends", w.disagree)
	}
}

func mean(of []int64) float64 {
	sum := int64(0)
	for _, v := range of {
		sum += v
	}
	return float64(sum) / float64(max(1, len(of)))
}
