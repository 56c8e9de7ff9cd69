package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/limit"
	"tollgate/internal/redisstore"
)

// TestLimitsHoldOverReplicas asks two replicas at once for more than there is.
func TestLimitsHoldOverReplicas(t *testing.T) {
	s := startServer(t)
	both := []*redisstore.Store{s.open(t), s.open(t)}
	c := caps(func(c *limit.Caps) { c.Global, c.Concurrent, c.Requests = 40, 30, 200 })
	var (
		group sync.WaitGroup
		mu    sync.Mutex
		held  int
		most  int
		got   = map[limit.Denial]int{}
	)
	for w := range 16 {
		group.Go(func() {
			r := both[w%2]
			for i := range 60 {
				var mine []string
				for n := range 4 {
					id := fmt.Sprint(w, "-", i, "-", n)
					d := acquire(t, r, id, c)
					mu.Lock()
					got[d]++
					if d == limit.Admitted {
						mine = append(mine, id)
						held++
						most = max(most, held)
					}
					mu.Unlock()
				}
				for _, id := range mine {
					mu.Lock()
					held--
					mu.Unlock()
					if ok, err := r.Release(context.Background(), id, limit.Final{QuotaPeriod: "total"}); !ok || err != nil {
						t.Errorf("Release: got %v, %v", ok, err)
					}
				}
			}
		})
	}
	group.Wait()
	if got[limit.Admitted] != 200 || most > 30 || got[limit.KeySlots] == 0 {
		t.Errorf("got %v with at most %d at once, want 200 admissions, at most 30 at once, and some refused by slots", got, most)
	}
	if got := totals(t, both[0]); got != (limit.Totals{}) {
		t.Errorf("left over: %+v", got)
	}
}

