package storetest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"tollgate/internal/limit"
)

// limitsModel is a store as one would write it without care for speed: lists
// of events and leases. What it cannot know is how long after [limit.Window] an
// event leaves a bucket; there it takes the store's word, within a second.
type limitsModel struct {
	*limitsRig
	caps    limit.Caps
	now     time.Duration
	keys    []*modelKey
	leases  []*modelLease
	expired uint64
}

type modelKey struct {
	id       string
	requests []*modelEvent
	tokens   []*modelEvent
	quota    int64 // -1 when the store does not know it
	debt     modelDebt
	late     time.Duration // until then use that was restored into the oldest second may stay a second longer
}

// over is how much longer than its minute a store may count what a key used: a
// bucket is a second, and use that is restored into the oldest one may go into
// the next.
func (k *modelKey) over(now time.Duration) time.Duration {
	if now < k.late {
		return 2 * time.Second
	}
	return time.Second
}

// modelDebt is a debt by the words of [limit.Store.Owe].
type modelDebt struct {
	unpaid float64
	at     time.Duration
	limit  float64 // 0 without one
}

// under brings the debt to now and then under a limit.
func (d *modelDebt) under(limited int64, now time.Duration) {
	d.unpaid = max(0, d.unpaid-d.limit*(now-d.at).Seconds()/60)
	d.at, d.limit = now, float64(max(0, limited))
	d.unpaid = min(d.unpaid, 61*d.limit)
}

func (d *modelDebt) grow(tokens float64, now time.Duration) {
	d.under(int64(d.limit), now)
	d.unpaid = min(max(0, d.unpaid+tokens), 61*d.limit)
}

func (d *modelDebt) owed(now time.Duration) float64 {
	return max(0, d.unpaid-d.limit*(now-d.at).Seconds()/60-d.limit)
}

// wait is how long until nothing is owed.
func (d *modelDebt) wait(now time.Duration) time.Duration {
	if d.limit < 1 {
		return 0
	}
	return time.Duration(d.owed(now) / d.limit * float64(time.Minute))
}

type modelEvent struct {
	at time.Duration
	n  int64
	of *modelLease
}

type modelLease struct {
	id          string
	key         *modelKey
	slots, wide int64
	claimed     bool
	hasReserved bool
	reserved    int64
	granted     int64 // -1 without a quota
	held        int64
	total       int64
	quotaShare  int64
	born        time.Duration
}

// sum counts what is younger than age.
func (m *limitsModel) sum(events []*modelEvent, age time.Duration) int64 {
	var n int64
	for _, e := range events {
		if m.now-e.at < age {
			n += e.n
		}
	}
	return n
}

// wait is how long until at most x is left in the window, exactly.
func (m *limitsModel) wait(events []*modelEvent, x int64) time.Duration {
	left := m.sum(events, limit.Window)
	for _, e := range events { // in order of time
		if left <= x {
			break
		}
		if m.now-e.at < limit.Window && e.n > 0 {
			left -= e.n
			if left <= x {
				return e.at + limit.Window - m.now
			}
		}
	}
	return 0
}

// held is what leases of a key hold of its quota.
func (m *limitsModel) held(k *modelKey) (n int64) {
	for _, l := range m.leases {
		if l.key == k {
			n += l.held
		}
	}
	return n
}

// of sums up a key, or with nil the gateway, whose slots are counted apart.
func (m *limitsModel) of(k *modelKey) (slots, leases, reserved int64) {
	for _, l := range m.leases {
		if k != nil && l.key != k {
			continue
		}
		leases++
		reserved += l.reserved
		if k == nil {
			slots += l.wide
		} else {
			slots += l.slots
		}
	}
	return slots, leases, reserved
}

// checkRandomUse drives a store and the model through the same random calls.
// Each run has a bubble of its own inside rapid's loop, because rapid measures
// its own time and may not see a faked one.
func checkRandomUse(
	t *testing.T,
	run func(t *testing.T, body func(t *testing.T)),
	rig func(t *testing.T) *limitsRig,
) {
	t.Helper()
	rapid.Check(t, func(rt *rapid.T) {
		var failure any // rapid fails by panics of its own goroutine
		run(t, func(t *testing.T) {
			t.Helper()
			defer func() { failure = recover() }()
			m := &limitsModel{limitsRig: rig(t)}
			m.t = rt
			m.use(rt)
		})
		if failure != nil {
			panic(failure)
		}
	})
}

