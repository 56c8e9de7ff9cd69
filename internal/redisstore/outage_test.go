package redisstore_test

import (
	"bytes"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tollgate/internal/limit"
	"tollgate/internal/redisstore"
)

// faults are ways for a server to be away.
var faults = map[string]struct{ fail, heal func(s *server, p *proxy) }{
	"stopped":   {func(s *server, _ *proxy) { s.signal(syscall.SIGSTOP) }, func(s *server, _ *proxy) { s.signal(syscall.SIGCONT) }},
	"restarted": {func(s *server, _ *proxy) { s.kill() }, func(s *server, _ *proxy) { s.start() }},
	"slow":      {func(_ *server, p *proxy) { p.set(time.Second, false, false) }, func(_ *server, p *proxy) { p.set(0, false, false) }},
	"silent":    {func(_ *server, p *proxy) { p.set(0, true, false) }, func(_ *server, p *proxy) { p.set(0, false, false) }},
	"refusing":  {func(_ *server, p *proxy) { p.set(0, false, true) }, func(_ *server, p *proxy) { p.set(0, false, false) }},
}

// TestOutageHasABoundedError is promise R5: while Redis is away each replica
// keeps its share, decisions are quick, and all is known again afterwards.
func TestOutageHasABoundedError(t *testing.T) {
	const requests, slots = 100, 4
	c := caps(func(c *limit.Caps) { c.Requests = requests })
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t)
			p, both := pair(t, s)
			useUp(t, both[0], c, requests, slots)
			if got := acquire(t, both[1], "one-more", c); got != limit.Requests {
				t.Fatalf("Acquire above the limit: got %q", got)
			}

			fault.fail(s, p)
			admitted, took := hammer(t, both, c, "during", 2500*time.Millisecond)
			if diff := cmp.Diff([]int{0, requests / 2}, admitted); diff != "" {
				t.Errorf("admitted during the outage (-want +got):\n%s", diff)
			}
			quick(t, took)
			if !both[0].Partitioned() || !both[1].Partitioned() {
				t.Error("a replica does not know of the outage")
			}
			if ok, err := both[0].Release(t.Context(), "before-0", limit.Final{Total: 7, QuotaPeriod: "total"}); !ok || err != nil {
				t.Errorf("Release during the outage: got %v, %v", ok, err)
			}

			healed := time.Now()
			fault.heal(s, p)
			await(t, 5*time.Second, "both replicas rejoined", func() bool { return !both[0].Partitioned() && !both[1].Partitioned() })
			t.Logf("rejoined after %v", time.Since(healed).Round(time.Millisecond))
			if got := acquire(t, both[1], "after", c); got != limit.Requests {
				t.Errorf("Acquire after the outage: got %q, want refusal by requests", got)
			}
			got := view(t, both[1])
			// What the outage admitted is provisional: it may be there still or not.
			between(t, "requests in window", got.RequestsWindow, requests, requests*3/2)
			between(t, "slots", got.Slots, slots-1, slots-1+requests/2)
			between(t, "tokens of the release", got.TokensWindow, 7, 7)
			await(t, 7*time.Second, "provisional leases are gone", func() bool { return totals(t, both[0]).Slots == slots-1 })
		})
	}
}

