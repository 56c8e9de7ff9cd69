// Package storetest holds the conformance suites of the stores: what a store
// must do, whatever it keeps its data in.
package storetest

import (
	"context"
	"strconv"
	"testing"
	"time"

	"tollgate/internal/limit"
)

// Limits checks that a [limit.Store] keeps every rule of admission.
//
// Each check is a subtest on a store of its own. open returns an empty store
// and registers what closes it with t.Cleanup. advance lets time pass for the
// store, by d exactly; live leases are renewed every second meanwhile. Between
// two calls of advance no time may pass that a store could notice.
//
// in, when given, runs the body of each subtest: synctest.Test together with
// time.Sleep as advance makes time fake. Without it bodies run as they are.
//
// Two subtests are random: "random use" takes its size from the flags
// -rapid.checks and -rapid.steps (2000 and 100 are the full form), "histories
// are linearizable" runs 200 histories of concurrent calls.
func Limits(
	t *testing.T,
	open func(t *testing.T) limit.Store,
	advance func(d time.Duration),
	in ...func(t *testing.T, body func(t *testing.T)),
) {
	t.Helper()
	groups := []struct {
		name  string
		rules []limitsRule
	}{
		{"requests", requestRules},
		{"slots and leases", leaseRules},
		{"tokens", tokenRules},
		{"settling", settleRules},
		{"quota", quotaRules},
		{"sequences", sequenceRules},
		{"debt", debtRules},
		{"holds", holdRules},
		{"decisions", decisionRules},
		{"adopted leases", adoptRules},
		{"tickets of other processes", foreignRules},
		{"at large", []limitsRule{{"histories are linearizable", checkHistories}}},
	}
	run := func(t *testing.T, body func(t *testing.T)) { t.Helper(); body(t) }
	if len(in) > 0 {
		run = in[0]
	}
	for _, g := range groups {
		t.Run(g.name, func(t *testing.T) {
			for _, rule := range g.rules {
				t.Run(rule.name, func(t *testing.T) {
					run(t, func(t *testing.T) {
						t.Helper()
						fresh := func() limit.Store { return open(t) }
						rule.check(&limitsRig{t: t, ctx: t.Context(), fresh: fresh, store: fresh(), advance: advance})
					})
				})
			}
		})
	}
	t.Run("random use keeps to the model", func(t *testing.T) {
		checkRandomUse(t, run, func(t *testing.T) *limitsRig {
			t.Helper()
			return &limitsRig{ctx: t.Context(), store: open(t), advance: advance}
		})
	})
}

// limitsRule is one named rule.
type limitsRule struct {
	name  string
	check func(r *limitsRig)
}

// limitsRig is a store under test. Its methods fail the test on every error
// that they are not asked about.
type limitsRig struct {
	t       limitsT
	ctx     context.Context // the subtest's
	fresh   func() limit.Store
	store   limit.Store
	advance func(d time.Duration)
	ids     int
	live    []string // what pass renews
}

// limitsT is what a rig needs of a *testing.T or a *rapid.T.
type limitsT interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// period is the quota period where a rule does not care.
const period = "total"

// unlimited returns caps that refuse nothing.
func unlimited() limit.Caps {
	return limit.Caps{
		Global: limit.Unlimited, Concurrent: limit.Unlimited, Requests: limit.Unlimited,
		Tokens: limit.Unlimited, Quota: limit.Unlimited, QuotaPeriod: period,
	}
}

// caps returns unlimited caps with changes.
func caps(change func(c *limit.Caps)) limit.Caps {
	c := unlimited()
	change(&c)
	return c
}

func requestCaps(n int64) limit.Caps { return caps(func(c *limit.Caps) { c.Requests = n }) }
func tokenCaps(n int64) limit.Caps   { return caps(func(c *limit.Caps) { c.Tokens = n }) }
func quotaCaps(n int64) limit.Caps   { return caps(func(c *limit.Caps) { c.Quota = n }) }

// pass lets time pass and renews what lives.
func (r *limitsRig) pass(d time.Duration) {
	r.t.Helper()
	for d > 0 {
		step := min(d, time.Second)
		r.advance(step)
		d -= step
		if err := r.store.Renew(r.ctx, r.live); err != nil {
			r.t.Fatalf("Renew: %v", err)
		}
	}
}

func (r *limitsRig) newID() string {
	r.ids++
	return "lease-" + strconv.Itoa(r.ids)
}

