package limit

import "context"

// Adopt implements [Store.Adopt].
func (m *Memory) Adopt(_ context.Context, leaseID, keyID string, caps Caps, reserved Reservation, spent int64) error {
	now := m.lock()
	defer m.unlock(now)
	if m.closed {
		return ErrUnavailable
	}
	spent = bounded(spent)
	l := m.leases[leaseID]
	switch {
	case l == nil:
		l = m.enlist(leaseID, keyID, now)
		l.total = spent
		m.take(l, 1, 1)
	case l.account.id != keyID:
		return ErrLease
	}
	l.account.debt.under(caps.Tokens, now)
	l.claimed = true
	m.provisional.remove(&l.waiting)
	if spent > l.total {
		m.reserved -= l.grow(spent-l.total, caps.QuotaPeriod, now)
	}
	if l.hasReserved {
		return nil
	}
	reserved = reserved.Bounded()
	own, wide := l.more(&caps, reserved.Slots)
	m.take(l, own, wide)
	m.reserve(l, max(0, reserved.Tokens-l.total))
	if caps.Quota >= 0 {
		l.granted = l.total
		l.hold(max(0, reserved.Hold.All()-l.total))
	}
	return nil
}

// ClaimForeign implements [Store.ClaimForeign].
func (m *Memory) ClaimForeign(_ context.Context, ask Ask) error {
	now := m.lock()
	defer m.unlock(now)
	if m.closed {
		return ErrUnavailable
	}
	l := m.leases[ask.LeaseID]
	switch {
	case l == nil:
		l = m.enlist(ask.LeaseID, ask.KeyID, now)
		if ask.Slot {
			m.take(l, 1, 1)
		}
	case l.claimed || l.account.id != ask.KeyID:
		return ErrLease
	}
	l.claimed = true
	m.provisional.remove(&l.waiting)
	return nil
}

// Lapse implements [Store.Lapse].
func (m *Memory) Lapse(_ context.Context, leaseID string, f Final) (bool, error) {
	now := m.lock()
	defer m.unlock(now)
	l := m.leases[leaseID]
	if l == nil || l.claimed {
		return false, nil
	}
	m.settle(l, f, now)
	return true, nil
}

// enlist makes a lease that holds nothing yet.
func (m *Memory) enlist(leaseID, keyID string, now instant) *lease {
	a := m.open(keyID, now)
	l := &lease{id: leaseID, account: a, granted: Unlimited}
	a.leases++
	m.idle.remove(&a.idle)
	m.leases[leaseID] = l
	return l
}

// Mirror gives a live lease what another store has decided for it, whatever the
// limits here are.
func (m *Memory) Mirror(leaseID string, slots, wide, tokens, granted int64) {
	now := m.lock()
	defer m.unlock(now)
	l := m.leases[leaseID]
	if l == nil || l.hasReserved {
		return
	}
	m.take(l, max(0, slots-l.slots), max(0, wide-l.wide))
	m.reserve(l, bounded(tokens))
	if granted >= 0 {
		l.granted = 0
		l.hold(granted)
	}
}

// Taken is how many slots a lease has, of its key's and of the gateway's.
func (m *Memory) Taken(leaseID string) (own, wide int64) {
	now := m.lock()
	defer m.unlock(now)
	if l := m.leases[leaseID]; l != nil {
		return l.slots, l.wide
	}
	return 0, 0
}

// Grant raises what a live lease may use in all to what another store says.
func (m *Memory) Grant(leaseID string, granted int64) {
	now := m.lock()
	defer m.unlock(now)
	if l := m.leases[leaseID]; l != nil && l.granted >= 0 && granted > l.granted {
		l.hold(granted - l.granted)
	}
}
