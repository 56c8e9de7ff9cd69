package storetest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"tollgate/internal/limit"
)

var sequenceRules = []limitsRule{
	{"sequences take slots, all of them or none", func(r *limitsRig) {
		c := caps(func(c *limit.Caps) { c.Global, c.Concurrent = 1000, 20 })
		first, second := r.admit("k", c), r.admit("k", c)
		r.sequences(first, c, 16, limit.Admitted)
		r.equal("slots of the key", r.view("k").Slots, 17)
		r.equal("slots of the gateway", r.totals().Slots, 17)
		r.equal("leases", r.totals().Leases, 2)
		d := r.sequences(second, c, 5, limit.KeySlots)
		r.equal("slots needed", d.Need, 4)
		r.equal("slots free", d.Free, 3)
		r.equal("slots after a refusal", r.view("k").Slots, 17)
		r.sequences(second, c, 4, limit.Admitted)
		r.release(first, 0)
		r.equal("slots after the end", r.view("k").Slots, 4)
		r.release(second, 0)
		r.equal("slots in the end", r.totals().Slots, 0)
	}},
	{"a request takes at most all of its key and a quarter of the gateway", func(r *limitsRig) {
		c := caps(func(c *limit.Caps) { c.Global, c.Concurrent = 40, 8 })
		id := r.admit("k", c)
		r.sequences(id, c, 1024, limit.Admitted)
		r.equal("slots of the key", r.view("k").Slots, 8)
		r.equal("slots of the gateway", r.totals().Slots, 10)
		r.refuse("k", c, limit.KeySlots)
		free := caps(func(c *limit.Caps) { c.Global = 40 })
		for _, key := range []string{"a", "b"} {
			r.sequences(r.admit(key, free), free, 1024, limit.Admitted)
		}
		r.equal("slots of the gateway, of three", r.totals().Slots, 30)
		last := r.admit("d", free)
		r.admit("d", free)
		d := r.sequences(last, free, 11, limit.GlobalSlots)
		r.equal("slots needed", d.Need, 9)
		r.equal("slots free", d.Free, 8)
	}},
	{"unlimited sequences are counted", func(r *limitsRig) {
		id := r.admit("k", unlimited())
		r.sequences(id, unlimited(), 1024, limit.Admitted)
		r.equal("slots", r.view("k").Slots, 1024)
	}},
	{"what has no slot takes none", func(r *limitsRig) {
		d, err := r.store.Acquire(r.ctx, limit.Ask{LeaseID: "x", KeyID: "k", Caps: unlimited()})
		if err != nil || d.Denied != limit.Admitted {
			r.t.Fatalf("Acquire: got %q, %v", d.Denied, err)
		}
		r.sequences("x", unlimited(), 9, limit.Admitted)
		r.equal("slots", r.totals().Slots, 0)
	}},
	{"refused tokens take no slots", func(r *limitsRig) {
		c := caps(func(c *limit.Caps) { c.Concurrent, c.Tokens = 50, 10 })
		first, second := r.admit("k", c), r.admit("k", c)
		r.reserve(first, c, 10, limit.Admitted)
		d, err := r.store.Reserve(r.ctx, second, c, limit.Reservation{Tokens: 5, Slots: 9})
		if err != nil || d.Denied != limit.TokensWindow {
			r.t.Fatalf("Reserve: got %q, %v, want a refusal by tokens", d.Denied, err)
		}
		r.equal("slots", r.view("k").Slots, 2)
	}},
}

// sequences reserves slots and nothing else.
func (r *limitsRig) sequences(id string, c limit.Caps, n int64, want limit.Denial) limit.Decision {
	r.t.Helper()
	d, err := r.store.Reserve(r.ctx, id, c, limit.Reservation{Slots: n})
	if err != nil || d.Denied != want {
		r.t.Fatalf("Reserve %d sequences: got %q, %v, want %q", n, d.Denied, err, want)
	}
	return d
}

