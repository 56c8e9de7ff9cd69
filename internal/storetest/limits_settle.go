package storetest

import (
	"errors"
	"math"
	"strconv"
	"time"

	"tollgate/internal/limit"
)

var tokenRules = []limitsRule{
	{"reservations and use stay within the limit", func(r *limitsRig) {
		c := tokenCaps(100)
		r.use(40)
		first, second := r.admit("k", c), r.admit("k", c)
		r.reserve(first, c, 50, limit.Admitted)
		if d := r.reserve(second, c, 11, limit.TokensWindow); d.RetryAfter != time.Second {
			r.t.Errorf("retry after behind a reservation: got %v, want 1s", d.RetryAfter)
		}
		r.equal("reserved", r.view("k").Reserved, 50)
		r.reserve(second, c, 10, limit.Admitted)
		r.refuse("k", c, limit.TokensWindow)
		r.equal("reserved in all", r.totals().Reserved, 60)
	}},
	{"a request above the limit passes on an empty window only", func(r *limitsRig) {
		c := tokenCaps(100)
		first, second := r.admit("k", c), r.admit("k", c)
		r.reserve(first, c, 5000, limit.Admitted)
		r.reserve(second, c, 1, limit.TokensWindow)
		r.release(first, 1)
		d := r.reserve(second, c, 5000, limit.TokensWindow)
		r.within("retry after", d.RetryAfter, limit.Window)
		r.pass(d.RetryAfter)
		r.reserve(second, c, 5000, limit.Admitted)
	}},
	{"a lease reserves once", func(r *limitsRig) {
		c := tokenCaps(100)
		id := r.admit("k", c)
		r.reserve(id, c, 10, limit.Admitted)
		for _, again := range []string{id, "unknown"} {
			if _, err := r.store.Reserve(r.ctx, again, c, whole(10)); !errors.Is(err, limit.ErrLease) {
				r.t.Errorf("Reserve %q: got %v, want ErrLease", again, err)
			}
		}
		r.equal("reserved", r.view("k").Reserved, 10)
	}},
	{"a refused reservation leaves the lease", func(r *limitsRig) {
		c := tokenCaps(100)
		r.use(95)
		id := r.admit("k", c)
		r.reserve(id, c, 10, limit.TokensWindow)
		r.equal("reserved", r.view("k").Reserved, 0)
		r.equal("slots", r.view("k").Slots, 1)
		r.reserve(id, c, 5, limit.Admitted)
	}},
	{"a limit of zero lets nothing pass", func(r *limitsRig) {
		if d := r.refuse("k", tokenCaps(0), limit.TokensWindow); d.RetryAfter <= 0 {
			r.t.Errorf("retry after: got %v, want more than 0", d.RetryAfter)
		}
		id := r.admit("k", unlimited())
		r.reserve(id, tokenCaps(0), 0, limit.TokensWindow)
		r.reserve(id, quotaCaps(0), 0, limit.Quota)
	}},
	{"used tokens slide out", func(r *limitsRig) {
		c := tokenCaps(100)
		for range 4 {
			r.use(25)
			r.pass(10 * time.Second)
		}
		d := r.refuse("k", c, limit.TokensWindow)
		r.within("retry after", d.RetryAfter, 20*time.Second)
		id := r.admit("k", unlimited())
		r.within("retry after for 26", r.reserve(id, c, 26, limit.TokensWindow).RetryAfter, 30*time.Second)
		r.within("retry after for 75", r.reserve(id, c, 75, limit.TokensWindow).RetryAfter, 40*time.Second)
		r.within("retry after for 76", r.reserve(id, c, 76, limit.TokensWindow).RetryAfter, 50*time.Second)
		r.pass(19 * time.Second)
		r.reserve(id, c, 25, limit.TokensWindow)
		r.pass(d.RetryAfter - 19*time.Second)
		r.reserve(id, c, 25, limit.Admitted)
	}},
	{"debt is waited out", func(r *limitsRig) {
		c := tokenCaps(100)
		r.use(350)
		r.pass(30 * time.Second)
		r.use(90)
		d := r.refuse("k", c, limit.TokensWindow)
		r.within("retry after", d.RetryAfter, 30*time.Second)
		r.pass(d.RetryAfter)
		id := r.admit("k", c)
		r.within("retry after for 11", r.reserve(id, c, 11, limit.TokensWindow).RetryAfter, 29*time.Second)
		r.reserve(id, c, 10, limit.Admitted)
	}},
	{"absurd numbers do not overflow", func(r *limitsRig) {
		c := tokenCaps(math.MaxInt64)
		first, second := r.admit("k", c), r.admit("k", c)
		r.reserve(first, c, math.MaxInt64, limit.Admitted)
		r.reserve(second, tokenCaps(100), math.MaxInt64, limit.TokensWindow)
		r.spend(first, math.MaxInt64)
		r.release(first, -5)
		r.reserve(second, c, -7, limit.Admitted)
		v := r.view("k")
		r.equal("reserved", v.Reserved, 0)
		r.equal("tokens", v.TokensWindow, 0)
	}},
}