// use is one random run.
func (m *limitsModel) use(t *rapid.T) {
	// Runs begin anywhere within a second: stores count in whole ones.
	m.advance(time.Duration(rapid.IntRange(0, 999).Draw(t, "begins")) * time.Millisecond)
	m.drawCaps(t)
	for _, id := range []string{"a", "b", "c"} {
		m.keys = append(m.keys, &modelKey{id: id, quota: -1})
	}
	t.Repeat(map[string]func(*rapid.T){
		"acquire": m.acquire,
		"claim":   m.claim,
		"reserve": m.reserveSome,
		"extend":  m.extendSome,
		"adopt":   m.adoptSome,
		"owe":     m.oweSome,
		"spend":   m.spendSome,
		"release": m.releaseOne,
		"restore": m.restore,
		"wait":    m.letPass,
		"limits":  m.drawCaps,
		"":        func(*rapid.T) { m.compare() },
	})
	m.finish()
}

func (m *limitsModel) drawCaps(t *rapid.T) {
	count := func(label string, most int64) int64 {
		return rapid.OneOf(rapid.Just(limit.Unlimited), rapid.Int64Range(0, most), rapid.Int64Range(1, most)).Draw(t, label)
	}
	m.caps = limit.Caps{
		Global: count("global", 6), Concurrent: count("concurrent", 4), Requests: count("requests", 8),
		Tokens: count("tokens", 200), Quota: count("quota", 2000) * rapid.SampledFrom([]int64{1, 1, 1000}).Draw(t, "quota unit"), QuotaPeriod: period,
	}
}

func (m *limitsModel) pick(t *rapid.T) *modelLease {
	if len(m.leases) == 0 {
		t.Skip("no lease")
	}
	return rapid.SampledFrom(m.leases).Draw(t, "lease")
}

func (m *limitsModel) acquire(t *rapid.T) {
	k := rapid.SampledFrom(m.keys).Draw(t, "key")
	l := &modelLease{key: k, born: m.now, id: m.newID(), granted: limit.Unlimited}
	slot := rapid.Bool().Draw(t, "slot")
	if slot {
		l.slots, l.wide = 1, 1
	}
	ask := limit.Ask{LeaseID: l.id, KeyID: k.id, Caps: m.caps, Slot: slot, Tokens: rapid.Bool().Draw(t, "tokens")}
	k.debt.under(m.caps.Tokens, m.now)
	want := m.predict(k, ask)
	d, err := m.store.Acquire(m.ctx, ask)
	if !m.agree("Acquire", want, d, err) {
		return
	}
	if d.Denied == limit.Admitted {
		k.requests = append(k.requests, &modelEvent{m.now, 1, l})
		m.leases = append(m.leases, l)
	}
	m.rates(k, d)
	if d.Denied == limit.Requests && m.caps.Requests > 0 && rapid.Bool().Draw(t, "comes back") {
		m.elapse(d.RetryAfter)
		again, err := m.store.Acquire(m.ctx, ask)
		if err == nil && again.Denied == limit.Requests {
			m.t.Fatalf("refused by requests again after %v", d.RetryAfter)
		}
		if err == nil && again.Denied == limit.Admitted {
			m.end(l.id, limit.Final{QuotaPeriod: period, GiveBackRequest: true})
		}
	}
}

// forecast is what the model says of a call.
type forecast struct {
	denied   limit.Denial
	unseeded bool
	// least is the exact time to wait; the store may say a second more.
	least, most time.Duration
}

func (m *limitsModel) predict(k *modelKey, ask limit.Ask) forecast {
	c, v := ask.Caps, m.view(k.id)
	slots, _, _ := m.of(nil)
	keySlots, _, _ := m.of(k)
	switch {
	case c.Requests == 0:
		return forecast{denied: limit.Requests, least: limit.Window, most: limit.Window}
	case c.Requests > 0 && v.RequestsWindow >= c.Requests:
		least := m.wait(k.requests, c.Requests-1)
		return forecast{denied: limit.Requests, least: least, most: least + k.over(m.now)}
	case ask.Slot && c.Global >= 0 && slots >= c.Global:
		return forecast{denied: limit.GlobalSlots, least: time.Second, most: time.Second}
	case ask.Slot && c.Concurrent >= 0 && keySlots >= c.Concurrent:
		return forecast{denied: limit.KeySlots, least: time.Second, most: time.Second}
	case ask.Tokens:
		return m.predictTokens(k, v, c, 1, 1, 0)
	}
	return forecast{}
}

// slack is what a debt, a broken number, may differ by.
const slack = 2 * time.Millisecond

