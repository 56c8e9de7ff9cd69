package redisstore

import (
	"context"

	"tollgate/internal/limit"
)

// Adopt implements [limit.Store]. Redis may hold the lease still, from the replica
// that admitted it.
func (s *Store) Adopt(ctx context.Context, leaseID, keyID string, caps limit.Caps, reserved limit.Reservation, spent int64) error {
	reserved, spent = reserved.Bounded(), bounded(spent)
	args := append([]string{
		leaseID, keyID, number(reserved.Slots), number(reserved.Tokens), number(reserved.Hold.All()), number(spent),
	}, capArgs(&caps)...)
	return s.do(ctx, "adopt lease", func(ctx context.Context) error {
		r, err := s.conn.call(ctx, s.conn.scripts.adopt, args...)
		switch {
		case err != nil:
			return err
		case r.verdict == "lease":
			return limit.ErrLease
		case r.verdict != "ok":
			return unexpected(r.verdict)
		}
		v, err := r.integers(6)
		if err != nil {
			return err
		}
		l := adoptedLease(leaseID, keyID)
		l.slots, l.wide, l.reserved, l.total, l.acked, l.granted = v[0], v[1], v[2], v[3], v[3], v[4]
		taken := *l // from here on the journal may change l
		s.journal.adopted(l, caps.QuotaPeriod, true)
		s.journal.learn(keyID, caps.QuotaPeriod, v[5])
		s.local.copyAdoption(ctx, &taken, caps, reserved)
		return nil
	}, func() error {
		if err := s.local.adopt(ctx, leaseID, keyID, &caps, reserved, spent); err != nil {
			return err
		}
		l := adoptedLease(leaseID, keyID)
		l.slots, l.wide = s.local.memory.Taken(leaseID)
		l.total, l.acked, l.reserved = spent, spent, max(0, reserved.Tokens-spent)
		if caps.Quota >= 0 {
			l.granted = max(spent, reserved.Hold.All())
		}
		s.journal.adopted(l, caps.QuotaPeriod, false)
		return nil
	})
}

// adoptedLease is a lease whose request Redis has counted long ago, and that Redis
// may hold.
func adoptedLease(id, key string) *lease {
	l := newLease(id, key, confirmedClaimed)
	l.claimed, l.hasReserved = true, true
	return l
}