// TestDeadReplicaGivesItsLeasesBack kills a replica and looks at what it held,
// on a clock of its own.
func TestDeadReplicaGivesItsLeasesBack(t *testing.T) {
	s := startServer(t)
	client := s.dial()
	pass := func(d time.Duration) {
		t.Helper()
		if err := client.Do(t.Context(), client.B().Incrby().Key(redisstore.TestClock).Increment(d.Microseconds()).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	pass(time.Duration(time.Now().UnixNano()))
	clocked := func(o *redisstore.Options) { *o = o.WithClock("{tollgate}:") }
	dead, other := s.open(t, clocked), s.open(t, clocked)
	const leases = 1200 // more than one script removes
	c := caps(func(c *limit.Caps) { c.Global = leases })
	for i := range leases {
		admit(t, dead, fmt.Sprint(i), c)
	}
	reserve(t, dead, "0", c, 500, limit.Admitted)
	spend(t, dead, "0", 120)
	pass(10 * time.Second)
	all := make([]string, leases)
	for i := range all {
		all[i] = fmt.Sprint(i)
	}
	if err := dead.Renew(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	dead.Abandon()
	c.Global = 1
	pass(15*time.Second - time.Microsecond)
	if got := acquire(t, other, "early", c); got != limit.GlobalSlots {
		t.Fatalf("Acquire before 15 s: got %q, want refusal", got)
	}
	pass(time.Microsecond)
	if got := acquire(t, other, "in time", c); got != limit.Admitted {
		t.Fatalf("Acquire after 15 s: got %q, want admission", got)
	}
	await(t, 5*time.Second, "all are back", func() bool { return totals(t, other).Leases == 1 })
	want := limit.View{
		KeyID: "k", Slots: 1, Leases: 1, RequestsWindow: leases + 1, TokensWindow: 120, QuotaUsed: -1, QuotaPeriod: "total",
	}
	if diff := cmp.Diff(want, view(t, other)); diff != "" {
		t.Errorf("after the death (-want +got):\n%s", diff)
	}
	if got := totals(t, other); got.Expired != leases {
		t.Errorf("expired: got %d, want %d", got.Expired, leases)
	}
}

// TestOneBeatRemovesAllDeadLeases: a script removes 500 at most, so that no
// decision waits for thousands; the beat of a replica calls it until none is left.
func TestOneBeatRemovesAllDeadLeases(t *testing.T) {
	s := startServer(t)
	client := s.dial()
	pass := func(d time.Duration) {
		t.Helper()
		if err := client.Do(t.Context(), client.B().Incrby().Key(redisstore.TestClock).Increment(d.Microseconds()).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	left := func() int64 { // looks without removing any
		t.Helper()
		n, err := client.Do(t.Context(), client.B().Zcard().Key("{tollgate}:leases").Build()).AsInt64()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	pass(time.Duration(time.Now().UnixNano()))
	clocked := func(o *redisstore.Options) { *o = o.WithClock("{tollgate}:") }
	dead := s.open(t, clocked)
	s.open(t, clocked) // the one that beats
	const leases = 1700
	c := caps(func(c *limit.Caps) { c.Global = leases })
	for i := range leases {
		admit(t, dead, fmt.Sprint(i), c)
	}
	dead.Abandon()
	if n := left(); n != leases {
		t.Fatalf("%d leases, want %d", n, leases)
	}
	pass(20 * time.Second)
	await(t, 20*time.Second, "a beat", func() bool { return left() < leases })
	await(t, redisstore.HeartbeatInterval/2, "none to be left before the next beat", func() bool { return left() == 0 })
}

// TestLiveLeaseOutlivesItsTTL is the same on the server's real clock: a lease
// that the gate renews as it does in service lives on, and ends within 15 s of
// its replica.
func TestLiveLeaseOutlivesItsTTL(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute of real time")
	}
	t.Parallel()
	s := startServer(t)
	dead, other := s.open(t), s.open(t)
	c := caps(func(c *limit.Caps) { c.Global = 1 })
	admit(t, dead, "lease", c)
	begun := time.Now()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for time.Since(begun) < 17*time.Second {
		<-tick.C
		if err := dead.Renew(t.Context(), []string{"lease"}); err != nil {
			t.Fatal(err)
		}
	}
	if got := acquire(t, other, "too-early", c); got != limit.GlobalSlots {
		t.Fatalf("Acquire after 17 s of renewing: got %q, want refusal", got)
	}
	died := time.Now()
	dead.Abandon()
	tries := 0
	await(t, 15*time.Second, "the lease is back", func() bool {
		tries++
		return acquire(t, other, fmt.Sprint("try-", tries), c) == limit.Admitted
	})
	if took := time.Since(died); took < 10*time.Second {
		t.Errorf("the lease was back after %v: it would not survive a pause of its replica", took)
	}
}

// TestLostLeasesAreBroughtBack: a failover may lose the last writes; leases
// with a live stream are put back, released ones are not.
func TestLostLeasesAreBroughtBack(t *testing.T) {
	s := startServer(t)
	store := s.open(t, func(o *redisstore.Options) {
		*o = o.WithClock("{tollgate}:")
	}, func(o *redisstore.Options) { setClock(t, s) })
	admit(t, store, "lost", free)
	admit(t, store, "over", free)
	reserve(t, store, "lost", free, 100, limit.Admitted)
	spend(t, store, "lost", 30)
	if _, err := store.Release(t.Context(), "over", limit.Final{QuotaPeriod: "total"}); err != nil {
		t.Fatal(err)
	}
	client := s.dial()
	for _, key := range []string{"leases", "lease:lost", "key:k", "global"} {
		if err := client.Do(t.Context(), client.B().Del().Key("{tollgate}:"+key).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	if got := totals(t, store).Leases; got != 0 {
		t.Fatalf("leases: got %d, want none", got)
	}
	if err := store.Renew(t.Context(), []string{"lost", "over"}); err != nil {
		t.Fatal(err)
	}
	want := limit.View{KeyID: "k", Slots: 1, Leases: 1, RequestsWindow: 2, TokensWindow: 30, Reserved: 70, QuotaUsed: -1, QuotaPeriod: "total"}
	await(t, 3*time.Second, "the lease is back", func() bool { return view(t, store) == want })
	if store.Partitioned() {
		t.Error("a lost lease is no outage")
	}
}

func setClock(tb testing.TB, s *server) {
	tb.Helper()
	c := s.dial()
	if err := c.Do(context.Background(), c.B().Set().Key(redisstore.TestClock).Value(fmt.Sprint(time.Now().UnixMicro())).Build()).Error(); err != nil {
		tb.Fatal(err)
	}
}

// TestEmptiedServerIsNotBelieved: what a flush or a failover to a blank server
// lost is known to the replicas.
func TestEmptiedServerIsNotBelieved(t *testing.T) {
	s := startServer(t)
	store := s.open(t)
	c := caps(func(c *limit.Caps) { c.Requests = 3 })
	for i := range 3 {
		admit(t, store, fmt.Sprint(i), c)
	}
	client := s.dial()
	if err := client.Do(t.Context(), client.B().Flushall().Build()).Error(); err != nil {
		t.Fatal(err)
	}
	if got := acquire(t, store, "more", c); got != limit.Requests {
		t.Errorf("Acquire: got %q, want refusal by requests", got)
	}
	await(t, 5*time.Second, "rejoined", func() bool { return !store.Partitioned() })
	if got := view(t, store); got.RequestsWindow != 3 || got.Slots != 3 {
		t.Errorf("view: got %+v, want 3 requests and 3 slots", got)
	}
	if got := acquire(t, store, "more", c); got != limit.Requests {
		t.Errorf("Acquire: got %q, want refusal by requests", got)
	}
}

// TestLeaseMayBeClaimedElsewhere: the stream may reach another replica than the
// check did.
func TestLeaseMayBeClaimedElsewhere(t *testing.T) {
	s := startServer(t)
	a, b := s.open(t), s.open(t)
	if got := acquire(t, a, "lease", free); got != limit.Admitted {
		t.Fatal(got)
	}
	if err := b.Claim(t.Context(), "lease"); err != nil {
		t.Fatal(err)
	}
	if err := a.Claim(t.Context(), "lease"); !errors.Is(err, limit.ErrLease) {
		t.Errorf("second Claim: got %v, want ErrLease", err)
	}
	reserve(t, b, "lease", free, 10, limit.Admitted)
	if ok, err := b.Release(t.Context(), "lease", limit.Final{Total: 3, QuotaPeriod: "total"}); !ok || err != nil {
		t.Errorf("Release: got %v, %v", ok, err)
	}
	if got := totals(t, a); got != (limit.Totals{}) {
		t.Errorf("left over: %+v", got)
	}
}

// TestRequestOfAnUnclaimedLeaseIsNotForgotten: Redis takes a lease for unclaimed
// that was claimed while it was away, and gives its request back. The replica
// knows better.
func TestRequestOfAnUnclaimedLeaseIsNotForgotten(t *testing.T) {
	s := startServer(t)
	p := startProxy(t, s.address)
	setClock(t, s)
	store, err := redisstore.Open(t.Context(), redisstore.Options{Addresses: []string{p.lis.Addr().String()}}.WithClock("{tollgate}:"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for _, id := range []string{"lives", "ends"} {
		if got := acquire(t, store, id, free); got != limit.Admitted {
			t.Fatal(got)
		}
	}
	p.set(0, true, false)
	for _, id := range []string{"lives", "ends"} {
		if err := store.Claim(t.Context(), id); err != nil {
			t.Fatalf("Claim: %v", err)
		}
	}
	if ok, err := store.Release(t.Context(), "ends", limit.Final{Total: 5, QuotaPeriod: "total"}); !ok || err != nil {
		t.Fatalf("Release: got %v, %v", ok, err)
	}
	client := s.dial()
	if err := client.Do(t.Context(), client.B().Incrby().Key(redisstore.TestClock).Increment(6e6).Build()).Error(); err != nil {
		t.Fatal(err)
	}
	other := s.open(t, func(o *redisstore.Options) { *o = o.WithClock("{tollgate}:") })
	await(t, time.Second, "the leases expired", func() bool { return totals(t, other).Leases == 0 })
	if got := view(t, other).RequestsWindow; got != 0 {
		t.Fatalf("requests that Redis knows of: got %d, want none", got)
	}
	p.set(0, false, false)
	await(t, 5*time.Second, "rejoined", func() bool { return !store.Partitioned() })
	if got := view(t, other); got.RequestsWindow != 2 || got.Slots != 1 || got.TokensWindow != 5 {
		t.Errorf("view: got %+v, want 2 requests, 1 slot, 5 tokens", got)
	}
}

// TestShareDoesNotGrowWhileReplicasComeBack: a peer that is silent for a moment
// still counts.
func TestShareDoesNotGrowWhileReplicasComeBack(t *testing.T) {
	s := startServer(t)
	p, both := pair(t, s)
	if err := both[1].Close(); err != nil {
		t.Fatal(err)
	}
	p.set(0, false, true)
	acquire(t, both[0], "lease", free)
	p.set(0, false, false)
	await(t, 5*time.Second, "rejoined", func() bool { return !both[0].Partitioned() })
	if got := both[0].Replicas(); got != 2 {
		t.Errorf("replicas right after: got %d, want 2", got)
	}
}