var debtRules = []limitsRule{
	{"what is used at once beyond the limit is waited out, minute by minute", func(r *limitsRig) {
		for used, wait := range map[int64]time.Duration{
			300: 2 * time.Minute, 710: 366 * time.Second, 6_100: time.Hour, 100_000: time.Hour,
		} {
			key, c := "k"+time.Duration(used).String(), tokenCaps(100)
			r.release(r.admit(key, c), used)
			d := r.refuse(key, c, limit.TokensWindow)
			r.near("retry after", d.RetryAfter, wait)
			r.near("tokens reset", d.Tokens.Reset, wait)
			r.equal("tokens left", d.Tokens.Remaining, 0)
			r.equal("debt", r.view(key).Debt, min(used-100, 6000))
			r.equal("debt of the decision", d.Debt, min(used-100, 6000))
		}
	}},
	{"after the time that was said the key is back, and not before", func(r *limitsRig) {
		c := tokenCaps(100)
		r.release(r.admit("k", c), 300)
		d := r.refuse("k", c, limit.TokensWindow)
		r.pass(d.RetryAfter - 2*time.Second)
		r.refuse("k", c, limit.TokensWindow)
		r.pass(2 * time.Second)
		r.reserve(r.admit("k", c), c, 100, limit.Admitted)
	}},
	{"a little too much is soon forgotten", func(r *limitsRig) {
		c := tokenCaps(100)
		r.release(r.admit("k", c), 60)
		r.pass(30 * time.Second)
		r.release(r.admit("k", c), 91) // 10 of the 60 are unpaid by now
		r.equal("debt", r.view("k").Debt, 1)
		r.pass(30 * time.Second)
		r.equal("debt half a minute later", r.view("k").Debt, 0)
		r.admit("k", c)
	}},
	{"who keeps to the window owes nothing", func(r *limitsRig) {
		c := tokenCaps(100)
		for range 10 {
			r.release(r.admit("k", c), 100)
			r.equal("debt", r.view("k").Debt, 0)
			r.pass(limit.Window + time.Second)
		}
	}},
	{"in the long run nobody uses more than the limit", func(r *limitsRig) {
		for _, burst := range []int64{130, 220, 400} { // whatever is used at each time that it may
			key, c, sum := "k"+time.Duration(burst).String(), tokenCaps(100), int64(0)
			for at := time.Duration(0); at < 30*time.Minute; at += 3 * time.Second {
				id, d, err := r.try(key, c)
				if err != nil {
					r.t.Fatalf("Acquire: %v", err)
				}
				if d.Denied == limit.Admitted {
					r.release(id, burst)
					sum += burst
				}
				r.advance(3 * time.Second)
			}
			if most := 30*100 + 100 + burst; sum > most || sum < 29*100 {
				r.t.Errorf("bursts of %d: %d tokens in 30 minutes, want at most %d and nearly all", burst, sum, most)
			}
		}
	}},
	{"ten minutes of attack use ten limits, one that was saved up, and one burst", func(r *limitsRig) {
		for _, takes := range []int{0, 7, 90} {
			for _, answer := range []int64{300, 500, 700, 1018, 1528, 2011, 3056, 32_000} {
				r.attack(answer, takes)
			}
		}
	}},
	{"a debt is one key's alone, and outlives half an hour of rest", func(r *limitsRig) {
		c := tokenCaps(100)
		r.release(r.admit("k", c), 6100)
		r.admit("other", c)
		r.pass(30 * time.Minute)
		r.near("retry after", r.refuse("k", c, limit.TokensWindow).RetryAfter, 30*time.Minute)
	}},
	{"a new limit cuts the debt", func(r *limitsRig) {
		r.release(r.admit("k", tokenCaps(100)), 6100)
		r.near("under a smaller one", r.refuse("k", tokenCaps(10), limit.TokensWindow).RetryAfter, time.Hour)
		r.equal("debt", r.view("k").Debt, 600)
		r.pass(limit.Window + time.Second)
		r.near("under a larger one", r.refuse("k", tokenCaps(300), limit.TokensWindow).RetryAfter, time.Minute-33*time.Millisecond)
		r.admit("k", unlimited())
		r.equal("debt without a limit", r.view("k").Debt, 0)
	}},
	{"a debt is brought back after a restart", func(r *limitsRig) {
		for range 2 { // raised, not added
			if err := r.store.Owe(r.ctx, "k", 100, 250); err != nil {
				r.t.Fatalf("Owe: %v", err)
			}
		}
		r.near("retry after", r.refuse("k", tokenCaps(100), limit.TokensWindow).RetryAfter, 90*time.Second)
		r.pass(90 * time.Second)
		r.admit("k", tokenCaps(100))
	}},
	{"tokens that were not used after all are no debt", func(r *limitsRig) {
		c := tokenCaps(100)
		id := r.admit("k", c)
		r.spend(id, 300)
		r.equal("debt", r.view("k").Debt, 200)
		r.release(id, 10)
		r.equal("debt at the end", r.view("k").Debt, 0)
		r.admit("k", c)
	}},
}

