package storetest

import (
	"errors"
	"math"
	"time"

	"pgregory.net/rapid"

	"tollgate/internal/limit"
)

var adoptRules = []limitsRule{
	{"a request that runs is taken over whatever the limits are", func(r *limitsRig) {
		c := caps(func(c *limit.Caps) { c.Global, c.Concurrent, c.Requests, c.Tokens, c.Quota = 1, 1, 2, 100, 1000 })
		r.seed("k", period, 900)
		first := r.admit("k", c)
		r.reserve(first, c, 100, limit.Admitted)
		id := r.newID()
		hold := limit.Reservation{Tokens: 80, Slots: 3, Hold: limit.Hold{Prompt: 10, Output: 290, Most: 300}}
		r.adopt(id, "k", c, hold, 40)
		v := r.view("k")
		r.equal("slots", v.Slots, 2) // of three, all that its key may have at once
		r.equal("leases", v.Leases, 2)
		r.equal("reserved", v.Reserved, 140)
		r.equal("held of the quota", v.QuotaHeld, 360)
		r.equal("slots of the gateway", r.totals().Slots, 2)
		r.equal("requests: the one that came here", v.RequestsWindow, 1)
		r.equal("tokens: what it spent was counted where it was spent", v.TokensWindow, 0)
		r.equal("quota, likewise", v.QuotaUsed, 900)
		r.release(first, 0)
		r.refuse("k", c, limit.GlobalSlots)

		r.spend(id, 60)
		r.equal("tokens of its growth", r.view("k").TokensWindow, 20)
		r.equal("quota of its growth", r.view("k").QuotaUsed, 920)
		r.equal("reserved after it", r.view("k").Reserved, 20)
		r.release(id, 90)
		r.equal("tokens in the end", r.view("k").TokensWindow, 50)
		r.equal("quota in the end", r.view("k").QuotaUsed, 950)
		v = r.view("k")
		r.equal("left over", v.Slots+v.Leases+v.Reserved+v.QuotaHeld+r.totals().Slots+r.totals().Reserved, 0)
	}},
	{"taking over again changes nothing", func(r *limitsRig) {
		c := caps(func(c *limit.Caps) { c.Tokens, c.Quota = 1000, 1000 })
		r.seed("k", period, 0)
		hold := limit.Reservation{Tokens: 100, Slots: 2, Hold: limit.Hold{Output: 100, Most: 100}}
		id := r.newID()
		for range 3 {
			r.adopt(id, "k", c, hold, 30)
		}
		r.adopt(id, "k", c, limit.Reservation{Tokens: 5000, Slots: 9, Hold: limit.Hold{Output: 500, Most: 500}}, 20)
		v := r.view("k")
		r.equal("slots", v.Slots, 2)
		r.equal("reserved", v.Reserved, 70)
		r.equal("held", v.QuotaHeld, 70)
		r.equal("tokens", v.TokensWindow, 0)
	}},
	{"a live lease keeps its reservation and counts what it did not know of", func(r *limitsRig) {
		c := caps(func(c *limit.Caps) { c.Tokens, c.Quota = 1000, 1000 })
		r.seed("k", period, 0)
		id := r.admit("k", c)
		r.reserve(id, c, 100, limit.Admitted)
		r.spend(id, 10)
		r.adopt(id, "k", c, limit.Reservation{Tokens: 700, Slots: 5}, 45)
		v := r.view("k")
		r.equal("slots", v.Slots, 1)
		r.equal("requests", v.RequestsWindow, 1)
		r.equal("reserved", v.Reserved, 55)
		r.equal("tokens", v.TokensWindow, 45)
		r.equal("quota", v.QuotaUsed, 45)
		r.release(id, 45)
	}},
	{"what is taken over is claimed, and lives", func(r *limitsRig) {
		provisional, unknown := r.provisional("k", unlimited()), r.newID()
		for _, id := range []string{provisional, unknown} {
			r.adopt(id, "k", unlimited(), limit.Reservation{Tokens: 9}, 0)
			if err := r.store.Claim(r.ctx, id); !errors.Is(err, limit.ErrLease) {
				r.t.Errorf("Claim: got %v, want ErrLease", err)
			}
			if _, err := r.store.Reserve(r.ctx, id, unlimited(), whole(9)); !errors.Is(err, limit.ErrLease) {
				r.t.Errorf("Reserve: got %v, want ErrLease", err)
			}
		}
		r.pass(20 * time.Second)
		r.equal("leases", r.view("k").Leases, 2)
		r.equal("reserved", r.view("k").Reserved, 18)
	}},
	{"a lease is taken over for its own key only", func(r *limitsRig) {
		id := r.admit("k", unlimited())
		err := r.store.Adopt(r.ctx, id, "other", unlimited(), limit.Reservation{Tokens: 9}, 0)
		if !errors.Is(err, limit.ErrLease) {
			r.t.Errorf("Adopt: got %v, want ErrLease", err)
		}
		r.equal("leases of the other", r.view("other").Leases, 0)
		r.equal("reserved", r.view("k").Reserved, 0)
	}},
	{"a quota that nobody has loaded keeps no request out", func(r *limitsRig) {
		c := quotaCaps(100)
		id := r.newID()
		r.adopt(id, "k", c, limit.Reservation{Hold: limit.Hold{Output: 50, Most: 50}}, 20)
		r.equal("held", r.view("k").QuotaHeld, 30)
		r.seed("k", period, 20)
		r.extend(id, c, 60, 100) // 20 of its own and all that is left
		r.release(id, 60)
		r.equal("quota", r.view("k").QuotaUsed, 60)
	}},
	{"below what was spent before it only gives back its own", func(r *limitsRig) {
		r.use(70)
		id := r.newID()
		r.adopt(id, "k", unlimited(), limit.Reservation{}, 40)
		r.end(id, limit.Final{Total: 10, QuotaPeriod: period, GiveBackRequest: true})
		r.equal("tokens", r.view("k").TokensWindow, 70)
		r.equal("requests", r.view("k").RequestsWindow, 1)
	}},
	{"absurd numbers do not overflow", func(r *limitsRig) {
		id := r.newID()
		most := int64(math.MaxInt64)
		r.adopt(id, "k", quotaCaps(most), limit.Reservation{
			Tokens: most, Slots: most, Hold: limit.Hold{Prompt: most, Output: most, Most: most},
		}, most)
		r.adopt(id, "k", unlimited(), limit.Reservation{Tokens: -1, Slots: -1}, -1)
		r.release(id, 0)
		v := r.view("k")
		r.equal("left over", v.Slots+v.Reserved+v.QuotaHeld+v.TokensWindow, 0)
	}},
}