// try asks for everything that an inference request takes, under a new id.
func (r *limitsRig) try(key string, c limit.Caps) (string, limit.Decision, error) {
	r.t.Helper()
	id := r.newID()
	d, err := r.store.Acquire(r.ctx, limit.Ask{LeaseID: id, KeyID: key, Caps: c, Slot: true, Tokens: true})
	return id, d, err
}

// provisional acquires a lease and does not claim it.
func (r *limitsRig) provisional(key string, c limit.Caps) string {
	r.t.Helper()
	id, d, err := r.try(key, c)
	if err != nil {
		r.t.Fatalf("Acquire: %v", err)
	}
	if d.Denied != limit.Admitted || d.RetryAfter != 0 {
		r.t.Fatalf("Acquire: got %q, retry after %v, want admission", d.Denied, d.RetryAfter)
	}
	return id
}

// admit acquires and claims a lease.
func (r *limitsRig) admit(key string, c limit.Caps) string {
	r.t.Helper()
	id := r.provisional(key, c)
	if err := r.store.Claim(r.ctx, id); err != nil {
		r.t.Fatalf("Claim: %v", err)
	}
	r.live = append(r.live, id)
	return id
}

// refuse asks and wants to be refused by the given limit.
func (r *limitsRig) refuse(key string, c limit.Caps, want limit.Denial) limit.Decision {
	r.t.Helper()
	_, d, err := r.try(key, c)
	if err != nil {
		r.t.Fatalf("Acquire: %v", err)
	}
	if d.Denied != want {
		r.t.Fatalf("Acquire: got %q, want refusal by %q", d.Denied, want)
	}
	return d
}

// reserve reserves and wants the given answer.
func (r *limitsRig) reserve(id string, c limit.Caps, tokens int64, want limit.Denial) limit.Decision {
	r.t.Helper()
	d, err := r.store.Reserve(r.ctx, id, c, whole(tokens))
	if err != nil {
		r.t.Fatalf("Reserve: %v", err)
	}
	if d.Denied != want {
		r.t.Fatalf("Reserve %d: got %q, want %q", tokens, d.Denied, want)
	}
	return d
}

// whole is a reservation of tokens for the window and as much of the quota as is
// left of them, one at least.
func whole(tokens int64) limit.Reservation {
	return limit.Reservation{Tokens: tokens, Hold: limit.Hold{Output: tokens, Most: tokens}}
}

// spend reports cumulative use of one lease.
func (r *limitsRig) spend(id string, total int64) {
	r.t.Helper()
	batch := []limit.Spend{{LeaseID: id, Total: total, QuotaPeriod: period}}
	if err := r.store.Spend(r.ctx, batch); err != nil {
		r.t.Fatalf("Spend: %v", err)
	}
}

// release ends a lease that used total tokens.
func (r *limitsRig) release(id string, total int64) {
	r.t.Helper()
	r.end(id, limit.Final{Total: total, QuotaPeriod: period})
}

func (r *limitsRig) end(id string, f limit.Final) {
	r.t.Helper()
	ok, err := r.store.Release(r.ctx, id, f)
	if err != nil || !ok {
		r.t.Fatalf("Release: got %v, %v, want true", ok, err)
	}
}

// use is one whole request of key k that used tokens now.
func (r *limitsRig) use(tokens int64) {
	r.t.Helper()
	r.release(r.provisional("k", unlimited()), tokens)
}

func (r *limitsRig) seed(key, period string, used int64) {
	r.t.Helper()
	if err := r.store.Seed(r.ctx, key, period, used); err != nil {
		r.t.Fatalf("Seed: %v", err)
	}
}

func (r *limitsRig) view(key string) limit.View { r.t.Helper(); return r.viewIn(key, period) }

func (r *limitsRig) viewIn(key, period string) limit.View {
	r.t.Helper()
	v, err := r.store.Key(r.ctx, key, limit.Caps{QuotaPeriod: period})
	if err != nil {
		r.t.Fatalf("Key: %v", err)
	}
	return v
}

func (r *limitsRig) totals() limit.Totals {
	r.t.Helper()
	got, err := r.store.Totals(r.ctx)
	if err != nil {
		r.t.Fatalf("Totals: %v", err)
	}
	return got
}

// within wants got in [want, want + 1 s]: exact but for the bucket.
func (r *limitsRig) within(what string, got, want time.Duration) {
	r.t.Helper()
	if got < want || got > want+time.Second {
		r.t.Errorf("%s: got %v, want %v to %v", what, got, want, want+time.Second)
	}
}

func (r *limitsRig) equal(what string, got, want int64) {
	r.t.Helper()
	if got != want {
		r.t.Errorf("%s: got %d, want %d", what, got, want)
	}
}
