package storetest

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/limit"
)

var requestRules = []limitsRule{
	{"a full window refuses and says when to come back", func(r *limitsRig) {
		c := requestCaps(60)
		for range 60 {
			r.release(r.provisional("k", c), 0)
			r.pass(100 * time.Millisecond)
		}
		d := r.refuse("k", c, limit.Requests)
		r.within("retry after", d.RetryAfter, 54*time.Second)
		r.pass(53 * time.Second)
		r.refuse("k", c, limit.Requests)
		r.pass(d.RetryAfter - 53*time.Second)
		r.admit("k", c)
	}},
	{"no 60 s see more than the limit", func(r *limitsRig) {
		const n = 7
		var admitted []time.Duration
		for at := time.Duration(0); at < 150*time.Second; at += 730 * time.Millisecond {
			id, d, err := r.try("k", requestCaps(n))
			if err != nil {
				r.t.Fatalf("Acquire: %v", err)
			}
			if d.Denied == limit.Admitted {
				admitted = append(admitted, at)
				r.release(id, 0)
			}
			r.pass(730 * time.Millisecond)
		}
		for i := n; i < len(admitted); i++ {
			if gap := admitted[i] - admitted[i-n]; gap < limit.Window || gap > limit.Window+2*time.Second {
				r.t.Errorf("requests %d and %d are %v apart, want 60 s to 62 s", i-n, i, gap)
			}
		}
		if len(admitted) != 3*n {
			r.t.Errorf("admitted in 150 s: got %d, want %d", len(admitted), 3*n)
		}
	}},
	{"a request of our own fault is given back", func(r *limitsRig) {
		c := requestCaps(1)
		r.end(r.admit("k", c), limit.Final{QuotaPeriod: period, GiveBackRequest: true})
		r.equal("requests", r.view("k").RequestsWindow, 0)
		r.release(r.admit("k", c), 0)
		r.refuse("k", c, limit.Requests)
	}},
	{"a request given back late takes nothing from younger ones", func(r *limitsRig) {
		id := r.admit("k", unlimited())
		r.pass(limit.Window + time.Second)
		r.use(0)
		r.end(id, limit.Final{QuotaPeriod: period, GiveBackRequest: true})
		r.equal("requests", r.view("k").RequestsWindow, 1)
	}},
	{"a request is counted where there is no limit yet", func(r *limitsRig) {
		r.use(0)
		r.use(0)
		r.refuse("k", requestCaps(2), limit.Requests)
		r.admit("k", requestCaps(3))
	}},
	{"a restored request counts from when it happened", func(r *limitsRig) {
		for _, ago := range []time.Duration{50 * time.Second, 70 * time.Second, 0} {
			if err := r.store.Restore(r.ctx, "k", ago, 10, 1); err != nil {
				r.t.Fatalf("Restore: %v", err)
			}
		}
		v := r.view("k")
		r.equal("requests", v.RequestsWindow, 2)
		r.equal("tokens", v.TokensWindow, 20)
		r.within("retry after", r.refuse("k", requestCaps(2), limit.Requests).RetryAfter, 10*time.Second)
		r.pass(11 * time.Second)
		r.equal("requests later", r.view("k").RequestsWindow, 1)
		r.equal("tokens later", r.view("k").TokensWindow, 10)
	}},
}

