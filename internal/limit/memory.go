package limit

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	// origin is the first instant of a store: late enough that a restored
	// window does not begin before 0.
	origin = 2 * Window
	// quotasKept bounds how many idle keys keep their quota counters. One that
	// is lost is asked for again with [ErrUnseeded].
	quotasKept = 1 << 16
)

// Memory is the [Store] of one process. One mutex guards all of it, because
// the global slots make every decision a global one; no operation does more
// than a bounded walk under it.
//
// A key costs memory (about 1.6 KiB) while it has leases and for [Window]
// afterwards; of an idle key only its quota counters and its debt stay, for the
// 65,536 keys used last. Claimed leases live until [Memory.Release]; provisional ones give
// back everything after [ProvisionalLife].
type Memory struct {
	start    time.Time // carries the monotonic reading that instants count from
	onExpire func(leaseID string)

	mu          sync.Mutex
	leases      map[string]*lease              // guarded by mu, like all that follows
	accounts    map[string]*account            // every key with leases or use in the window
	resting     *simplelru.LRU[string, rested] // what stays of keys without an account
	provisional queue[lease]                   // by expiry
	idle        queue[account]                 // by dropAt
	blank       account                        // what an unknown key looks like; never changed
	slots       int64
	reserved    int64
	expired     uint64
	gone        []string // leases that expired under this lock, for onExpire
	timer       *time.Timer
	wake        instant // when the timer fires; 0 when it is not set
	closed      bool
}

var _ Store = (*Memory)(nil)

// rested is what stays of an idle key.
type rested struct {
	quota quotaBook
	debt  debt
}

// MemoryOption changes what [NewMemory] makes.
type MemoryOption func(*Memory)

// OnExpire names a function that is told the id of every provisional lease
// that expires unclaimed. It is called outside the store's lock, from whatever
// goroutine noticed, and may call the store. It must not block.
func OnExpire(f func(leaseID string)) MemoryOption {
	return func(m *Memory) { m.onExpire = f }
}

// NewMemory returns an empty store. It starts no goroutine: expiry is noticed
// by the next call or by a timer, which [Memory.Close] stops.
func NewMemory(opts ...MemoryOption) *Memory {
	resting, err := simplelru.NewLRU[string, rested](quotasKept, nil)
	if err != nil {
		panic(err) // only a size below 1 is refused
	}
	m := &Memory{
		start:    time.Now(),
		leases:   make(map[string]*lease),
		accounts: make(map[string]*account),
		resting:  resting,
	}
	for _, opt := range opts {
		opt(m)
	}
	return m
}

// Acquire implements [Store.Acquire].
func (m *Memory) Acquire(_ context.Context, ask Ask) (Decision, error) {
	now := m.lock()
	defer m.unlock(now)
	if m.closed {
		return Decision{}, ErrUnavailable
	}
	if m.leases[ask.LeaseID] != nil {
		return Decision{}, ErrLease
	}
	a := m.find(ask.KeyID, now)
	if a == nil {
		a = &m.blank
	} else {
		a.debt.under(ask.Caps.Tokens, now)
	}
	a.slide(now)
	denied, retry, err := m.check(a, &ask, now)
	if err != nil {
		return Decision{}, err
	}
	if denied == Admitted {
		if a == &m.blank {
			a = m.open(ask.KeyID, now)
		}
		m.admit(a, &ask, now)
	}
	d := a.decide(denied, retry, &ask.Caps, now)
	m.tellSlots(&d, a, &ask.Caps, 1, 1)
	return d, nil
}

// check is the decision of Acquire; it changes nothing.
func (m *Memory) check(a *account, ask *Ask, now instant) (Denial, time.Duration, error) {
	caps := &ask.Caps
	if retry, ok := a.allowRequest(caps.Requests, now); !ok {
		return Requests, retry, nil
	}
	if ask.Slot {
		if denied := m.allowSlots(a, caps, 1, 1); denied != Admitted {
			return denied, time.Second, nil
		}
	}
	if !ask.Tokens {
		return Admitted, 0, nil
	}
	return a.check(caps, 1, 1, 0, now) // not spent: room for one token at least
}

// check is the decision over token window and quota; it changes nothing.
func (a *account) check(caps *Caps, tokens, need, spare int64, now instant) (Denial, time.Duration, error) {
	if retry, ok := a.allowTokens(caps.Tokens, tokens, now); !ok {
		return TokensWindow, retry, nil
	}
	if retry, ok, err := a.allowQuota(caps, need, spare); err != nil || !ok {
		return Quota, retry, err
	}
	return Admitted, 0, nil
}

