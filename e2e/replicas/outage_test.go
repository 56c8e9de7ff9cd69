package replicas_test

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
)

// said is how often the log of a replica says that Redis is away, and that it
// is back.
func said(s *stack.Stack) (away, back int) {
	log, err := os.ReadFile(s.Path("logs/gateway.log"))
	if err != nil {
		s.TB().Fatal(err)
	}
	return strings.Count(string(log), "redis unreachable"), strings.Count(string(log), "redis is back")
}

const (
	outageSlots    = 40  // of all keys
	outageWide     = 10  // of one key
	outageRequests = 100 // a minute of one key
	outageTokens   = 900 // a minute of one key
	outageQuota    = 900
	outageCost     = promptTokens + 10 // of one request
)

// shareOf is the most that two replicas may admit around one outage:
// limit × (2 − 1/replicas).
func shareOf(limited int64) int64 { return limited + limited/2 }

// outage is a pair under load while Redis goes away and comes back.
type outage struct {
	*pair
	wg   sync.WaitGroup
	stop chan struct{}
	slop int64 // tokens that a quota's counter may be wrong by

	mu   sync.Mutex
	seen map[string][]shot // by kind of load; guarded by mu
}

func TestAStoppedRedisCostsNoTime(t *testing.T) {
	beside(t)
	runOutage(t, 0, func(r *stack.Redis) { r.Signal(syscall.SIGSTOP) }, func(r *stack.Redis) { r.Signal(syscall.SIGCONT) })
}

func TestARedisThatComesBackEmptyCostsNoTime(t *testing.T) {
	beside(t)
	runOutage(t, 2*outageCost, func(r *stack.Redis) { r.Kill() }, func(r *stack.Redis) { r.Start() })
}

func runOutage(t *testing.T, slop int64, leave, back func(*stack.Redis)) {
	t.Helper()
	// More than the default, which a machine that is busy with other things
	// exceeds now and then: that would be an outage that nobody made.
	budget, away := 150*time.Millisecond, 10*time.Second
	if long() {
		away = 30 * time.Second
	}
	ids := []string{
		"shut", `"limits":{"requests_per_minute":0}`,
		"wide", fmt.Sprintf(`"limits":{"concurrent":%d}`, outageWide),
		"requests", fmt.Sprintf(`"limits":{"requests_per_minute":%d}`, outageRequests),
		"tokens", fmt.Sprintf(`"limits":{"tokens_per_minute":%d}`, outageTokens),
		"quota", fmt.Sprintf(`"quota":%d`, outageQuota),
		"load", "",
	}
	o := &outage{
		pair: startPair(t, budget, fmt.Sprintf("concurrent: %d", outageSlots), keys(ids...)),
		stop: make(chan struct{}), slop: slop, seen: map[string][]shot{},
	}
	ended := o.fill()
	o.load()
	<-time.After(3 * time.Second)
	p := o.pair
	p.both(func(s *stack.Stack) {
		if n, _ := said(s); n != 0 || s.Metric("tollgate_store_partitioned") != 0 {
			t.Errorf("a replica believed Redis to be away before it was: %s", s.Tollgate.Tail(3))
		}
	})

	leave(p.redis)
	left := time.Now()
	p.both(func(s *stack.Stack) {
		stack.Eventually(t, 3*time.Second, "a replica to notice", func() bool { return s.Metric("tollgate_store_partitioned") == 1 })
	})
	// The other edge has half of what one key may do at once, though the first
	// holds all of it.
	stack.Eventually(t, away-3*time.Second, "the other edge to admit its share", func() bool { // the slots of all keys are in demand
		if a, end := p.hold(p.edges[1], "wide"); a.StatusCode == http.StatusOK {
			ended = append(ended, end)
		}
		return len(ended) == int(shareOf(outageWide))
	})
	p.both(func(s *stack.Stack) {
		if a, _ := p.hold(s, "wide"); a.StatusCode != http.StatusTooManyRequests {
			t.Errorf("%d streams of one key, %d are allowed during an outage", len(ended)+1, shareOf(outageWide))
		}
	})
	<-time.After(time.Until(left.Add(away)))
	p.both(func(s *stack.Stack) {
		if s.Metric("tollgate_store_partitioned") != 1 {
			t.Error("a replica does not say that Redis is away")
		}
	})

	back(p.redis)
	returned := time.Now()
	p.both(func(s *stack.Stack) {
		stack.Eventually(t, 5*time.Second-time.Since(returned), "a replica to join again within 5 s", func() bool {
			return s.Metric("tollgate_store_partitioned") == 0
		})
	})
	rejoined := time.Since(returned)
	p.both(func(s *stack.Stack) {
		if away, back := said(s); away != 1 || back != 1 {
			t.Errorf("a replica said %d times that Redis is away and %d times that it is back, want once each", away, back)
		}
	})
	o.sharedAgain()
	<-time.After(time.Second)
	close(o.stop)
	o.wg.Wait()
	p.sim.Release()
	for _, end := range ended {
		if err := within(t, end); err != nil {
			t.Errorf("a stream that lived through the outage: %v", err)
		}
	}
	o.conclude(left, returned, rejoined)
}