func (m *limitsModel) predictTokens(k *modelKey, v limit.View, c limit.Caps, tokens, need, spare int64) forecast {
	_, _, reserved := m.of(k)
	room := c.Tokens - min(tokens, c.Tokens)
	switch debt := k.debt.wait(m.now); {
	case c.Tokens > 0 && debt > 0:
		least := m.wait(k.tokens, room)
		return forecast{denied: limit.TokensWindow, least: max(least, debt-slack), most: max(least+k.over(m.now), debt+slack)}
	case c.Tokens == 0:
		return forecast{denied: limit.TokensWindow, least: limit.Window, most: limit.Window}
	case c.Tokens > 0 && v.TokensWindow > room:
		least := m.wait(k.tokens, room)
		return forecast{denied: limit.TokensWindow, least: least, most: least + k.over(m.now)}
	case c.Tokens > 0 && v.TokensWindow+reserved > room:
		return forecast{denied: limit.TokensWindow, least: time.Second, most: time.Second}
	}
	return m.predictQuota(k, c, need, spare)
}

func (m *limitsModel) predictQuota(k *modelKey, c limit.Caps, need, spare int64) forecast {
	held := m.held(k)
	switch {
	case c.Quota == 0:
		return forecast{denied: limit.Quota}
	case c.Quota > 0 && k.quota < 0:
		return forecast{unseeded: true}
	case c.Quota > 0 && c.Quota-k.quota < need:
		return forecast{denied: limit.Quota}
	case c.Quota > 0 && held > 0 && c.Quota-k.quota-held < need+spare:
		return forecast{denied: limit.Quota, least: time.Second, most: time.Second}
	}
	return forecast{}
}

// agree compares and reports whether there was a decision.
func (m *limitsModel) agree(call string, want forecast, d limit.Decision, err error) bool {
	if want.unseeded {
		if !errors.Is(err, limit.ErrUnseeded) {
			m.t.Fatalf("%s: got %q, %v, want ErrUnseeded", call, d.Denied, err)
		}
		for _, k := range m.keys {
			if k.quota < 0 {
				k.quota = 7
				m.seed(k.id, period, k.quota)
			}
		}
		return false
	}
	if err != nil || d.Denied != want.denied {
		m.t.Fatalf("%s: got %q, %v, want %q", call, d.Denied, err, want.denied)
	}
	if d.RetryAfter < want.least || d.RetryAfter > want.most {
		m.t.Fatalf("%s: refused by %q: retry after %v, want %v to %v", call, d.Denied, d.RetryAfter, want.least, want.most)
	}
	return true
}

// rates compares what a client is told with what can be seen.
func (m *limitsModel) rates(k *modelKey, d limit.Decision) {
	v := m.view(k.id)
	want := [2]limit.Rate{{Limit: limit.Unlimited}, {Limit: limit.Unlimited}}
	if c := m.caps.Requests; c >= 0 {
		want[0] = limit.Rate{Limit: c, Remaining: max(0, c-v.RequestsWindow), Reset: d.Requests.Reset}
	}
	if c := m.caps.Tokens; c >= 0 {
		want[1] = limit.Rate{Limit: c, Remaining: max(0, c-v.TokensWindow-v.Reserved), Reset: d.Tokens.Reset}
		if v.Debt > 0 {
			want[1].Remaining = 0
		}
	}
	if diff := cmp.Diff(want, [2]limit.Rate{d.Requests, d.Tokens}); diff != "" {
		m.t.Fatalf("rates (-want +got):\n%s", diff)
	}
	if least := m.wait(k.requests, 0); m.caps.Requests >= 0 && (d.Requests.Reset < least || d.Requests.Reset > least+k.over(m.now)) {
		m.t.Fatalf("requests reset: got %v, want %v and up to 1 s", d.Requests.Reset, least)
	}
	least, debt := m.wait(k.tokens, 0), k.debt.wait(m.now)
	if m.caps.Tokens >= 0 && (d.Tokens.Reset < max(least, debt-slack) || d.Tokens.Reset > max(least+k.over(m.now), debt+slack)) {
		m.t.Fatalf("tokens reset: got %v, want %v and up to 1 s, or a debt of %v", d.Tokens.Reset, least, debt)
	}
}

func (m *limitsModel) remove(l *modelLease) {
	m.leases = slices.DeleteFunc(m.leases, func(o *modelLease) bool { return o == l })
	m.live = slices.DeleteFunc(m.live, func(id string) bool { return id == l.id })
}