// admit takes what check allowed.
func (m *Memory) admit(a *account, ask *Ask, now instant) {
	a.debt.under(ask.Caps.Tokens, now)
	l := m.enlist(ask.LeaseID, ask.KeyID, now)
	l.expires = now + ProvisionalLife
	l.counted, _ = split(now)
	a.requests.add(now, 1)
	if ask.Slot {
		m.take(l, 1, 1)
	}
	m.provisional.push(&l.waiting, l)
}

// Claim implements [Store.Claim].
func (m *Memory) Claim(_ context.Context, leaseID string) error {
	now := m.lock()
	defer m.unlock(now)
	if m.closed {
		return ErrUnavailable
	}
	l := m.leases[leaseID]
	if l == nil || l.claimed {
		return ErrLease
	}
	l.claimed = true
	m.provisional.remove(&l.waiting)
	return nil
}

// Spend implements [Store.Spend].
func (m *Memory) Spend(_ context.Context, batch []Spend) error {
	now := m.lock()
	defer m.unlock(now)
	for i := range batch {
		s := &batch[i]
		l := m.leases[s.LeaseID]
		if l == nil {
			continue
		}
		if grown := bounded(s.Total) - l.total; grown > 0 {
			m.reserved -= l.grow(grown, s.QuotaPeriod, now)
		}
	}
	return nil
}

// Release implements [Store.Release].
func (m *Memory) Release(_ context.Context, leaseID string, f Final) (bool, error) {
	now := m.lock()
	defer m.unlock(now)
	l := m.leases[leaseID]
	if l == nil {
		return false, nil
	}
	m.settle(l, f, now)
	return true, nil
}

// settle ends a lease with its final use.
func (m *Memory) settle(l *lease, f Final, now instant) {
	switch total := bounded(f.Total); {
	case total > l.total:
		m.reserved -= l.grow(total-l.total, f.QuotaPeriod, now)
	case total < l.total:
		l.shrink(l.total-total, now)
	}
	m.end(l, f.GiveBackRequest, now)
}

// Renew implements [Store.Renew]; leases in memory live without it.
func (m *Memory) Renew(context.Context, []string) error { return nil }

// Seed implements [Store.Seed].
func (m *Memory) Seed(_ context.Context, keyID, period string, used int64) error {
	now := m.lock()
	defer m.unlock(now)
	if m.closed {
		return ErrUnavailable
	}
	a := m.open(keyID, now)
	a.quota.seed(period, used)
	m.rest(a, now)
	return nil
}

// Restore implements [Store.Restore].
func (m *Memory) Restore(_ context.Context, keyID string, ago time.Duration, tokens, requests int64) error {
	now := m.lock()
	defer m.unlock(now)
	if ago = max(ago, 0); ago >= Window {
		return nil
	}
	a := m.open(keyID, now)
	a.slide(now)
	a.tokens.add(now-ago, bounded(tokens))
	a.requests.add(now-ago, bounded(requests))
	m.rest(a, now)
	return nil
}

// Key implements [Store.Key].
func (m *Memory) Key(_ context.Context, keyID string, caps Caps) (View, error) {
	now := m.lock()
	defer m.unlock(now)
	v := View{KeyID: keyID, QuotaUsed: -1, QuotaPeriod: caps.QuotaPeriod}
	a := m.accounts[keyID]
	if a == nil {
		if kept, ok := m.resting.Peek(keyID); ok {
			v.setQuota(kept.quota)
			v.Debt = kept.debt.tokens(now)
		}
		return v, nil
	}
	a.slide(now)
	v.Slots, v.Leases, v.Reserved = a.slots, a.leases, a.reserved
	v.RequestsWindow, v.TokensWindow = a.requests.total, a.tokens.total
	v.Debt, v.QuotaHeld = a.debt.tokens(now), a.held
	v.setQuota(a.quota)
	return v, nil
}

func (v *View) setQuota(b quotaBook) {
	if used, known := b.used(v.QuotaPeriod); known {
		v.QuotaUsed = used
	}
}

// Totals implements [Store.Totals].
func (m *Memory) Totals(context.Context) (Totals, error) {
	now := m.lock()
	defer m.unlock(now)
	return Totals{Leases: int64(len(m.leases)), Slots: m.slots, Reserved: m.reserved, Expired: m.expired}, nil
}

// Close stops the timer. Afterwards Acquire, Claim, Reserve and Seed answer
// [ErrUnavailable]; what is live can still be spent and released.
func (m *Memory) Close() error {
	now := m.lock()
	defer m.unlock(now)
	m.closed = true
	if m.timer != nil {
		m.timer.Stop()
	}
	return nil
}