// attack asks twenty times each second for ten minutes. The bound: the limit pays
// ten limits meanwhile, who owes nothing may have one unpaid, and on top of that
// comes what is admitted at once, each with an estimate that is too low.
func (r *limitsRig) attack(answer int64, takes int) {
	r.t.Helper()
	const limited, estimate, minutes = 5000, 267, 10
	key, c := fmt.Sprintf("k%d-%d", answer, takes), tokenCaps(limited)
	ends := map[int][]string{} // by second
	admitted := int64(0)
	for second := range minutes*60 + 1 {
		for range 20 {
			id, d, err := r.try(key, c)
			if err == nil && d.Denied == limit.Admitted {
				if err = r.store.Claim(r.ctx, id); err == nil {
					d, err = r.store.Reserve(r.ctx, id, c, whole(estimate))
				}
				if err == nil && d.Denied != limit.Admitted {
					r.release(id, 0)
				}
			}
			if err != nil {
				r.t.Fatalf("second %d: %v", second, err)
			}
			if d.Denied != limit.Admitted {
				break // and so are the others of this second
			}
			admitted++
			ends[second+takes] = append(ends[second+takes], id)
			r.live = append(r.live, id)
		}
		for _, id := range ends[second] {
			r.release(id, answer)
		}
		r.live = slices.DeleteFunc(r.live, func(id string) bool { return slices.Contains(ends[second], id) })
		r.pass(time.Second)
	}
	r.live = nil
	if used, most := admitted*answer, minutes*limited+limited+limited/estimate*answer; used > most {
		r.t.Errorf("answers of %d that take %d s: %d tokens in ten minutes, want at most %d", answer, takes, used, most)
	}
}