var leaseRules = []limitsRule{
	{"slots of the gateway and of the key are counted apart", func(r *limitsRig) {
		c := caps(func(c *limit.Caps) { c.Global, c.Concurrent = 3, 2 })
		first := r.admit("a", c)
		r.admit("a", c)
		if d := r.refuse("a", c, limit.KeySlots); d.RetryAfter != time.Second {
			r.t.Errorf("retry after: got %v, want 1s", d.RetryAfter)
		}
		r.admit("b", c)
		if d := r.refuse("b", c, limit.GlobalSlots); d.RetryAfter != time.Second {
			r.t.Errorf("retry after: got %v, want 1s", d.RetryAfter)
		}
		r.release(first, 0)
		r.admit("b", c)
		r.equal("slots of a", r.view("a").Slots, 1)
		r.equal("slots of b", r.view("b").Slots, 2)
		r.equal("slots", r.totals().Slots, 3)
	}},
	{"what asks for no slot takes none", func(r *limitsRig) {
		c := caps(func(c *limit.Caps) { c.Global, c.Concurrent, c.Tokens, c.Quota = 0, 0, 0, 0 })
		d, err := r.store.Acquire(r.ctx, limit.Ask{LeaseID: "x", KeyID: "k", Caps: c})
		if err != nil || d.Denied != limit.Admitted {
			r.t.Fatalf("Acquire: got %q, %v, want admission", d.Denied, err)
		}
		want := limit.View{KeyID: "k", Leases: 1, RequestsWindow: 1, QuotaUsed: -1, QuotaPeriod: period}
		if diff := cmp.Diff(want, r.view("k")); diff != "" {
			r.t.Errorf("view (-want +got):\n%s", diff)
		}
		if got := r.totals(); got.Leases != 1 || got.Slots != 0 {
			r.t.Errorf("totals: got %+v, want 1 lease without slot", got)
		}
	}},
	{"an unclaimed lease gives everything back after 5 s", func(r *limitsRig) {
		c := caps(func(c *limit.Caps) { c.Global, c.Concurrent, c.Requests, c.Tokens = 1, 1, 1, 100 })
		id := r.provisional("k", c)
		r.reserve(id, c, 50, limit.Admitted)
		r.pass(limit.ProvisionalLife - 100*time.Millisecond)
		r.equal("leases before", r.totals().Leases, 1)
		r.pass(200 * time.Millisecond)
		want := limit.View{KeyID: "k", QuotaUsed: -1, QuotaPeriod: period}
		if diff := cmp.Diff(want, r.view("k")); diff != "" {
			r.t.Errorf("view (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(limit.Totals{Expired: 1}, r.totals()); diff != "" {
			r.t.Errorf("totals (-want +got):\n%s", diff)
		}
		if err := r.store.Claim(r.ctx, id); !errors.Is(err, limit.ErrLease) {
			r.t.Errorf("Claim: got %v, want ErrLease", err)
		}
		if ok, err := r.store.Release(r.ctx, id, limit.Final{Total: 9, QuotaPeriod: period}); ok || err != nil {
			r.t.Errorf("Release: got %v, %v, want false", ok, err)
		}
		r.equal("tokens", r.view("k").TokensWindow, 0)
		r.admit("k", c)
	}},
	{"a lease can be claimed to the end of its life", func(r *limitsRig) {
		id := r.provisional("k", unlimited())
		r.pass(limit.ProvisionalLife - 100*time.Millisecond)
		if err := r.store.Claim(r.ctx, id); err != nil {
			r.t.Errorf("Claim: %v", err)
		}
	}},
	{"a claimed lease lives until it is released", func(r *limitsRig) {
		c := caps(func(c *limit.Caps) { c.Concurrent = 1 })
		id := r.admit("k", c)
		r.pass(5 * time.Minute)
		r.refuse("k", c, limit.KeySlots)
		r.release(id, 0)
		r.admit("k", c)
	}},
	{"a lease is claimed once", func(r *limitsRig) {
		id := r.admit("k", unlimited())
		for _, claim := range []string{id, "unknown", ""} {
			if err := r.store.Claim(r.ctx, claim); !errors.Is(err, limit.ErrLease) {
				r.t.Errorf("Claim %q: got %v, want ErrLease", claim, err)
			}
		}
	}},
	{"a live id is not given out again", func(r *limitsRig) {
		id := r.admit("k", unlimited())
		_, err := r.store.Acquire(r.ctx, limit.Ask{LeaseID: id, KeyID: "other", Caps: unlimited(), Slot: true})
		if !errors.Is(err, limit.ErrLease) {
			r.t.Errorf("Acquire: got %v, want ErrLease", err)
		}
		r.equal("slots", r.totals().Slots, 1)
		r.equal("requests of the other", r.view("other").RequestsWindow, 0)
	}},
	{"release is idempotent", func(r *limitsRig) {
		id := r.admit("k", unlimited())
		r.release(id, 30)
		for range 2 {
			f := limit.Final{Total: 50, QuotaPeriod: period, GiveBackRequest: true}
			if ok, err := r.store.Release(r.ctx, id, f); ok || err != nil {
				r.t.Errorf("Release: got %v, %v, want false", ok, err)
			}
		}
		r.equal("tokens", r.view("k").TokensWindow, 30)
		r.equal("requests", r.view("k").RequestsWindow, 1)
	}},
	{"an unclaimed lease can be given back", func(r *limitsRig) {
		c := caps(func(c *limit.Caps) { c.Global, c.Requests = 1, 1 })
		r.end(r.provisional("k", c), limit.Final{QuotaPeriod: period, GiveBackRequest: true})
		r.admit("k", c)
		r.equal("expired", int64(r.totals().Expired), 0)
	}},
}

var decisionRules = []limitsRule{
	{"limits are checked in their order", func(r *limitsRig) {
		c := limit.Caps{QuotaPeriod: period}
		r.seed("k", period, 0)
		for _, step := range []struct {
			denial limit.Denial
			lift   *int64
		}{
			{limit.Requests, &c.Requests},
			{limit.GlobalSlots, &c.Global},
			{limit.KeySlots, &c.Concurrent},
			{limit.TokensWindow, &c.Tokens},
			{limit.Quota, &c.Quota},
		} {
			r.refuse("k", c, step.denial)
			*step.lift = limit.Unlimited
		}
		r.admit("k", c)
	}},
	{"a refusal leaves no trace", checkNoTrace},
	{"a key does not feel another", func(r *limitsRig) {
		c := caps(func(c *limit.Caps) { c.Concurrent, c.Requests, c.Tokens = 1, 1, 10 })
		r.reserve(r.admit("a", c), c, 10, limit.Admitted)
		r.reserve(r.admit("b", c), c, 10, limit.Admitted)
	}},
	{"limits change from one decision to the next", func(r *limitsRig) {
		low := caps(func(c *limit.Caps) { c.Concurrent, c.Requests, c.Tokens = 1, 2, 10 })
		id := r.admit("k", unlimited())
		second := r.admit("k", unlimited())
		r.reserve(second, unlimited(), 100, limit.Admitted)
		r.refuse("k", low, limit.Requests)
		low.Requests = limit.Unlimited
		r.refuse("k", low, limit.KeySlots)
		low.Concurrent = 3
		r.refuse("k", low, limit.TokensWindow)
		r.reserve(id, low, 1, limit.TokensWindow)
		low.Tokens = 101
		r.admit("k", low)
		r.reserve(id, low, 1, limit.Admitted)
	}},
	{"a client sees what is left", checkRates},
	{"a client sees what is left of its quota", checkQuotaLeft},
	{"a key that was never seen shows nothing", func(r *limitsRig) {
		want := limit.View{KeyID: "stranger", QuotaUsed: -1, QuotaPeriod: period}
		if diff := cmp.Diff(want, r.view("stranger")); diff != "" {
			r.t.Errorf("view (-want +got):\n%s", diff)
		}
	}},
	{"nothing is left when all is over", func(r *limitsRig) {
		for i := range 300 {
			key := fmt.Sprint("k", i%100)
			id := r.admit(key, unlimited())
			r.reserve(id, unlimited(), 50, limit.Admitted)
			r.release(id, int64(i))
		}
		r.pass(limit.Window + time.Second)
		for i := range 100 {
			key := fmt.Sprint("k", i)
			want := limit.View{KeyID: key, QuotaUsed: -1, QuotaPeriod: period}
			if diff := cmp.Diff(want, r.view(key)); diff != "" {
				r.t.Errorf("view (-want +got):\n%s", diff)
			}
		}
		if diff := cmp.Diff(limit.Totals{}, r.totals()); diff != "" {
			r.t.Errorf("totals (-want +got):\n%s", diff)
		}
	}},
}

// checkNoTrace refuses by each limit in turn and compares everything that can
// be seen before and after, and what the key may still do.
func checkNoTrace(r *limitsRig) {
	full := caps(func(c *limit.Caps) { c.Global, c.Concurrent, c.Requests, c.Tokens, c.Quota = 2, 2, 2, 100, 100 })
	r.seed("k", period, 20)
	r.reserve(r.admit("k", full), full, 30, limit.Admitted)
	for denial, lower := range map[limit.Denial]func(c *limit.Caps){
		limit.Requests:     func(c *limit.Caps) { c.Requests = 1 },
		limit.GlobalSlots:  func(c *limit.Caps) { c.Global = 1 },
		limit.KeySlots:     func(c *limit.Caps) { c.Concurrent = 1 },
		limit.TokensWindow: func(c *limit.Caps) { c.Tokens = 30 },
		limit.Quota:        func(c *limit.Caps) { c.Quota = 50 },
	} {
		view, totals := r.view("k"), r.totals()
		low := full
		lower(&low)
		for range 3 {
			r.refuse("k", low, denial)
		}
		if diff := cmp.Diff(view, r.view("k")); diff != "" {
			r.t.Errorf("view after refusal by %s (-before +after):\n%s", denial, diff)
		}
		if diff := cmp.Diff(totals, r.totals()); diff != "" {
			r.t.Errorf("totals after refusal by %s (-before +after):\n%s", denial, diff)
		}
	}
	r.reserve(r.admit("k", full), full, 49, limit.Admitted)
}

// checkRates follows the x-ratelimit numbers through two requests.
func checkRates(r *limitsRig) {
	c := caps(func(c *limit.Caps) { c.Requests, c.Tokens = 2, 100 })
	id, d, err := r.try("k", c)
	if err != nil {
		r.t.Fatalf("Acquire: %v", err)
	}
	r.equal("request limit", d.Requests.Limit, 2)
	r.equal("requests left after this one", d.Requests.Remaining, 1)
	r.within("requests reset", d.Requests.Reset, limit.Window)
	r.equal("tokens left", d.Tokens.Remaining, 100)
	r.equal("tokens reset", int64(d.Tokens.Reset), 0)

	d = r.reserve(id, c, 60, limit.Admitted)
	r.equal("token limit", d.Tokens.Limit, 100)
	r.equal("tokens left after reservation", d.Tokens.Remaining, 40)
	r.equal("requests left at reservation", d.Requests.Remaining, 1)
	r.pass(time.Second)
	r.release(id, 130)

	r.pass(time.Second)
	d = r.refuse("k", c, limit.TokensWindow)
	r.equal("tokens left in debt", d.Tokens.Remaining, 0)
	r.within("tokens reset", d.Tokens.Reset, 59*time.Second)
	r.equal("requests left after refusal", d.Requests.Remaining, 1)
	r.within("requests reset", d.Requests.Reset, 58*time.Second)

	id, d, err = r.try("k", unlimited())
	if err != nil {
		r.t.Fatalf("Acquire: %v", err)
	}
	want := limit.Decision{Requests: limit.Rate{Limit: limit.Unlimited}, Tokens: limit.Rate{Limit: limit.Unlimited}, Quota: limit.Rate{Limit: limit.Unlimited}}
	if diff := cmp.Diff(want, d); diff != "" {
		r.t.Errorf("decision without limits (-want +got):\n%s", diff)
	}
	r.release(id, 0)
}

// checkQuotaLeft follows the numbers of a quota through a reservation.
func checkQuotaLeft(r *limitsRig) {
	c := quotaCaps(100)
	r.seed("k", period, 20)
	id, d, err := r.try("k", c)
	if err != nil {
		r.t.Fatalf("Acquire: %v", err)
	}
	r.equal("quota", d.Quota.Limit, 100)
	r.equal("quota left", d.Quota.Remaining, 80)
	d = r.reserve(id, c, 30, limit.Admitted)
	r.equal("quota left beside the reservation", d.Quota.Remaining, 50)
	r.release(id, 90)
	d = r.refuse("k", c, limit.Quota)
	r.equal("quota that refuses", d.Quota.Limit, 100)
	r.equal("quota left at the end", d.Quota.Remaining, 0)
	d = r.refuse("k", quotaCaps(0), limit.Quota)
	r.equal("quota of zero", d.Quota.Limit, 0)
}
