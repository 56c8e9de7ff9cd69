package limit

import (
	"context"
	"time"
)

// Reserve implements [Store.Reserve].
func (m *Memory) Reserve(_ context.Context, leaseID string, caps Caps, r Reservation) (Decision, error) {
	now := m.lock()
	defer m.unlock(now)
	if m.closed {
		return Decision{}, ErrUnavailable
	}
	l := m.leases[leaseID]
	if l == nil || l.hasReserved {
		return Decision{}, ErrLease
	}
	a, r := l.account, r.Bounded()
	a.debt.under(caps.Tokens, now)
	a.slide(now)
	own, wide := l.more(&caps, r.Slots)
	retry := time.Second
	denied := m.allowSlots(a, &caps, own, wide)
	if denied == Admitted {
		var err error
		if denied, retry, err = a.check(&caps, r.Tokens, r.Hold.need(), r.Hold.Spare, now); err != nil {
			return Decision{}, err
		}
	}
	if denied == Admitted {
		m.take(l, own, wide)
		m.reserve(l, r.Tokens)
		if caps.Quota >= 0 {
			used, _ := a.quota.used(caps.QuotaPeriod) // check has seen it
			l.granted = 0
			granted, spare := r.Hold.of(caps.Quota - used - a.held)
			l.hold(granted + spare)
			l.granted = granted
		}
	}
	d := a.decide(denied, retry, &caps, now)
	d.Granted = l.granted
	m.tellSlots(&d, a, &caps, own, wide)
	return d, nil
}

// more is how many slots a lease must take for so many sequences.
func (l *lease) more(caps *Caps, sequences int64) (own, wide int64) {
	if l.slots == 0 {
		return 0, 0
	}
	own, wide = caps.slots(sequences)
	return max(0, own-l.slots), max(0, wide-l.wide)
}

func (m *Memory) reserve(l *lease, tokens int64) {
	l.hasReserved = true
	l.reserved = tokens
	l.account.reserved += tokens
	m.reserved += tokens
}

// Extend implements [Store.Extend].
func (m *Memory) Extend(_ context.Context, leaseID string, caps Caps, total int64) (int64, error) {
	now := m.lock()
	defer m.unlock(now)
	if m.closed {
		return 0, ErrUnavailable
	}
	l := m.leases[leaseID]
	if l == nil {
		return 0, ErrLease
	}
	if err := l.extend(&caps, bounded(total)); err != nil {
		return 0, err
	}
	return l.granted, nil
}

// Owe implements [Store.Owe].
func (m *Memory) Owe(_ context.Context, keyID string, limit, unpaid int64) error {
	now := m.lock()
	defer m.unlock(now)
	a := m.open(keyID, now)
	a.debt.under(limit, now)
	a.debt.raise(unpaid, now)
	m.rest(a, now)
	return nil
}

// take gives slots to a lease.
func (m *Memory) take(l *lease, own, wide int64) {
	l.slots += own
	l.wide += wide
	l.account.slots += own
	m.slots += wide
}

// tellSlots says of a refusal by slots how many were asked for and free.
func (m *Memory) tellSlots(d *Decision, a *account, caps *Caps, own, wide int64) {
	switch d.Denied {
	case GlobalSlots:
		d.Need, d.Free = wide, max(0, caps.Global-m.slots)
	case KeySlots:
		d.Need, d.Free = own, max(0, caps.Concurrent-a.slots)
	case Admitted, Requests, TokensWindow, Quota:
	}
}

// allowSlots checks that so many slots are free; the empty denial says so.
func (m *Memory) allowSlots(a *account, caps *Caps, own, wide int64) Denial {
	switch {
	case wide > 0 && caps.Global >= 0 && m.slots+wide > caps.Global:
		return GlobalSlots
	case own > 0 && caps.Concurrent >= 0 && a.slots+own > caps.Concurrent:
		return KeySlots
	}
	return Admitted
}
