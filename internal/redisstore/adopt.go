package redisstore

import (
	"context"
	"time"

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
		r, err := s.call(ctx, s.scripts.adopt, args...)
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
		was := *l // from here on the journal may change it
		s.journal.adopted(l, caps.QuotaPeriod, true)
		s.journal.saw(keyID, caps.QuotaPeriod, v[5])
		own := caps
		own.Tokens, own.QuotaPeriod = limit.Unlimited, s.ownPeriod(caps.QuotaPeriod)
		open := reserved
		open.Tokens = was.reserved + was.total
		_ = s.shadow.Adopt(ctx, leaseID, keyID, own, open, was.total) // fails when closed
		s.shadow.Grant(leaseID, was.granted)
		return nil
	}, func() error {
		own := s.shares(ctx, keyID, &caps)
		own.Global, own.Concurrent = caps.Global, caps.Concurrent // of a sequence each, not of a share
		if err := s.shadow.Adopt(ctx, leaseID, keyID, own, reserved, spent); err != nil {
			return err
		}
		l := adoptedLease(leaseID, keyID)
		l.slots, l.wide = s.shadow.Taken(leaseID)
		l.total, l.acked, l.reserved = spent, spent, max(0, reserved.Tokens-spent)
		if caps.Quota >= 0 {
			l.granted = max(spent, reserved.Hold.All())
		}
		s.journal.adopted(l, caps.QuotaPeriod, false)
		return nil
	})
}

// adoptedLease is a lease whose request Redis has counted long ago, and that it
// may hold.
func adoptedLease(id, key string) *holding {
	now := time.Now()
	return &holding{
		id: id, key: key, granted: limit.Unlimited, claimed: true, hasReserved: true,
		known: true, kept: true, told: true, born: now, renewed: now,
	}
}

// adopted notes a lease that was taken over. One that this replica holds already
// keeps its reservation, and of its use the growth counts.
func (j *journal) adopted(taken *holding, period string, shared bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	l := j.leases[taken.id]
	if l == nil {
		l = taken
		j.leases[l.id] = l
	}
	l.claimed, l.renewed = true, taken.renewed
	if taken.total > l.total {
		j.grow(l, taken.total-l.total, period, shared)
	}
	if !l.hasReserved {
		l.hasReserved, l.reserved, l.granted, l.slots, l.wide = true, taken.reserved, taken.granted, taken.slots, taken.wide
	}
	if shared {
		l.kept = true
		return
	}
	j.touch(l)
}