// TestLocalDecisionsAreBroughtBack follows every kind of state through an outage
// that loses nothing and one that loses all.
func TestLocalDecisionsAreBroughtBack(t *testing.T) {
	for _, name := range []string{"silent", "restarted", "stopped"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t)
			p, both := pair(t, s)
			a, b, ctx := both[0], both[1], t.Context()
			quota := caps(func(c *limit.Caps) { c.Quota = 1000 })
			if err := a.Seed(ctx, "k", "total", 200); err != nil {
				t.Fatal(err)
			}
			admit(t, a, "old", quota)
			reserve(t, a, "old", quota, 100, limit.Admitted)
			spend(t, a, "old", 40)
			admit(t, a, "ends", quota)
			reserve(t, a, "ends", quota, 10, limit.Admitted)
			admit(t, b, "other", quota) // b knows the counter too

			faults[name].fail(s, p)
			admit(t, a, "new", quota)
			reserve(t, a, "new", quota, 30, limit.Admitted)
			spend(t, a, "new", 20)
			spend(t, a, "old", 70)
			release(t, a, "ends", 5)
			if err := a.Renew(ctx, []string{"old", "new"}); err != nil {
				t.Errorf("Renew: %v", err)
			}
			faults[name].heal(s, p)

			awaitShared(t, both)
			want := limit.View{
				KeyID: "k", Slots: 3, Leases: 3, RequestsWindow: 4, TokensWindow: 95, Reserved: 30 + 10,
				QuotaUsed: 295, QuotaHeld: 30 + 10, QuotaPeriod: "total",
			}
			await(t, 5*time.Second, "all is shared", func() bool { return view(t, b) == want && view(t, a) == want })
			release(t, a, "old", 100)
			release(t, a, "new", 100)
			if got := view(t, b); got.TokensWindow != 205 || got.QuotaUsed != 405 || got.Reserved != 0 || got.Slots != 1 {
				t.Errorf("view in the end: %+v", got)
			}
		})
	}
}

// TestABatchThatIsSentTwiceCountsOnce: Redis takes what a replica decided locally, its
// answer is lost, and the replica tells it again.
func TestABatchThatIsSentTwiceCountsOnce(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p, both := pair(t, s)
	a, b := both[0], both[1]
	quota := caps(func(c *limit.Caps) { c.Quota = 1000 })
	if err := a.Seed(t.Context(), "k", "total", 200); err != nil {
		t.Fatal(err)
	}
	admit(t, a, "old", quota)
	admit(t, b, "other", quota) // b knows the counter too

	p.set(0, false, true)
	admit(t, a, "new", quota)
	reserve(t, a, "new", quota, 30, limit.Admitted)
	spend(t, a, "new", 20)
	spend(t, a, "old", 70)
	p.lose(`"windows":[{`) // what join.lua reads
	p.set(0, false, false)

	awaitShared(t, both)
	want := limit.View{
		KeyID: "k", Slots: 3, Leases: 3, RequestsWindow: 3, TokensWindow: 90, Reserved: 10, QuotaUsed: 290, QuotaHeld: 10, QuotaPeriod: "total",
	}
	await(t, 5*time.Second, "all is shared", func() bool { return a.Pending() == 0 && b.Pending() == 0 })
	if got := view(t, b); got != want || p.losses() != 1 {
		t.Errorf("after %d lost answers: got %+v, want %+v", p.losses(), got, want)
	}
}

// TestADebtOutlivesTheLossOfRedis: what was used beyond the limit is owed to a Redis
// that comes back empty, too.
func TestADebtOutlivesTheLossOfRedis(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p, both := pair(t, s)
	a, b := both[0], both[1]
	c := caps(func(c *limit.Caps) { c.Tokens = 100 })
	admit(t, a, "burst", c)
	release(t, a, "burst", 700)
	faults["restarted"].fail(s, p)
	if got := acquire(t, a, "away", c); got != limit.TokensWindow {
		t.Errorf("Acquire while Redis is away: got %q, want a refusal by tokens", got)
	}
	faults["restarted"].heal(s, p)
	awaitShared(t, both)
	await(t, 5*time.Second, "the debt to be known again", func() bool { d := view(t, b).Debt; return d > 500 && d <= 600 })
	if got := acquire(t, b, "after", c); got != limit.TokensWindow {
		t.Errorf("Acquire at the other replica: got %q, want a refusal by tokens", got)
	}
}

