package supervisor

import (
	"slices"
	"time"
)

// Restart is the policy after a crash: wait BackoffMin, doubled for every further crash
// Within, at most BackoffMax. A child that was ready is started again at once after its
// first crash Within: it need not crash again. With GiveUpAfter crashes Within the
// child is given up; zero never gives up.
type Restart struct {
	BackoffMin, BackoffMax time.Duration
	GiveUpAfter            int
	Within                 time.Duration
}

// history holds the crashes that still count.
type history struct {
	policy  Restart
	crashes []time.Time
}

// crash records one and returns how long to wait before the next start.
func (h *history) crash(now time.Time, wasReady bool) (wait time.Duration, giveUp bool) {
	h.crashes = slices.DeleteFunc(h.crashes, func(t time.Time) bool { return now.Sub(t) >= h.policy.Within })
	h.crashes = append(h.crashes, now)
	if h.policy.GiveUpAfter > 0 && len(h.crashes) >= h.policy.GiveUpAfter {
		return 0, true
	}
	if wasReady && len(h.crashes) == 1 {
		return 0, false
	}
	wait = h.policy.BackoffMin
	for range len(h.crashes) - 1 {
		if wait >= h.policy.BackoffMax {
			break
		}
		wait *= 2
	}
	return min(wait, max(h.policy.BackoffMax, h.policy.BackoffMin)), false
}