// fill uses up, at the first edge alone, what keys may do; then each replica
// admits as much as it ever may.
func (o *outage) fill() (ended []<-chan error) {
	o.t.Helper()
	for range outageWide {
		a, end := o.hold(o.edges[0], "wide")
		if a.StatusCode != http.StatusOK {
			o.t.Fatalf("a stream of the first edge: %d", a.StatusCode)
		}
		ended = append(ended, end)
	}
	for _, id := range []string{"requests", "tokens"} {
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				for shoot(o.edges[0], id, o.chat(id)).code == http.StatusOK {
				}
			})
		}
		group.Wait()
	}
	for range outageQuota / outageCost / 3 { // a third of it, so that there is something to share
		o.seenAs("quota", shoot(o.edges[0], "quota", o.chat("quota")))
	}
	return ended
}

func (o *outage) chat(id string) string { return stack.Chat(false, 10, `"group":"`+id+`"`) }

// load asks at both edges until stop.
func (o *outage) load() {
	for i := range 32 { // with those held by fill, they fill all slots but not all of the other edge's share
		o.wg.Go(func() {
			body := stack.Chat(true, 10, `"delay_ms":80,"group":"load"`)
			o.every(150*time.Millisecond, func() { o.seenAs("load", shoot(o.edges[i%2], "load", body)) })
		})
	}
	for i := range 2 {
		s := o.edges[i]
		// Nothing but a decision: it is refused where the limits are looked at.
		o.wg.Go(func() {
			o.every(20*time.Millisecond, func() { o.seenAs("check", shoot(s, "shut", o.chat("shut"))) })
		})
		for _, id := range []string{"requests", "tokens", "quota"} {
			o.wg.Go(func() {
				o.every(60*time.Millisecond, func() { o.seenAs(id, shoot(s, id, o.chat(id))) })
			})
		}
	}
}

// every does something until stop, with a pause.
func (o *outage) every(pause time.Duration, do func()) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		select {
		case <-o.stop:
			return
		case <-tick.C:
			do()
		}
	}
}

func (o *outage) seenAs(kind string, r shot) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen[kind] = append(o.seen[kind], r)
}

// sharedAgain: what was admitted alone is known to both.
func (o *outage) sharedAgain() {
	o.t.Helper()
	o.both(func(s *stack.Stack) {
		if v := o.view(s, "wide"); v.Slots != shareOf(outageWide) {
			o.t.Errorf("after the outage a replica knows of %d streams, want %d", v.Slots, shareOf(outageWide))
		}
		for _, id := range []string{"wide", "requests"} {
			if r := shoot(s, id, o.chat(id)); r.code != http.StatusTooManyRequests {
				o.t.Errorf("%s: admitted beyond the limit after the outage: %d", id, r.code)
			}
		}
	})
}

