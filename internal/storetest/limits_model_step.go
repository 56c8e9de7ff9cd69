package storetest

import (
	"cmp"
	"errors"
	"slices"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"tollgate/internal/limit"
)

func (m *limitsModel) claim(t *rapid.T) {
	l := m.pick(t)
	err := m.store.Claim(m.ctx, l.id)
	if l.claimed != errors.Is(err, limit.ErrLease) || (!l.claimed && err != nil) {
		m.t.Fatalf("Claim of a lease with claimed %v: got %v", l.claimed, err)
	}
	if !l.claimed {
		l.claimed = true
		m.live = append(m.live, l.id)
	}
}

func (m *limitsModel) drawReservation(t *rapid.T) limit.Reservation {
	count := func(label string) int64 { return rapid.Int64Range(0, 300).Draw(t, label) }
	return limit.Reservation{
		Tokens: count("tokens"), Slots: rapid.Int64Range(0, 6).Draw(t, "slots"),
		Hold: limit.Hold{
			Prompt: count("prompt"), Spare: count("spare") / 4, Output: count("output"), Most: 10 * count("most"), Least: count("least") / 50,
			Extended: rapid.Bool().Draw(t, "extended"),
		},
	}
}

// moreSlots is what a lease must take for a reservation.
func (m *limitsModel) moreSlots(l *modelLease, r limit.Reservation) (own, wide int64) {
	if l.slots == 0 {
		return 0, 0
	}
	own, wide = max(1, r.Slots), max(1, r.Slots)
	if m.caps.Concurrent >= 0 {
		own = min(own, max(1, m.caps.Concurrent)) // at most all of the key's
	}
	if m.caps.Global >= 0 {
		wide = min(wide, max(1, m.caps.Global/4)) // at most a quarter of the gateway's
	}
	return max(0, own-l.slots), max(0, wide-l.wide)
}

func (m *limitsModel) predictReserve(l *modelLease, r limit.Reservation) forecast {
	own, wide := m.moreSlots(l, r)
	slots, _, _ := m.of(nil)
	keySlots, _, _ := m.of(l.key)
	switch {
	case wide > 0 && m.caps.Global >= 0 && slots+wide > m.caps.Global:
		return forecast{denied: limit.GlobalSlots, least: time.Second, most: time.Second}
	case own > 0 && m.caps.Concurrent >= 0 && keySlots+own > m.caps.Concurrent:
		return forecast{denied: limit.KeySlots, least: time.Second, most: time.Second}
	}
	return m.predictTokens(l.key, m.view(l.key.id), m.caps, r.Tokens, max(1, r.Hold.Prompt+r.Hold.Least), r.Hold.Spare)
}

func (m *limitsModel) take(l *modelLease, r limit.Reservation, d limit.Decision) {
	own, wide := m.moreSlots(l, r)
	l.hasReserved, l.reserved = true, r.Tokens
	l.slots += own
	l.wide += wide
	if m.caps.Quota >= 0 {
		h := r.Hold
		left := m.caps.Quota - l.key.quota - m.held(l.key) - h.Prompt
		output := max(h.Output, h.Least)
		if h.Extended {
			output = max(output, modelAhead(left))
		} else {
			output = max(2*output, min(4096, left), left/16)
		}
		output = min(h.Most, output, max(0, left))
		l.granted = h.Prompt + output
		l.held = l.granted + min(h.Spare, max(0, left)-output)
	}
	m.equal("granted", d.Granted, l.granted)
}

func (m *limitsModel) reserveSome(t *rapid.T) {
	l, r := m.pick(t), m.drawReservation(t)
	if l.hasReserved {
		if _, err := m.store.Reserve(m.ctx, l.id, m.caps, r); !errors.Is(err, limit.ErrLease) {
			m.t.Fatalf("second Reserve: got %v, want ErrLease", err)
		}
		return
	}
	l.key.debt.under(m.caps.Tokens, m.now)
	want := m.predictReserve(l, r)
	d, err := m.store.Reserve(m.ctx, l.id, m.caps, r)
	if !m.agree("Reserve", want, d, err) {
		return
	}
	if d.Denied == limit.Admitted {
		m.take(l, r, d)
	}
	m.rates(l.key, d)
	_, _, reserved := m.of(l.key)
	if d.Denied != limit.TokensWindow || d.RetryAfter > 5*time.Minute || m.caps.Tokens == 0 || reserved > 0 || !rapid.Bool().Draw(t, "comes back") {
		return
	}
	m.elapse(d.RetryAfter)
	again, err := m.store.Reserve(m.ctx, l.id, m.caps, r)
	if err == nil && again.Denied == limit.TokensWindow {
		m.t.Fatalf("refused by tokens again after %v", d.RetryAfter)
	}
	if err == nil && again.Denied == limit.Admitted {
		m.take(l, r, again)
	}
}