var foreignRules = []limitsRule{
	{"the ticket of another process is claimed once", func(r *limitsRig) {
		full := caps(func(c *limit.Caps) { c.Global = 1 })
		r.admit("k", full)
		for range 2 { // one that is unknown, and one that is waiting
			ask := limit.Ask{LeaseID: r.newID(), KeyID: "k", Caps: full, Slot: true, Tokens: true}
			r.claimForeign(ask)
			for name, err := range map[string]error{
				"ClaimForeign": r.store.ClaimForeign(r.ctx, ask), "Claim": r.store.Claim(r.ctx, ask.LeaseID),
			} {
				if !errors.Is(err, limit.ErrLease) {
					r.t.Errorf("%s again: got %v, want ErrLease", name, err)
				}
			}
		}
		waiting := r.provisional("k", unlimited())
		r.claimForeign(limit.Ask{LeaseID: waiting, KeyID: "k", Slot: true})
		v := r.view("k")
		r.equal("slots", v.Slots, 4)
		r.equal("requests: those that came here", v.RequestsWindow, 2)
		r.pass(2 * limit.ProvisionalLife)
		r.equal("leases that live", r.view("k").Leases, 4)
	}},
	{"what was claimed from elsewhere reserves, spends and ends", func(r *limitsRig) {
		c := tokenCaps(100)
		ask := limit.Ask{LeaseID: r.newID(), KeyID: "k", Caps: c, Slot: true, Tokens: true}
		r.claimForeign(ask)
		r.reserve(ask.LeaseID, c, 60, limit.Admitted)
		r.spend(ask.LeaseID, 20)
		r.equal("reserved", r.view("k").Reserved, 40)
		r.release(ask.LeaseID, 30)
		v := r.view("k")
		r.equal("tokens", v.TokensWindow, 30)
		r.equal("left over", v.Slots+v.Leases+v.Reserved+r.totals().Slots, 0)
	}},
	{"a ticket of one key opens no lease of another", func(r *limitsRig) {
		id := r.provisional("k", unlimited())
		if err := r.store.ClaimForeign(r.ctx, limit.Ask{LeaseID: id, KeyID: "other"}); !errors.Is(err, limit.ErrLease) {
			r.t.Errorf("ClaimForeign: got %v, want ErrLease", err)
		}
		r.equal("leases of the other", r.view("other").Leases, 0)
	}},
	{"only what nobody has claimed lapses", func(r *limitsRig) {
		final := limit.Final{QuotaPeriod: period, GiveBackRequest: true}
		waiting, claimed := r.provisional("k", unlimited()), r.admit("k", unlimited())
		for id, want := range map[string]bool{waiting: true, claimed: false, "unknown": false} {
			for range 2 {
				if got, err := r.store.Lapse(r.ctx, id, final); got != want || err != nil {
					r.t.Errorf("Lapse %s: got %v, %v, want %v", id, got, err, want)
				}
				want = false
			}
		}
		v := r.view("k")
		r.equal("slots", v.Slots, 1)
		r.equal("requests", v.RequestsWindow, 1)
		r.equal("expired", int64(r.totals().Expired), 0)
	}},
}