var settleRules = []limitsRule{
	{"running use moves out of the reservation", func(r *limitsRig) {
		id := r.admit("k", unlimited())
		r.reserve(id, unlimited(), 100, limit.Admitted)
		for _, step := range []struct{ total, used, reserved int64 }{
			{30, 30, 70}, {30, 30, 70}, {20, 30, 70}, {90, 90, 10}, {130, 130, 0},
		} {
			r.spend(id, step.total)
			r.equal("tokens", r.view("k").TokensWindow, step.used)
			r.equal("reserved", r.view("k").Reserved, step.reserved)
			r.equal("reserved in all", r.totals().Reserved, step.reserved)
		}
	}},
	{"unknown leases are skipped in a batch", func(r *limitsRig) {
		id := r.admit("k", unlimited())
		err := r.store.Spend(r.ctx, []limit.Spend{{LeaseID: "unknown", Total: 5}, {LeaseID: id, Total: 7}})
		if err != nil {
			r.t.Fatalf("Spend: %v", err)
		}
		r.equal("tokens", r.view("k").TokensWindow, 7)
	}},
	{"a long stream is spread over its minutes", func(r *limitsRig) {
		id := r.admit("k", unlimited())
		for i := range int64(600) {
			r.spend(id, (i+1)*10)
			if used := r.view("k").TokensWindow; i > 61 && (used < 600 || used > 610) {
				r.t.Fatalf("tokens in window after %d s: got %d, want 600 to 610", i, used)
			}
			r.pass(time.Second)
		}
		r.release(id, 6000)
		r.pass(limit.Window + time.Second)
		r.equal("tokens", r.view("k").TokensWindow, 0)
	}},
	{"giving back takes nothing of what was restored", func(r *limitsRig) {
		// At ten places within a second, because a store may count in whole ones:
		// what was used is just out of the window, and what is restored just in
		// it, not half a second later.
		for i := range 10 {
			key := "k" + strconv.Itoa(i)
			id := r.admit(key, unlimited())
			r.spend(id, 300)
			r.pass(limit.Window + 10*time.Millisecond)
			r.equal("tokens that are too old", r.view(key).TokensWindow, 0)
			if err := r.store.Restore(r.ctx, key, limit.Window-100*time.Millisecond, 5, 3); err != nil {
				r.t.Fatalf("Restore: %v", err)
			}
			r.end(id, limit.Final{Total: 20, QuotaPeriod: period, GiveBackRequest: true})
			r.equal("tokens", r.view(key).TokensWindow, 5)
			r.equal("requests", r.view(key).RequestsWindow, 3)
			r.pass(1100 * time.Millisecond)
			r.equal("tokens in the end", r.view(key).TokensWindow, 0)
		}
	}},
	{"the end settles to the real count", func(r *limitsRig) {
		for _, total := range []int64{0, 40, 100, 250} {
			id := r.admit("k", unlimited())
			r.reserve(id, unlimited(), 100, limit.Admitted)
			r.spend(id, 20)
			r.release(id, total)
			v := r.view("k")
			r.equal("tokens", v.TokensWindow, total)
			r.equal("reserved", v.Reserved, 0)
			r.pass(limit.Window + time.Second)
		}
	}},
	{"an estimate that was too high comes back, in window and quota", func(r *limitsRig) {
		r.seed("k", period, 1000)
		id := r.admit("k", unlimited())
		r.spend(id, 60)
		r.pass(2 * time.Second)
		r.spend(id, 100)
		r.release(id, 30)
		r.equal("tokens", r.view("k").TokensWindow, 30)
		r.equal("quota", r.view("k").QuotaUsed, 1030)
	}},
	{"only a lease's own share comes back", func(r *limitsRig) {
		id := r.admit("k", unlimited())
		r.spend(id, 100)
		r.pass(limit.Window + 2*time.Second)
		r.use(70)
		r.release(id, 10)
		r.equal("tokens", r.view("k").TokensWindow, 70)
	}},
	{"a tokenless request leaves no tokens", func(r *limitsRig) {
		id := r.admit("k", unlimited())
		r.reserve(id, unlimited(), 10, limit.Admitted)
		r.release(id, 0)
		r.equal("tokens", r.view("k").TokensWindow, 0)
		r.equal("reserved", r.totals().Reserved, 0)
	}},
}

