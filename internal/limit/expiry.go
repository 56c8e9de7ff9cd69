package limit

import "time"

const (
	// dropsPerCall bounds how many idle accounts one call removes, so that a
	// wave of keys that fall idle together delays nobody.
	dropsPerCall = 16
	// dropsPerTick is the same for the timer, which works while nobody calls.
	dropsPerTick = 4096
	// dropsPause is the least time between two timer calls that only remove
	// idle accounts.
	dropsPause = time.Second
)

// lock takes the mutex, reads the clock under it, so that instants never run
// backwards, and expires what is due, so that every decision sees the truth
// even when the timer is late.
func (m *Memory) lock() instant {
	m.mu.Lock()
	now := origin + time.Since(m.start)
	m.expire(now)
	for range dropsPerCall {
		if !m.dropIdle(now) {
			break
		}
	}
	return now
}

// unlock sets the timer for what expires next, gives the mutex back and then
// reports the leases that expired.
func (m *Memory) unlock(now instant) {
	m.arm(now)
	gone := m.gone
	m.gone = nil
	m.mu.Unlock()
	for _, id := range gone {
		m.onExpire(id)
	}
}

// tick runs when the timer fires.
func (m *Memory) tick() {
	now := m.lock()
	m.wake = 0
	for range dropsPerTick {
		if !m.dropIdle(now) {
			break
		}
	}
	m.unlock(now)
}

// arm sets the timer to the next expiry unless it fires before that anyway.
func (m *Memory) arm(now instant) {
	if m.closed {
		return
	}
	var next instant
	if a := m.idle.front(); a != nil {
		next = max(a.dropAt, now+dropsPause)
	}
	if l := m.provisional.front(); l != nil && (next == 0 || l.expires < next) {
		next = l.expires
	}
	if next == 0 || (m.wake != 0 && m.wake <= next) {
		return
	}
	m.wake = next
	if m.timer == nil {
		m.timer = time.AfterFunc(next-now, m.tick)
		return
	}
	m.timer.Reset(next - now)
}

// expire ends the provisional leases whose life is over. They never reached
// us, so they give back their request as well.
func (m *Memory) expire(now instant) {
	for l := m.provisional.front(); l != nil && l.expires <= now; l = m.provisional.front() {
		m.expired++
		m.end(l, true, now)
		if m.onExpire != nil {
			m.gone = append(m.gone, l.id)
		}
	}
}

// end removes a lease with all that it holds.
func (m *Memory) end(l *lease, giveBackRequest bool, now instant) {
	a := l.account
	m.reserved -= l.unreserve(l.reserved)
	l.unhold(l.held)
	a.slots -= l.slots
	m.slots -= l.wide
	if giveBackRequest {
		a.requests.slide(now)
		a.requests.take(l.counted, 1)
	}
	m.provisional.remove(&l.waiting)
	delete(m.leases, l.id)
	a.leases--
	m.rest(a, now)
}

// find returns the account of a key; one of an idle key whose quota counters
// or debt are still known is opened again. Nil when nothing is known.
func (m *Memory) find(keyID string, now instant) *account {
	if a := m.accounts[keyID]; a != nil {
		return a
	}
	if !m.resting.Contains(keyID) {
		return nil
	}
	a := m.open(keyID, now)
	m.rest(a, now)
	return a
}

// open returns the account of a key, a new one if need be. The caller gives
// it a lease or calls rest.
func (m *Memory) open(keyID string, now instant) *account {
	if a := m.accounts[keyID]; a != nil {
		return a
	}
	a := &account{id: keyID}
	a.slide(now)
	if kept, ok := m.resting.Peek(keyID); ok {
		a.quota, a.debt = kept.quota, kept.debt
		m.resting.Remove(keyID)
	}
	m.accounts[keyID] = a
	return a
}

// rest notes that an account without leases was used now: when [Window] has
// passed without another use, its windows are empty and it may go.
func (m *Memory) rest(a *account, now instant) {
	if a.leases > 0 {
		return
	}
	m.idle.remove(&a.idle)
	a.dropAt = now + Window
	m.idle.push(&a.idle, a)
}

// dropIdle removes the account that has been idle longest, if it is due. Its
// quota counters and its debt are kept apart.
func (m *Memory) dropIdle(now instant) bool {
	a := m.idle.front()
	if a == nil || a.dropAt > now {
		return false
	}
	m.idle.remove(&a.idle)
	delete(m.accounts, a.id)
	if a.debt.pay(now); len(a.quota) > 0 || a.debt.unpaid > 0 {
		m.resting.Add(a.id, rested{a.quota, a.debt})
	}
	return true
}