// modelAhead is what a running answer may hold unasked.
func modelAhead(left int64) int64 { return min(left/256, 4096) }

func (m *limitsModel) extendSome(t *rapid.T) {
	l, total := m.pick(t), rapid.Int64Range(0, 900).Draw(t, "total")
	got, err := m.store.Extend(m.ctx, l.id, m.caps, total)
	switch {
	case l.granted < 0 || m.caps.Quota < 0:
	case l.key.quota < 0:
		if !errors.Is(err, limit.ErrUnseeded) {
			m.t.Fatalf("Extend: got %v, want ErrUnseeded", err)
		}
		return
	default:
		left := max(0, m.caps.Quota-l.key.quota-m.held(l.key))
		l.granted = max(l.granted, l.total)
		want := max(0, total+max(256, modelAhead(left))-l.granted)
		more := min(want, left)
		l.granted += more
		l.held += more
		l.granted += min(want-more, max(0, l.held-(l.granted-l.total))) // its own spare
	}
	if err != nil || got != l.granted {
		m.t.Fatalf("Extend to %d: got %d, %v, want %d", total, got, err, l.granted)
	}
}

func (m *limitsModel) oweSome(t *rapid.T) {
	k := rapid.SampledFrom(m.keys).Draw(t, "key")
	tokens := rapid.Int64Range(0, 500).Draw(t, "unpaid")
	if err := m.store.Owe(m.ctx, k.id, m.caps.Tokens, tokens); err != nil {
		m.t.Fatalf("Owe: %v", err)
	}
	k.debt.under(m.caps.Tokens, m.now)
	k.debt.unpaid = max(k.debt.unpaid, float64(tokens))
	k.debt.under(m.caps.Tokens, m.now)
}

func (m *limitsModel) spendSome(t *rapid.T) {
	var batch []limit.Spend
	for range rapid.IntRange(1, 3).Draw(t, "batch") {
		l := m.pick(t)
		total := rapid.Int64Range(0, 400).Draw(t, "total")
		batch = append(batch, limit.Spend{LeaseID: l.id, Total: total, QuotaPeriod: period})
		m.grow(l, total-l.total)
	}
	if err := m.store.Spend(m.ctx, batch); err != nil {
		m.t.Fatalf("Spend: %v", err)
	}
}

func (m *limitsModel) grow(l *modelLease, tokens int64) {
	if tokens <= 0 {
		return
	}
	l.total += tokens
	l.reserved -= min(l.reserved, tokens)
	l.held -= min(l.held, tokens)
	l.key.debt.grow(float64(tokens), m.now)
	l.key.tokens = append(l.key.tokens, &modelEvent{m.now, tokens, l})
	if l.key.quota >= 0 {
		l.key.quota += tokens
		l.quotaShare += tokens
	}
}

func (m *limitsModel) releaseOne(t *rapid.T) {
	l := m.pick(t)
	f := limit.Final{
		Total: rapid.Int64Range(0, 400).Draw(t, "total"), QuotaPeriod: period,
		GiveBackRequest: rapid.Bool().Draw(t, "give back"),
	}
	m.end(l.id, f)
	m.grow(l, f.Total-l.total)
	if back := l.total - f.Total; back > 0 {
		l.key.debt.grow(-float64(back), m.now)
	}
	if back := l.total - f.Total; back > 0 {
		for i := len(l.key.tokens) - 1; i >= 0 && back > 0; i-- {
			if e := l.key.tokens[i]; e.of == l {
				share := min(e.n, back)
				e.n -= share
				back -= share
			}
		}
		if l.key.quota >= 0 {
			l.key.quota -= min(l.quotaShare, l.total-f.Total)
		}
	}
	m.drop(l, f.GiveBackRequest)
	if ok, err := m.store.Release(m.ctx, l.id, f); ok || err != nil {
		m.t.Fatalf("second Release: got %v, %v, want false", ok, err)
	}
}

// drop ends a lease in the model.
func (m *limitsModel) drop(l *modelLease, giveBackRequest bool) {
	for _, e := range l.key.requests {
		if e.of == l && giveBackRequest {
			e.n = 0
		}
	}
	m.remove(l)
}