var quotaRules = []limitsRule{
	{"an unknown counter is asked for and nothing is taken", func(r *limitsRig) {
		c := quotaCaps(100)
		for range 2 {
			if _, _, err := r.try("k", c); !errors.Is(err, limit.ErrUnseeded) {
				r.t.Fatalf("Acquire: got %v, want ErrUnseeded", err)
			}
		}
		if got := r.totals(); got != (limit.Totals{}) {
			r.t.Errorf("totals: got %+v, want none", got)
		}
		r.equal("requests", r.view("k").RequestsWindow, 0)
		r.seed("k", period, 99)
		r.admit("k", c)
	}},
	{"a seed does not change a counter that is known", func(r *limitsRig) {
		r.seed("k", period, 10)
		r.seed("k", "another", 1)
		r.use(5)
		for range 5 {
			r.seed("k", period, 10)
		}
		r.equal("quota", r.view("k").QuotaUsed, 15)
		r.equal("quota of another period", r.viewIn("k", "another").QuotaUsed, 1)
	}},
	{"the last request may overrun and then it is spent", func(r *limitsRig) {
		c := quotaCaps(100)
		r.seed("k", period, 90)
		id := r.admit("k", c)
		r.reserve(id, c, 500, limit.Admitted)
		r.refuse("k", c, limit.Quota)
		r.release(id, 500)
		if d := r.refuse("k", c, limit.Quota); d.RetryAfter != 0 {
			r.t.Errorf("retry after: got %v, want 0", d.RetryAfter)
		}
		r.equal("quota", r.view("k").QuotaUsed, 590)
	}},
	{"reservations count until they vanish", func(r *limitsRig) {
		c := quotaCaps(100)
		r.seed("k", period, 0)
		first, second := r.admit("k", c), r.admit("k", c)
		r.reserve(first, c, 100, limit.Admitted)
		if d := r.reserve(second, c, 1, limit.Quota); d.RetryAfter != time.Second {
			r.t.Errorf("retry after behind a reservation: got %v, want 1s", d.RetryAfter)
		}
		r.release(first, 99)
		r.reserve(second, c, 1, limit.Admitted)
	}},
	{"a quota does not slide", func(r *limitsRig) {
		c := quotaCaps(100)
		r.seed("k", period, 0)
		r.use(100)
		r.pass(3 * time.Minute)
		// A store may have forgotten an idle key; then it says so.
		if _, d, err := r.try("k", c); !errors.Is(err, limit.ErrUnseeded) && d.Denied != limit.Quota {
			r.t.Errorf("Acquire: got %q, %v, want refusal by quota", d.Denied, err)
		}
	}},
	{"a new period starts anew, live requests included", func(r *limitsRig) {
		monday := caps(func(c *limit.Caps) { c.Quota, c.QuotaPeriod = 100, "2026-11-23" })
		tuesday := caps(func(c *limit.Caps) { c.Quota, c.QuotaPeriod = 100, "2026-11-24" })
		r.seed("k", monday.QuotaPeriod, 0)
		id := r.admit("k", monday)
		late := r.admit("k", monday)
		spend := func(total int64, period string) {
			r.t.Helper()
			batch := []limit.Spend{{LeaseID: id, Total: total, QuotaPeriod: period}}
			if err := r.store.Spend(r.ctx, batch); err != nil {
				r.t.Fatalf("Spend: %v", err)
			}
		}
		spend(100, monday.QuotaPeriod)
		r.refuse("k", monday, limit.Quota)
		if _, err := r.store.Reserve(r.ctx, late, tuesday, whole(5)); !errors.Is(err, limit.ErrUnseeded) {
			r.t.Fatalf("Reserve: got %v, want ErrUnseeded", err)
		}
		r.seed("k", tuesday.QuotaPeriod, 0)
		r.reserve(late, tuesday, 5, limit.Admitted)
		spend(130, tuesday.QuotaPeriod)
		r.equal("monday", r.viewIn("k", monday.QuotaPeriod).QuotaUsed, 100)
		r.equal("tuesday", r.viewIn("k", tuesday.QuotaPeriod).QuotaUsed, 30)

		r.end(id, limit.Final{Total: 90, QuotaPeriod: tuesday.QuotaPeriod})
		r.equal("monday after correction", r.viewIn("k", monday.QuotaPeriod).QuotaUsed, 90)
		r.equal("tuesday after correction", r.viewIn("k", tuesday.QuotaPeriod).QuotaUsed, 0)
	}},
	{"what asks for no tokens needs no counter", func(r *limitsRig) {
		ask := limit.Ask{LeaseID: "x", KeyID: "k", Caps: quotaCaps(10), Slot: true}
		if d, err := r.store.Acquire(r.ctx, ask); err != nil || d.Denied != limit.Admitted {
			r.t.Errorf("Acquire: got %q, %v, want admission", d.Denied, err)
		}
	}},
}