// near wants a duration to the millisecond.
func (r *limitsRig) near(what string, got, want time.Duration) {
	r.t.Helper()
	if got < want-2*time.Millisecond || got > want+2*time.Millisecond {
		r.t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

var holdRules = []limitsRule{
	{"a request is never given more than is left", func(r *limitsRig) {
		c := quotaCaps(5000)
		r.seed("k", period, 0)
		var sum int64
		for range 30 {
			id, d, err := r.try("k", c)
			if err != nil {
				r.t.Fatalf("Acquire: %v", err)
			}
			if d.Denied != limit.Admitted {
				break
			}
			d, err = r.store.Reserve(r.ctx, id, c, limit.Reservation{Hold: limit.Hold{Prompt: 10, Output: 256, Most: 1 << 40, Least: 1}})
			if err != nil {
				r.t.Fatalf("Reserve: %v", err)
			}
			if d.Denied == limit.Admitted {
				sum += d.Granted
			}
		}
		r.equal("granted in all", sum, 5000)
		r.equal("held", r.view("k").QuotaHeld, 5000)
		if d := r.refuse("k", c, limit.Quota); d.RetryAfter != time.Second {
			r.t.Errorf("retry after while it is only held: got %v, want 1s", d.RetryAfter)
		}
	}},
	{"what is held follows the rest", func(r *limitsRig) {
		for _, step := range []struct {
			left int64
			hold limit.Hold
			want int64
		}{
			{5_000_000, limit.Hold{Prompt: 10, Output: 256, Most: 32000, Least: 1}, 32010}, // what the client allows
			{160_000, limit.Hold{Output: 256, Most: 32000, Least: 1}, 10000},               // a sixteenth
			{10_000, limit.Hold{Output: 256, Most: 32000, Least: 1}, 4096},                 // 4,096 of a small rest
			{3_000, limit.Hold{Prompt: 100, Output: 256, Most: 32000, Least: 1}, 3000},     // all of a smaller one
			{100_000, limit.Hold{Output: 4000, Most: 32000, Least: 1}, 8000},               // twice the estimate
			{100_000, limit.Hold{Output: 4000, Most: 32000, Least: 1, Extended: true}, 4000},
			{300, limit.Hold{Output: 4000, Most: 32000, Least: 1, Extended: true}, 300},
			{512_010, limit.Hold{Prompt: 10, Output: 90, Most: 32000, Least: 1, Extended: true}, 2010},    // a 256th
			{50_000_000, limit.Hold{Prompt: 10, Output: 90, Most: 32000, Least: 1, Extended: true}, 4106}, // 4,096 at most
			{50_000_000, limit.Hold{Prompt: 10, Output: 90, Most: 500, Least: 1, Extended: true}, 510},    // never more than can come
			{300, limit.Hold{Prompt: 50, Most: 0}, 50},                                                    // no output at all
		} {
			c := quotaCaps(step.left)
			key := "k" + time.Duration(step.left).String() + time.Duration(step.want).String()
			r.seed(key, period, 0)
			d, err := r.store.Reserve(r.ctx, r.admit(key, c), c, limit.Reservation{Hold: step.hold})
			if err != nil || d.Denied != limit.Admitted {
				r.t.Fatalf("Reserve: got %q, %v", d.Denied, err)
			}
			r.equal("granted", d.Granted, step.want)
		}
	}},
	{"of a large rest a running answer takes longer steps", func(r *limitsRig) {
		c := quotaCaps(512_000)
		r.seed("k", period, 0)
		id := r.admit("k", c)
		d, err := r.store.Reserve(r.ctx, id, c, limit.Reservation{Hold: limit.Hold{Most: 32000, Least: 1, Extended: true}})
		if err != nil || d.Granted != 2000 {
			r.t.Fatalf("Reserve: got %d, %v, want 2000 granted", d.Granted, err)
		}
		r.extend(id, c, 2000, 3992) // a 256th of 510,000
		r.seed("small", period, 512_000-60_000)
		id = r.admit("small", c)
		if d, err = r.store.Reserve(r.ctx, id, c, limit.Reservation{Hold: limit.Hold{Most: 32000, Least: 1, Extended: true}}); err != nil || d.Granted != 234 {
			r.t.Fatalf("Reserve: got %d, %v, want 234 granted", d.Granted, err)
		}
		r.extend(id, c, 234, 490) // 256 at least
	}},
	{"a rest too small for one request is spent for it", func(r *limitsRig) {
		c := quotaCaps(100)
		r.seed("k", period, 95)
		id := r.admit("k", c)
		hold := limit.Hold{Prompt: 5, Output: 20, Most: 20, Least: 1}
		d, err := r.store.Reserve(r.ctx, id, c, limit.Reservation{Hold: hold})
		if err != nil || d.Denied != limit.Quota || d.RetryAfter != 0 {
			r.t.Fatalf("Reserve: got %q after %v, %v, want a spent quota", d.Denied, d.RetryAfter, err)
		}
		hold.Prompt = 4
		if d, err = r.store.Reserve(r.ctx, id, c, limit.Reservation{Hold: hold}); err != nil || d.Granted != 5 {
			r.t.Fatalf("Reserve: got %q, %d, %v, want 5 granted", d.Denied, d.Granted, err)
		}
	}},
	{"a running answer extends what it holds, to the last token", func(r *limitsRig) {
		c := quotaCaps(1000)
		r.seed("k", period, 0)
		first, second := r.admit("k", c), r.admit("k", c)
		hold := limit.Reservation{Hold: limit.Hold{Prompt: 10, Output: 90, Most: 5000, Least: 1, Extended: true}}
		for _, id := range []string{first, second} {
			if d, err := r.store.Reserve(r.ctx, id, c, hold); err != nil || d.Granted != 100 {
				r.t.Fatalf("Reserve: got %d, %v, want 100 granted", d.Granted, err)
			}
		}
		r.extend(first, c, 101, 357)
		r.extend(first, c, 100, 357) // has it already
		r.spend(first, 300)
		r.equal("held", r.view("k").QuotaHeld, 157)
		r.extend(second, c, 400, 643) // all that is left
		r.extend(first, c, 400, 357)
		r.release(second, 40)
		r.extend(first, c, 400, 656)
		r.release(first, 500)
		r.equal("used", r.view("k").QuotaUsed, 540)
		r.equal("held in the end", r.view("k").QuotaHeld, 0)
	}},
	{"what is spare is held too, and near the end one passes at a time", func(r *limitsRig) {
		c := quotaCaps(100)
		r.seed("k", period, 0)
		hold := limit.Reservation{Hold: limit.Hold{Prompt: 5, Spare: 40, Output: 1, Most: 1, Least: 1, Extended: true}}
		first, second, third := r.admit("k", c), r.admit("k", c), r.admit("k", c)
		for _, id := range []string{first, second} {
			if d, err := r.store.Reserve(r.ctx, id, c, hold); err != nil || d.Granted != 6 {
				r.t.Fatalf("Reserve: got %d, %v, want 6 granted", d.Granted, err)
			}
		}
		r.equal("held", r.view("k").QuotaHeld, 92)
		if d, err := r.store.Reserve(r.ctx, third, c, hold); err != nil || d.Denied != limit.Quota || d.RetryAfter != time.Second {
			r.t.Fatalf("Reserve: got %q after %v, %v, want to wait for the others", d.Denied, d.RetryAfter, err)
		}
		r.release(first, 30) // it was more than it seemed
		r.release(second, 30)
		if d, err := r.store.Reserve(r.ctx, third, c, hold); err != nil || d.Granted != 6 {
			r.t.Fatalf("Reserve alone: got %d, %v, want 6 granted", d.Granted, err)
		}
		r.equal("held alone", r.view("k").QuotaHeld, 40)
		r.release(third, 6)
		r.equal("held in the end", r.view("k").QuotaHeld, 0)
	}},
	{"without a quota nothing is held", func(r *limitsRig) {
		id := r.admit("k", unlimited())
		d, err := r.store.Reserve(r.ctx, id, unlimited(), limit.Reservation{Hold: limit.Hold{Output: 9, Most: 9}})
		if err != nil || d.Granted != limit.Unlimited {
			r.t.Fatalf("Reserve: granted %d, %v, want no bound", d.Granted, err)
		}
		r.extend(id, unlimited(), 1000, limit.Unlimited)
		r.equal("held", r.view("k").QuotaHeld, 0)
		if _, err := r.store.Extend(r.ctx, "unknown", unlimited(), 1); !errors.Is(err, limit.ErrLease) {
			r.t.Errorf("Extend of an unknown lease: got %v, want ErrLease", err)
		}
	}},
}

func (r *limitsRig) extend(id string, c limit.Caps, total, want int64) {
	r.t.Helper()
	got, err := r.store.Extend(r.ctx, id, c, total)
	if err != nil || got != want {
		r.t.Fatalf("Extend to %d: got %d, %v, want %d", total, got, err, want)
	}
}