// restore adds use from before, as after a restart.
func (m *limitsModel) restore(t *rapid.T) {
	k := rapid.SampledFrom(m.keys).Draw(t, "key")
	ago := time.Duration(rapid.IntRange(0, 10_000).Draw(t, "ago")) * 7 * time.Millisecond
	tokens, requests := rapid.Int64Range(0, 50).Draw(t, "tokens"), rapid.Int64Range(0, 2).Draw(t, "requests")
	if err := m.store.Restore(m.ctx, k.id, ago, tokens, requests); err != nil {
		m.t.Fatalf("Restore: %v", err)
	}
	if ago >= limit.Window {
		return
	}
	if ago >= limit.Window-time.Second {
		k.late = max(k.late, m.now-ago+limit.Window+2*time.Second)
	}
	byTime := func(a, b *modelEvent) int { return cmp.Compare(a.at, b.at) }
	k.tokens = append(k.tokens, &modelEvent{m.now - ago, tokens, nil})
	slices.SortStableFunc(k.tokens, byTime)
	k.requests = append(k.requests, &modelEvent{m.now - ago, requests, nil})
	slices.SortStableFunc(k.requests, byTime)
}

func (m *limitsModel) letPass(t *rapid.T) {
	// Multiples of 7 ms never sum up to a whole lease life or window, so that
	// nothing hangs on which side of an instant a store falls.
	const step = 7 * time.Millisecond
	short, long := rapid.IntRange(1, 300), rapid.IntRange(1, 10_000)
	m.elapse(time.Duration(rapid.OneOf(short, long).Draw(t, "time")) * step)
}

func (m *limitsModel) elapse(d time.Duration) {
	m.pass(d)
	m.now += d
	for _, l := range slices.Clone(m.leases) {
		if !l.claimed && m.now-l.born >= limit.ProvisionalLife {
			m.expired++
			m.drop(l, true)
		}
	}
}

// compare holds everything that can be seen against the model.
func (m *limitsModel) compare() {
	for _, k := range m.keys {
		got := m.view(k.id)
		slots, leases, reserved := m.of(k)
		if got.QuotaUsed < 0 && leases == 0 {
			k.quota = -1 // an idle key may be forgotten; its counter is asked for again
		}
		want := limit.View{
			KeyID: k.id, Slots: slots, Leases: leases, Reserved: reserved, QuotaUsed: k.quota, QuotaPeriod: period,
			RequestsWindow: got.RequestsWindow, TokensWindow: got.TokensWindow, QuotaHeld: m.held(k), Debt: got.Debt,
		}
		if debt := k.debt.owed(m.now); float64(got.Debt) < debt-0.1 || float64(got.Debt) > debt+1.1 {
			m.t.Fatalf("debt: got %d, want %v", got.Debt, debt)
		}
		if diff := gocmp.Diff(want, got); diff != "" {
			m.t.Fatalf("view (-want +got):\n%s", diff)
		}
		m.between("requests in window", got.RequestsWindow, k, k.requests)
		m.between("tokens in window", got.TokensWindow, k, k.tokens)
	}
	slots, leases, reserved := m.of(nil)
	want := limit.Totals{Leases: leases, Slots: slots, Reserved: reserved, Expired: m.expired}
	if diff := gocmp.Diff(want, m.totals()); diff != "" {
		m.t.Fatalf("totals (-want +got):\n%s", diff)
	}
}

// between wants all of the last 60 s counted and nothing that is a second older.
func (m *limitsModel) between(what string, got int64, k *modelKey, events []*modelEvent) {
	least, most := m.sum(events, limit.Window), m.sum(events, limit.Window+k.over(m.now))
	if got < least || got > most {
		m.t.Fatalf("%s: got %d, want %d to %d", what, got, least, most)
	}
}

// finish releases everything and wants nothing left over.
func (m *limitsModel) finish() {
	for len(m.leases) > 0 {
		l := m.leases[0]
		m.end(l.id, limit.Final{Total: l.total, QuotaPeriod: period})
		m.drop(l, false)
	}
	m.elapse(limit.Window + time.Second)
	m.compare()
	for _, k := range m.keys {
		v := m.view(k.id)
		if v.Slots+v.Leases+v.RequestsWindow+v.TokensWindow+v.Reserved != 0 {
			m.t.Fatalf("left over when idle: %+v", v)
		}
	}
}