// TestQuotaIsSharedOutDuringAnOutage: each of two replicas may spend half of
// what was left.
func TestQuotaIsSharedOutDuringAnOutage(t *testing.T) {
	s := startServer(t)
	p, both := pair(t, s)
	c := caps(func(c *limit.Caps) { c.Quota = 1000 })
	if err := both[0].Seed(t.Context(), "k", "total", 400); err != nil {
		t.Fatal(err)
	}
	for i, r := range both {
		admit(t, r, fmt.Sprint("before-", i), c)
	}
	p.set(0, true, false)
	for i, r := range both {
		admit(t, r, fmt.Sprint("during-", i), c)
		spend(t, r, fmt.Sprint("during-", i), 299)
		if got := acquire(t, r, fmt.Sprint("fits-", i), c); got != limit.Admitted {
			t.Errorf("Acquire below the share: got %q", got)
		}
		spend(t, r, fmt.Sprint("during-", i), 300)
		if got := acquire(t, r, fmt.Sprint("above-", i), c); got != limit.Quota {
			t.Errorf("Acquire above the share: got %q, want refusal by quota", got)
		}
	}
	unknown := c
	unknown.QuotaPeriod = "2026-11"
	_, err := both[0].Acquire(t.Context(), limit.Ask{LeaseID: "x", KeyID: "k", Caps: unknown, Tokens: true})
	if err == nil || !strings.Contains(err.Error(), limit.ErrUnseeded.Error()) {
		t.Errorf("Acquire in an unknown period: got %v, want ErrUnseeded", err)
	}
	p.set(0, false, false)
	await(t, 5*time.Second, "rejoined", func() bool { return !both[0].Partitioned() && !both[1].Partitioned() })
	await(t, time.Second, "all is spent", func() bool { return view(t, both[0]).QuotaUsed == 1000 })
}

// TestALongOutagePilesNothingUp: what came and went in it is of no interest to
// Redis but as use.
func TestALongOutagePilesNothingUp(t *testing.T) {
	s := startServer(t)
	p := startProxy(t, s.address)
	store := openAt(t, p.lis.Addr().String(), redisstore.DefaultTimeout)
	p.set(0, true, false)
	for i := range 500 {
		id := fmt.Sprint(i)
		admit(t, store, id, free)
		if ok, err := store.Release(t.Context(), id, limit.Final{Total: 3, QuotaPeriod: "total"}); !ok || err != nil {
			t.Fatalf("Release: got %v, %v", ok, err)
		}
	}
	if got := store.Pending(); got > 1 { // the one that Redis was asked for
		t.Errorf("leases to tell Redis of: got %d, want 1", got)
	}
	p.set(0, false, false)
	await(t, 5*time.Second, "rejoined", func() bool { return !store.Partitioned() })
	if got := view(t, store); got.RequestsWindow != 500 || got.TokensWindow != 1500 || got.Leases != 0 {
		t.Errorf("view: got %+v, want 500 requests and 1500 tokens", got)
	}
}

// TestAnOutageIsSaidOnceEachWay looks at log and metric.
func TestAnOutageIsSaidOnceEachWay(t *testing.T) {
	s := startServer(t)
	p := startProxy(t, s.address)
	var (
		out bytes.Buffer
		reg = prometheus.NewRegistry()
	)
	store, err := redisstore.Open(t.Context(), redisstore.Options{
		Addresses: []string{p.lis.Addr().String()}, Metrics: redisstore.NewMetrics(reg),
		Log: hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Trace}),
	})
	if err != nil {
		t.Fatal(err)
	}
	gauge := func(want float64) {
		t.Helper()
		text := fmt.Sprintf("# HELP store_partitioned 1 while the shared store cannot be used and limits are kept by this replica's own share.\n"+
			"# TYPE store_partitioned gauge\nstore_partitioned %v\n", want)
		if err := testutil.GatherAndCompare(reg, strings.NewReader(text)); err != nil {
			t.Error(err)
		}
	}
	gauge(0)
	p.set(0, false, true)
	for i := range 50 {
		acquire(t, store, fmt.Sprint(i), free)
	}
	gauge(1)
	p.set(0, false, false)
	await(t, 5*time.Second, "rejoined", func() bool { return !store.Partitioned() })
	gauge(0)
	if err := store.Close(); err != nil { // after this nothing logs
		t.Error(err)
	}
	if got := strings.Count(out.String(), "\n"); got != 2 || !strings.Contains(out.String(), "[WARN]") || !strings.Contains(out.String(), "[INFO]") {
		t.Errorf("log: got %d lines, want one each way:\n%s", got, out.String())
	}
}
