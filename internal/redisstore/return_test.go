package redisstore_test

import (
	"fmt"
	"testing"
	"time"

	"tollgate/internal/limit"
	"tollgate/internal/redisstore"
)

// TestNobodyDecidesBeforeLiveLeasesAreBack: what expired in Redis during a long
// outage, while its streams lived, is there again before the first shared
// decision of any replica.
func TestNobodyDecidesBeforeLiveLeasesAreBack(t *testing.T) {
	s := startServer(t)
	setClock(t, s)
	var wires []*proxy
	var both []*redisstore.Store
	for range 2 {
		p := startProxy(t, s.address)
		wires = append(wires, p)
		both = append(both, s.open(t, func(o *redisstore.Options) {
			*o = o.WithClock("{tollgate}:")
			o.Addresses, o.Timeout = []string{p.lis.Addr().String()}, 300*time.Millisecond
		}))
	}
	await(t, 10*time.Second, "two replicas", func() bool { return both[0].Replicas() == 2 && both[1].Replicas() == 2 })
	four := caps(func(c *limit.Caps) { c.Concurrent = 4 })
	for i := range 4 {
		admit(t, both[0], fmt.Sprint("first-", i), four)
	}
	for _, p := range wires {
		p.set(0, false, true)
	}
	if got := acquire(t, both[0], "none", four); got != limit.KeySlots {
		t.Errorf("a replica that holds all: got %q", got)
	}
	for i := range 2 {
		admit(t, both[1], fmt.Sprint("second-", i), four)
	}

	client := s.dial()
	later := fmt.Sprint(time.Now().Add(30 * time.Second).UnixMicro())
	if err := client.Do(t.Context(), client.B().Set().Key(redisstore.TestClock).Value(later).Build()).Error(); err != nil {
		t.Fatal(err)
	}
	wires[1].set(0, false, false)
	await(t, 4*time.Second, "the second replica finds Redis", func() bool {
		n, err := client.Do(t.Context(), client.B().Zcount().Key("{tollgate}:replicas").Min(later).Max("+inf").Build()).AsInt64()
		return err == nil && n == 1
	})
	if !both[1].Partitioned() {
		t.Error("the second replica decides with a Redis that does not know of the first one's leases")
	}
	wires[0].set(0, false, false)
	await(t, 5*time.Second, "both are back", func() bool { return !both[0].Partitioned() && !both[1].Partitioned() })
	for _, store := range both {
		if got := view(t, store).Slots; got != 6 {
			t.Errorf("live leases after the outage: got %d, want 6", got)
		}
		if got := acquire(t, store, "over", four); got != limit.KeySlots {
			t.Errorf("beyond the limit after the outage: got %q", got)
		}
	}
}

// TestALostQuotaIsWhatTheBestInformedReplicaKnew: no use is forgotten,
// whichever replica starts the counter again in a Redis that was emptied.
func TestALostQuotaIsWhatTheBestInformedReplicaKnew(t *testing.T) {
	s := startServer(t)
	var wires []*proxy
	var both []*redisstore.Store
	for range 2 {
		wires = append(wires, startProxy(t, s.address))
		both = append(both, openAt(t, wires[len(wires)-1].lis.Addr().String(), 300*time.Millisecond))
	}
	await(t, 10*time.Second, "two replicas", func() bool { return both[0].Replicas() == 2 && both[1].Replicas() == 2 })
	quota := caps(func(c *limit.Caps) { c.Quota = 10_000 })
	if err := both[0].Seed(t.Context(), "k", "total", 100); err != nil {
		t.Fatal(err)
	}
	use := func(store *redisstore.Store, id string, tokens int64) {
		t.Helper()
		admit(t, store, id, quota)
		if _, err := store.Release(t.Context(), id, limit.Final{Total: tokens, QuotaPeriod: "total"}); err != nil {
			t.Fatal(err)
		}
	}
	use(both[0], "seen", 10)
	use(both[1], "unseen", 500)

	for _, p := range wires {
		p.set(0, false, true)
	}
	use(both[0], "local-0", 7)
	use(both[1], "local-1", 8)
	s.kill()
	s.start()
	client := s.dial()
	wires[0].set(0, false, false)
	await(t, 4*time.Second, "the ill-informed one starts the counter", func() bool {
		used, err := client.Do(t.Context(), client.B().Hget().Key("{tollgate}:quota:k").Field("u:total").Build()).AsInt64()
		return err == nil && used == 117
	})
	wires[1].set(0, false, false)
	await(t, 5*time.Second, "both are back", func() bool { return !both[0].Partitioned() && !both[1].Partitioned() })
	use(both[0], "after", 1)
	for _, store := range both {
		got, err := store.Key(t.Context(), "k", quota)
		if err != nil || got.QuotaUsed != 626 {
			t.Errorf("quota used: got %d, %v, want 100+10+500+7+8+1", got.QuotaUsed, err)
		}
	}
}
