package redisstore_test

import (
	"errors"
	"testing"
	"time"

	"tollgate/internal/limit"
	"tollgate/internal/redisstore"
)

// TestAnyReplicaClaimsATicket: one replica acquires, another claims; Redis is there
// for both, away for both, or was away for the one that acquired.
func TestAnyReplicaClaimsATicket(t *testing.T) { //nolint:gocyclo // one story, told in order
	for _, name := range []string{"shared", "away", "away at the origin"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t)
			ways := []*proxy{startProxy(t, s.address), startProxy(t, s.address)}
			var both []*redisstore.Store
			for _, p := range ways {
				both = append(both, openAt(t, p.lis.Addr().String(), 300*time.Millisecond))
			}
			await(t, 10*time.Second, "two replicas", func() bool { return both[0].Replicas() == 2 && both[1].Replicas() == 2 })
			origin, holder := both[0], both[1]
			if name == "away at the origin" {
				ways[0].set(0, true, false)
			}
			if got := acquire(t, origin, "ticket", free); got != limit.Admitted {
				t.Fatalf("Acquire: got %q", got)
			}
			if name == "away" {
				ways[0].set(0, true, false)
				ways[1].set(0, true, false)
			}
			ask := limit.Ask{LeaseID: "ticket", KeyID: "k", Caps: free, Slot: true, Tokens: true}
			if err := holder.ClaimForeign(t.Context(), ask); err != nil {
				t.Fatalf("ClaimForeign: %v", err)
			}
			if err := holder.ClaimForeign(t.Context(), ask); !errors.Is(err, limit.ErrLease) {
				t.Errorf("ClaimForeign again: got %v, want ErrLease", err)
			}
			if name == "shared" {
				if lapsed, err := origin.Lapse(t.Context(), "ticket", limit.Final{GiveBackRequest: true}); lapsed || err != nil {
					t.Errorf("Lapse at the origin: got %v, %v, want false", lapsed, err)
				}
			}
			reserve(t, holder, "ticket", free, 100, limit.Admitted)
			spend(t, holder, "ticket", 40)
			for _, p := range ways {
				p.set(0, false, false)
			}
			awaitShared(t, both)
			want := limit.View{
				KeyID: "k", Slots: 1, Leases: 1, RequestsWindow: 1, TokensWindow: 40, Reserved: 60, QuotaUsed: -1, QuotaPeriod: "total",
			}
			await(t, 5*time.Second, "all is shared", func() bool { return holder.Pending()+origin.Pending() == 0 })
			if got := view(t, origin); got != want {
				t.Errorf("while it runs: got %+v, want %+v", got, want)
			}
			<-time.After(limit.ProvisionalLife + time.Second) // the origin has given its ticket up
			if err := holder.Renew(t.Context(), []string{"ticket"}); err != nil {
				t.Errorf("Renew: %v", err)
			}
			if got := view(t, origin); got != want {
				t.Errorf("after the origin has forgotten it: got %+v, want %+v", got, want)
			}
			release(t, holder, "ticket", 90)
			want.Slots, want.Leases, want.TokensWindow, want.Reserved = 0, 0, 90, 0
			if got := view(t, origin); got != want {
				t.Errorf("in the end: got %+v, want %+v", got, want)
			}
		})
	}
}
