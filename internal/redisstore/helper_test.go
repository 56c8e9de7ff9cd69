package redisstore_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"tollgate/internal/limit"
	"tollgate/internal/redisstore"
)

// free are caps that refuse nothing.
var free = limit.Caps{
	Global: limit.Unlimited, Concurrent: limit.Unlimited, Requests: limit.Unlimited,
	Tokens: limit.Unlimited, Quota: limit.Unlimited, QuotaPeriod: "total",
}

func caps(change func(c *limit.Caps)) limit.Caps {
	c := free
	change(&c)
	return c
}

// ids are unique over all tests' stores.
func acquire(tb testing.TB, s limit.Store, id string, c limit.Caps) limit.Denial {
	tb.Helper()
	d, err := s.Acquire(context.Background(), limit.Ask{LeaseID: id, KeyID: "k", Caps: c, Slot: true, Tokens: true})
	if err != nil {
		tb.Fatalf("Acquire: %v", err)
	}
	return d.Denied
}

// admit acquires and claims.
func admit(tb testing.TB, s limit.Store, id string, c limit.Caps) {
	tb.Helper()
	if got := acquire(tb, s, id, c); got != limit.Admitted {
		tb.Fatalf("Acquire: got %q, want admission", got)
	}
	if err := s.Claim(context.Background(), id); err != nil {
		tb.Fatalf("Claim: %v", err)
	}
}

func totals(tb testing.TB, s limit.Store) limit.Totals {
	tb.Helper()
	got, err := s.Totals(context.Background())
	if err != nil {
		tb.Fatalf("Totals: %v", err)
	}
	return got
}

func view(tb testing.TB, s limit.Store) limit.View {
	tb.Helper()
	got, err := s.Key(context.Background(), "k", free)
	if err != nil {
		tb.Fatalf("Key: %v", err)
	}
	return got
}

// pair opens two replicas that know of each other, through a proxy.
func pair(t *testing.T, s *server) (*proxy, []*redisstore.Store) {
	t.Helper()
	p := startProxy(t, s.address)
	var both []*redisstore.Store
	for range 2 {
		// More than the default, for a machine that runs other tests too.
		both = append(both, openAt(t, p.lis.Addr().String(), 300*time.Millisecond))
	}
	await(t, 10*time.Second, "two replicas", func() bool { return both[0].Replicas() == 2 && both[1].Replicas() == 2 })
	return p, both
}

// useUp is the worst case: one replica has used all of the limit, and holds
// some slots.
func useUp(t *testing.T, s limit.Store, c limit.Caps, requests, slots int) {
	t.Helper()
	for i := range requests {
		id := fmt.Sprint("before-", i)
		admit(t, s, id, c)
		if i < slots {
			continue
		}
		if _, err := s.Release(t.Context(), id, limit.Final{QuotaPeriod: "total"}); err != nil {
			t.Fatalf("Release: %v", err)
		}
	}
}

// awaitShared waits until both replicas are out of an outage. An idle one
// notices it with its next call.
func awaitShared(t *testing.T, both []*redisstore.Store) {
	t.Helper()
	await(t, 6*time.Second, "both replicas rejoined", func() bool {
		for _, r := range both {
			totals(t, r)
		}
		return !both[0].Partitioned() && !both[1].Partitioned()
	})
}

func reserve(tb testing.TB, s limit.Store, id string, c limit.Caps, tokens int64, want limit.Denial) {
	tb.Helper()
	d, err := s.Reserve(context.Background(), id, c, limit.Reservation{Tokens: tokens, Hold: limit.Hold{Output: tokens, Most: tokens}})
	if err != nil || d.Denied != want {
		tb.Fatalf("Reserve: got %q, %v, want %q", d.Denied, err, want)
	}
}

func spend(tb testing.TB, s limit.Store, id string, total int64) {
	tb.Helper()
	if err := s.Spend(context.Background(), []limit.Spend{{LeaseID: id, Total: total, QuotaPeriod: "total"}}); err != nil {
		tb.Fatalf("Spend: %v", err)
	}
}

func release(tb testing.TB, s limit.Store, id string, total int64) {
	tb.Helper()
	if ok, err := s.Release(context.Background(), id, limit.Final{Total: total, QuotaPeriod: "total"}); !ok || err != nil {
		tb.Fatalf("Release %s: got %v, %v", id, ok, err)
	}
}

func between(t *testing.T, what string, got, least, most int64) {
	t.Helper()
	if got < least || got > most {
		t.Errorf("%s: got %d, want %d to %d", what, got, least, most)
	}
}

// hammer asks both replicas at once for a while and returns how often each
// admitted and how long decisions took after the first second.
func hammer(t *testing.T, both []*redisstore.Store, c limit.Caps, phase string, d time.Duration) (admitted []int, took []time.Duration) {
	t.Helper()
	var (
		group sync.WaitGroup
		mu    sync.Mutex
	)
	admitted = make([]int, len(both))
	begun := time.Now()
	for r, s := range both {
		for w := range 4 {
			group.Go(func() {
				pace := time.NewTicker(2 * time.Millisecond)
				defer pace.Stop()
				for i := 0; time.Since(begun) < d; i++ {
					<-pace.C
					at := time.Now()
					ask := limit.Ask{LeaseID: fmt.Sprintf("%s-%d-%d-%d", phase, r, w, i), KeyID: "k", Caps: c, Slot: true}
					got, err := s.Acquire(context.Background(), ask)
					if err != nil {
						t.Errorf("Acquire: %v", err)
					}
					mu.Lock()
					if got.Denied == limit.Admitted {
						admitted[r]++
					}
					if at.Sub(begun) > time.Second {
						took = append(took, time.Since(at))
					}
					mu.Unlock()
					if time.Since(at) > time.Second {
						t.Errorf("a decision took %v", time.Since(at))
					}
				}
			})
		}
	}
	group.Wait()
	slices.Sort(took)
	return admitted, took
}

// quick wants the p99 of promise R5; took is sorted.
func quick(t *testing.T, took []time.Duration) {
	t.Helper()
	p99 := took[len(took)*99/100]
	t.Logf("%d decisions after the first second: p50 %v, p99 %v, most %v", len(took), took[len(took)/2], p99, took[len(took)-1])
	if p99 > 5*time.Millisecond {
		t.Errorf("p99 of decisions after the first second: got %v, want at most 5ms", p99)
	}
}