// claimForeign claims the ticket of another process.
func (r *limitsRig) claimForeign(ask limit.Ask) {
	r.t.Helper()
	if err := r.store.ClaimForeign(r.ctx, ask); err != nil {
		r.t.Fatalf("ClaimForeign: %v", err)
	}
	r.live = append(r.live, ask.LeaseID)
}

// adopt takes over a request.
func (r *limitsRig) adopt(id, key string, c limit.Caps, reserved limit.Reservation, spent int64) {
	r.t.Helper()
	if err := r.store.Adopt(r.ctx, id, key, c, reserved, spent); err != nil {
		r.t.Fatalf("Adopt: %v", err)
	}
	r.live = append(r.live, id)
}

// adoptSome takes over a live lease, or one that the store does not know.
func (m *limitsModel) adoptSome(t *rapid.T) {
	l := &modelLease{key: rapid.SampledFrom(m.keys).Draw(t, "key"), granted: limit.Unlimited}
	known := len(m.leases) > 0 && rapid.Bool().Draw(t, "known")
	if known {
		l = m.pick(t)
	} else {
		l.id = m.newID()
	}
	r, spent := m.drawReservation(t), rapid.Int64Range(0, 300).Draw(t, "spent")
	m.adopt(l.id, l.key.id, m.caps, r, spent)
	l.key.debt.under(m.caps.Tokens, m.now)
	l.claimed = true
	if !known {
		l.total, l.slots, l.wide = spent, 1, 1
		m.leases = append(m.leases, l)
	}
	m.grow(l, spent-l.total)
	if l.hasReserved {
		return
	}
	own, wide := m.moreSlots(l, r)
	l.slots, l.wide = l.slots+own, l.wide+wide
	l.hasReserved, l.reserved = true, max(0, r.Tokens-l.total)
	if m.caps.Quota >= 0 {
		all := r.Hold.Prompt + min(r.Hold.Most, max(r.Hold.Output, r.Hold.Least))
		l.held = max(0, all-l.total)
		l.granted = l.total + l.held
	}
}