// conclude compares what was admitted and how long it took.
func (o *outage) conclude(left, returned time.Time, rejoined time.Duration) {
	t := o.t
	t.Helper()
	o.idle(2 * time.Second)
	t.Logf("away for %v, joined again %v after its return", returned.Sub(left).Round(time.Millisecond), rejoined.Round(time.Millisecond))
	o.admitted()
	o.cuts()
	o.times("check", http.StatusTooManyRequests, left, returned)
	o.times("load", http.StatusOK, left, returned)
	for kind, shots := range o.seen {
		for _, r := range shots {
			if r.code != http.StatusOK && r.code != http.StatusTooManyRequests {
				t.Errorf("%s, %v after Redis went: status %d %s", kind, r.at.Sub(left).Round(time.Millisecond), r.code, r.why)
			}
		}
	}
}

// cuts names the streams that did not come to their end.
func (o *outage) cuts() {
	o.t.Helper()
	o.both(func(s *stack.Stack) {
		for id, r := range s.Records() {
			if r.Reason != ledger.Complete {
				o.t.Errorf("request %s of %s ended as %s after %v", id, r.KeyID, r.Reason, r.EndedAt.Sub(r.StartedAt))
			}
		}
	})
}

// admitted holds what the engine did against the limits.
func (o *outage) admitted() {
	t := o.t
	t.Helper()
	stats := o.sim.Stats()
	_, requests := o.served("requests")
	tokens, _ := o.served("tokens")
	quota, _ := o.served("quota")
	for _, c := range []struct {
		what             string
		got, limit, over int64
	}{
		{"at once", int64(stats.MaxRunning), outageSlots, 0},
		{"at once of one key", int64(stats.Groups["wide"].MaxRunning), outageWide, 0},
		{"requests in a minute", requests, outageRequests, 0},
		{"tokens in a minute", tokens, outageTokens, 2 * outageCost}, // the last request of each replica
		{"tokens of a quota", quota, outageQuota, 2 * outageCost},
	} {
		t.Logf("  %s: %d of %d", c.what, c.got, c.limit)
		if c.got > shareOf(c.limit)+c.over {
			t.Errorf("%s: %d of %d, more than limit × 1.5", c.what, c.got, c.limit)
		}
	}
	if requests <= outageRequests || tokens <= outageTokens {
		t.Error("nobody was admitted during the outage")
	}
	sum, _ := o.spent("quota")
	o.both(func(s *stack.Stack) {
		// A loss of all data may cost what was on its way just then.
		if counted := o.view(s, "quota").QuotaUsed; sum != quota || counted < sum-o.slop || counted > sum+o.slop {
			t.Errorf("of the quota the counter says %d, the ledgers %d, the engine %d", counted, sum, quota)
		}
	})
}

// allowed is how much longer the slowest hundredth may take during an outage,
// after its first second. A decision alone is looked at closely where nothing
// else runs; the first byte of an answer depends on more than Redis.
func allowed(kind string) time.Duration {
	if long() && kind == "check" {
		return 5 * time.Millisecond
	}
	return 60 * time.Millisecond
}

// times compares the time to the first byte before and during the outage.
func (o *outage) times(kind string, code int, left, returned time.Time) {
	o.t.Helper()
	phases := [4][]time.Duration{}
	for _, r := range o.seen[kind] {
		phase := 3
		switch {
		case r.code != code:
			continue
		case r.at.Before(left):
			phase = 0
		case r.at.Before(left.Add(time.Second)):
			phase = 1
		case r.at.Before(returned):
			phase = 2
		}
		phases[phase] = append(phases[phase], r.first)
	}
	at := func(phase int, q float64) time.Duration {
		all := phases[phase]
		if len(all) == 0 {
			o.t.Errorf("%s: nothing was seen in phase %d", kind, phase)
			return 0
		}
		slices.Sort(all)
		return all[min(len(all)-1, int(q*float64(len(all))))].Round(10 * time.Microsecond)
	}
	for i, name := range []string{"before", "first second", "during", "after"} {
		o.t.Logf("  %-5s %-12s n=%-5d p50 %-8v p99 %-8v most %v", kind, name, len(phases[i]), at(i, 0.5), at(i, 0.99), at(i, 1))
	}
	if added := at(2, 0.99) - at(0, 0.99); added > allowed(kind) {
		o.t.Errorf("%s: p99 is %v longer during the outage, %v are allowed", kind, added, allowed(kind))
	}
}
