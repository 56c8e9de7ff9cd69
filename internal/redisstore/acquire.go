package redisstore

import (
	"context"

	"tollgate/internal/limit"
)

// learn keeps what a decision of Redis said of a key's counters.
func (s *Store) learn(key string, c *limit.Caps, d *sharedDecision) {
	s.journal.learn(key, c.QuotaPeriod, d.used)
	s.journal.learnDebt(key, c.Tokens, d.unpaid)
}

// Acquire implements [limit.Store].
func (s *Store) Acquire(ctx context.Context, ask limit.Ask) (limit.Decision, error) {
	var d limit.Decision
	known := unasked
	err := s.do(ctx, "acquire lease", func(ctx context.Context) error {
		args := append([]string{ask.LeaseID, ask.KeyID, flag(ask.Slot), flag(ask.Tokens)}, capArgs(&ask.Caps)...)
		var got sharedDecision
		r, err := s.conn.call(ctx, s.conn.scripts.acquire, args...)
		if err == nil {
			got, err = decode(&ask.Caps, r)
		}
		if err != nil {
			known = asked
			return err
		}
		s.learn(ask.KeyID, &ask.Caps, &got)
		d = got.Decision
		d.Granted = 0
		if d.Denied == limit.Admitted {
			s.journal.acquired(&ask, confirmedProvisional)
			s.local.copyAdmission(ctx, ask.LeaseID, ask.KeyID, ask.Slot)
		}
		return nil
	}, func() error {
		var err error
		d, err = s.local.acquire(ctx, &ask)
		switch {
		case err == nil && d.Denied == limit.Admitted:
			s.journal.acquired(&ask, known)
		case known == asked:
			s.journal.refused(&ask)
		}
		return err
	})
	return d, err
}

// Claim implements [limit.Store].
func (s *Store) Claim(ctx context.Context, leaseID string) error {
	return s.do(ctx, "claim lease", func(ctx context.Context) error {
		return s.claimShared(ctx, leaseID, leaseID)
	}, func() error {
		if err := s.local.memory.Claim(ctx, leaseID); err != nil {
			return err
		}
		s.journal.claimed(leaseID, nil, false)
		return nil
	})
}

// ClaimForeign implements [limit.Store].
func (s *Store) ClaimForeign(ctx context.Context, ask limit.Ask) error {
	slots := int64(0)
	if ask.Slot {
		slots = 1
	}
	return s.do(ctx, "claim lease of another replica", func(ctx context.Context) error {
		return s.claimShared(ctx, ask.LeaseID, ask.LeaseID, ask.KeyID, number(slots))
	}, func() error {
		if err := s.local.memory.ClaimForeign(ctx, ask); err != nil {
			return err
		}
		// Redis may hold it, from the replica that acquired it. That one counted
		// its request, and gives it back when it sees no claim.
		l := newLease(ask.LeaseID, ask.KeyID, confirmedProvisional)
		l.slots, l.wide = slots, slots
		s.journal.claimed(ask.LeaseID, l, false)
		return nil
	})
}

func (s *Store) claimShared(ctx context.Context, leaseID string, args ...string) error {
	r, err := s.conn.call(ctx, s.conn.scripts.claim, args...)
	switch {
	case err != nil:
		return err
	case r.verdict == "lease":
		return limit.ErrLease
	case r.verdict != "ok":
		return unexpected(r.verdict)
	}
	l, err := described(leaseID, r)
	if err != nil {
		return err
	}
	claimed := *l // from here on the journal may change l
	s.journal.claimed(leaseID, l, true)
	s.local.copyClaim(ctx, &claimed)
	return nil
}

// described reads what claim.lua says of a lease, for a replica that did not
// acquire it itself.
func described(leaseID string, r reply) (*lease, error) {
	if len(r.values) != 7 {
		return nil, unexpected(r.verdict)
	}
	key, err := r.values[0].ToString()
	if err != nil {
		return nil, unexpected(r.verdict)
	}
	var v [6]int64
	for i := range v {
		if v[i], err = r.integer(i + 1); err != nil {
			return nil, err
		}
	}
	l := newLease(leaseID, key, confirmedClaimed)
	l.slots, l.wide, l.hasReserved, l.reserved, l.total, l.acked, l.granted = v[0], v[1], v[2] == 1, v[3], v[4], v[4], v[5]
	return l, nil
}

// Reserve implements [limit.Store].
func (s *Store) Reserve(ctx context.Context, leaseID string, caps limit.Caps, r limit.Reservation) (limit.Decision, error) {
	var d limit.Decision
	r = r.Bounded()
	h := r.Hold
	args := append([]string{
		leaseID, number(r.Tokens), number(r.Slots),
		number(h.Prompt), number(h.Output), number(h.Most), number(h.Least), flag(h.Extended), number(h.Spare),
		number(limit.SmallRest), number(limit.AheadShare), number(limit.MostAhead),
	}, capArgs(&caps)...)
	err := s.do(ctx, "reserve tokens", func(ctx context.Context) error {
		answer, err := s.conn.call(ctx, s.conn.scripts.reserve, args...)
		if err != nil {
			return err
		}
		got, err := decode(&caps, answer)
		if err != nil {
			return err
		}
		key, _ := s.journal.keyOf(leaseID)
		s.learn(key, &caps, &got)
		if d = got.Decision; d.Denied == limit.Admitted {
			s.journal.reserved(leaseID, r.Tokens, got.slots, got.wide, d.Granted, true)
			s.local.memory.Mirror(leaseID, got.slots, got.wide, r.Tokens, d.Granted) // unknown: nothing to count
		}
		return nil
	}, func() error {
		var err error
		if d, err = s.local.reserve(ctx, leaseID, &caps, r); err == nil && d.Denied == limit.Admitted {
			slots, wide := s.local.memory.Taken(leaseID)
			s.journal.reserved(leaseID, r.Tokens, slots, wide, d.Granted, false)
		} else {
			s.journal.resend(leaseID)
		}
		return err
	})
	return d, err
}

// Extend implements [limit.Store].
func (s *Store) Extend(ctx context.Context, leaseID string, caps limit.Caps, total int64) (int64, error) {
	granted := int64(0)
	total = bounded(total)
	args := append([]string{leaseID, number(total), number(limit.ExtendStep), number(limit.AheadShare), number(limit.MostAhead)}, capArgs(&caps)...)
	err := s.do(ctx, "extend reservation", func(ctx context.Context) error {
		r, err := s.conn.call(ctx, s.conn.scripts.extend, args...)
		switch {
		case err != nil:
			return err
		case r.verdict == "lease":
			return limit.ErrLease
		case r.verdict == "unseeded":
			return limit.ErrUnseeded
		case r.verdict != "ok":
			return unexpected(r.verdict)
		}
		v, err := r.integers(2)
		if err != nil {
			return err
		}
		granted = v[0]
		if key, ok := s.journal.keyOf(leaseID); ok {
			s.journal.learn(key, caps.QuotaPeriod, v[1])
		}
		s.journal.extended(leaseID, granted, true)
		s.local.memory.Grant(leaseID, granted)
		return nil
	}, func() error {
		var err error
		if granted, err = s.local.extend(ctx, leaseID, &caps, total); err == nil {
			s.journal.extended(leaseID, granted, false)
		}
		return err
	})
	return granted, err
}
