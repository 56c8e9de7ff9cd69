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

func (m *limitsModel) reserveSome(t *rapid.T) {
	l := m.pick(t)
	tokens := rapid.Int64Range(0, 300).Draw(t, "tokens")
	want := m.predictTokens(l.key, m.view(l.key.id), m.caps, tokens)
	d, err := m.store.Reserve(m.ctx, l.id, m.caps, tokens)
	if l.hasReserved {
		if !errors.Is(err, limit.ErrLease) {
			m.t.Fatalf("second Reserve: got %v, want ErrLease", err)
		}
		return
	}
	if !m.agree("Reserve", want, d, err) {
		return
	}
	if d.Denied == limit.Admitted {
		l.hasReserved, l.reserved = true, tokens
	}
	m.rates(l.key, d)
	_, _, reserved := m.of(l.key)
	if d.Denied != limit.TokensWindow || m.caps.Tokens == 0 || reserved > 0 || !rapid.Bool().Draw(t, "comes back") {
		return
	}
	m.elapse(d.RetryAfter)
	again, err := m.store.Reserve(m.ctx, l.id, m.caps, tokens)
	if err == nil && again.Denied == limit.TokensWindow {
		m.t.Fatalf("refused by tokens again after %v", d.RetryAfter)
	}
	if err == nil && again.Denied == limit.Admitted {
		l.hasReserved, l.reserved = true, tokens
	}
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
			RequestsWindow: got.RequestsWindow, TokensWindow: got.TokensWindow,
		}
		if diff := gocmp.Diff(want, got); diff != "" {
			m.t.Fatalf("view (-want +got):\n%s", diff)
		}
		m.between("requests in window", got.RequestsWindow, k.requests)
		m.between("tokens in window", got.TokensWindow, k.tokens)
	}
	slots, leases, reserved := m.of(nil)
	want := limit.Totals{Leases: leases, Slots: slots, Reserved: reserved, Expired: m.expired}
	if diff := gocmp.Diff(want, m.totals()); diff != "" {
		m.t.Fatalf("totals (-want +got):\n%s", diff)
	}
}

// between wants all of the last 60 s counted and nothing older than 61 s.
func (m *limitsModel) between(what string, got int64, events []*modelEvent) {
	least, most := m.sum(events, limit.Window), m.sum(events, limit.Window+time.Second)
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
