package redisstore_test

import (
	"testing"
	"time"

	"tollgate/internal/limit"
)

// TestAnotherReplicaTakesARequestOver: with Redis there, and with Redis away, what a
// request holds is counted once, whichever replica owns it.
func TestAnotherReplicaTakesARequestOver(t *testing.T) {
	for _, away := range []bool{false, true} {
		name := "shared"
		if away {
			name = "away"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t)
			p, both := pair(t, s)
			a, b := both[0], both[1]
			c := caps(func(c *limit.Caps) { c.Quota = 1000 })
			if err := a.Seed(t.Context(), "k", "total", 0); err != nil {
				t.Fatal(err)
			}
			admit(t, b, "other", c) // b knows the counter
			admit(t, a, "moves", c)
			reserve(t, a, "moves", c, 100, limit.Admitted)
			spend(t, a, "moves", 40)

			if away {
				p.set(0, true, false)
			}
			hold := limit.Reservation{Tokens: 100, Slots: 1, Hold: limit.Hold{Output: 100, Most: 100}}
			for range 2 {
				if err := b.Adopt(t.Context(), "moves", "k", c, hold, 40); err != nil {
					t.Fatal(err)
				}
			}
			spend(t, b, "moves", 70)
			if away {
				p.set(0, false, false)
				awaitShared(t, both)
			}
			want := limit.View{
				KeyID: "k", Slots: 2, Leases: 2, RequestsWindow: 2, TokensWindow: 70, Reserved: 30, QuotaUsed: 70, QuotaHeld: 30, QuotaPeriod: "total",
			}
			await(t, 5*time.Second, "all is shared", func() bool { return b.Pending() == 0 })
			if got := view(t, a); got != want {
				t.Errorf("while it runs: got %+v, want %+v", got, want)
			}
			release(t, b, "moves", 90)
			want.Slots, want.Leases, want.TokensWindow, want.Reserved, want.QuotaUsed, want.QuotaHeld = 1, 1, 90, 0, 90, 0
			if got := view(t, a); got != want {
				t.Errorf("in the end: got %+v, want %+v", got, want)
			}
		})
	}
}

// TestALostLeaseIsTakenOver: the replica that held it is gone for longer than its
// leases live.
func TestALostLeaseIsTakenOver(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	a, b := s.open(t), s.open(t)
	admit(t, a, "moves", free)
	reserve(t, a, "moves", free, 100, limit.Admitted)
	spend(t, a, "moves", 40)
	client := s.dial()
	for _, cmd := range []string{"{tollgate}:lease:moves", "{tollgate}:key:k", "{tollgate}:leases", "{tollgate}:global"} {
		if err := client.Do(t.Context(), client.B().Del().Key(cmd).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Adopt(t.Context(), "moves", "k", free, limit.Reservation{Tokens: 100}, 40); err != nil {
		t.Fatal(err)
	}
	release(t, b, "moves", 50)
	if got := view(t, b); got.TokensWindow != 50 || got.RequestsWindow != 1 || got.Leases != 0 || got.Reserved != 0 {
		t.Errorf("in the end: got %+v, want the 40 tokens from before and 10", got)
	}
}
