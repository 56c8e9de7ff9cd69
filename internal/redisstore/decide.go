package redisstore

import (
	"context"
	"strconv"
	"time"

	"tollgate/internal/limit"
)

// maxLimit bounds limits that callers name, so that a Lua number holds them.
const maxLimit = int64(1) << 52

// maxSlots bounds the slots of one request, as in [limit.Memory].
const maxSlots = 1 << 20

func number(n int64) string { return strconv.FormatInt(n, 10) }

func flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// capArgs are caps as the scripts read them.
func capArgs(c *limit.Caps) []string {
	args := make([]string, 0, 6)
	for _, n := range []int64{c.Global, c.Concurrent, c.Requests, c.Tokens, c.Quota} {
		args = append(args, number(min(n, maxLimit)))
	}
	return append(args, c.QuotaPeriod)
}

// decisionValues is how many numbers a decision has, taken the slots that the
// lease holds after it.
const decisionValues = 15

type taken struct{ slots, wide int64 }

// decision reads the reply of acquire.lua and reserve.lua.
func (s *Store) decision(key string, c *limit.Caps, r reply) (limit.Decision, taken, error) {
	switch r.verdict {
	case "lease":
		return limit.Decision{}, taken{}, limit.ErrLease
	case "unseeded":
		return limit.Decision{}, taken{}, limit.ErrUnseeded
	case "ok", string(limit.Requests), string(limit.GlobalSlots), string(limit.KeySlots), string(limit.TokensWindow), string(limit.Quota):
	default:
		return limit.Decision{}, taken{}, unexpected(r.verdict)
	}
	v, err := r.integers(decisionValues)
	if err != nil {
		return limit.Decision{}, taken{}, err
	}
	wait, requests, requestsReset, tokens, tokensReset, reserved, used := v[0], v[1], v[2], v[3], v[4], v[5], v[6]
	held := v[7]
	d := limit.Decision{
		RetryAfter: time.Duration(wait) * time.Microsecond, Debt: v[8], Need: v[9], Free: v[10],
		Requests: limit.Rate{Limit: limit.Unlimited}, Tokens: limit.Rate{Limit: limit.Unlimited}, Quota: limit.Rate{Limit: limit.Unlimited},
	}
	if r.verdict != "ok" {
		d.Denied = limit.Denial(r.verdict)
	}
	if c.Requests >= 0 {
		d.Requests = rate(c.Requests, requests, requestsReset)
	}
	if c.Tokens >= 0 {
		d.Tokens = rate(c.Tokens, tokens+reserved, tokensReset)
		if d.Debt > 0 {
			d.Tokens.Remaining = 0
		}
	}
	if c.Quota == 0 || c.Quota > 0 && used >= 0 {
		d.Quota = limit.Rate{Limit: c.Quota, Remaining: max(0, c.Quota-max(0, used)-held)}
	}
	s.journal.saw(key, c.QuotaPeriod, used)
	s.journal.sawDebt(key, c.Tokens, v[14])
	d.Granted = v[11]
	return d, taken{v[12], v[13]}, nil
}

func rate(limited, used, reset int64) limit.Rate {
	return limit.Rate{Limit: limited, Remaining: max(0, limited-used), Reset: time.Duration(reset) * time.Microsecond}
}

// Acquire implements [limit.Store].
func (s *Store) Acquire(ctx context.Context, ask limit.Ask) (limit.Decision, error) {
	var (
		d       limit.Decision
		doubted bool
	)
	err := s.do(ctx, "acquire lease", func(ctx context.Context) error {
		args := append([]string{ask.LeaseID, ask.KeyID, flag(ask.Slot), flag(ask.Tokens)}, capArgs(&ask.Caps)...)
		r, err := s.call(ctx, s.scripts.acquire, args...)
		if err == nil {
			d, _, err = s.decision(ask.KeyID, &ask.Caps, r)
			d.Granted = 0
		}
		doubted = err != nil
		if err == nil && d.Denied == limit.Admitted {
			s.journal.acquired(&ask, true, true)
			s.reflect(ctx, ask.LeaseID, ask.KeyID, ask.Slot)
		}
		return err
	}, func() error {
		var err error
		d, err = s.acquireAlone(ctx, &ask)
		switch {
		case err == nil && d.Denied == limit.Admitted:
			s.journal.acquired(&ask, false, doubted)
		case doubted:
			s.journal.doubted(&ask)
		}
		return err
	})
	return d, err
}

// Claim implements [limit.Store].
func (s *Store) Claim(ctx context.Context, leaseID string) error {
	return s.do(ctx, "claim lease", func(ctx context.Context) error {
		r, err := s.call(ctx, s.scripts.claim, leaseID)
		switch {
		case err != nil:
			return err
		case r.verdict == "lease":
			return limit.ErrLease
		case r.verdict != "ok" || len(r.values) != 7:
			return unexpected(r.verdict)
		}
		l := &holding{id: leaseID, known: true, told: true, born: time.Now()}
		if l.key, err = r.values[0].ToString(); err != nil {
			return unexpected(r.verdict)
		}
		var v [6]int64
		for i := range v {
			if v[i], err = r.integer(i + 1); err != nil {
				return err
			}
		}
		l.slots, l.wide, l.hasReserved, l.reserved, l.total, l.acked, l.granted = v[0], v[1], v[2] == 1, v[3], v[4], v[4], v[5]
		was := *l // from here on the journal may change it
		s.journal.claimed(leaseID, l, true)
		if s.shadow.Claim(ctx, leaseID) != nil { // it was acquired elsewhere
			s.reflect(ctx, leaseID, was.key, was.slots > 0)
			_ = s.shadow.Claim(ctx, leaseID)
			if was.hasReserved {
				s.shadow.Mirror(leaseID, was.slots, was.wide, was.reserved, was.granted)
			}
		}
		return nil
	}, func() error {
		if err := s.shadow.Claim(ctx, leaseID); err != nil {
			return err
		}
		s.journal.claimed(leaseID, nil, false)
		return nil
	})
}

// Reserve implements [limit.Store].
func (s *Store) Reserve(ctx context.Context, leaseID string, caps limit.Caps, r limit.Reservation) (limit.Decision, error) {
	var d limit.Decision
	r.Tokens, r.Slots = bounded(r.Tokens), min(max(r.Slots, 1), maxSlots)
	h := r.Hold
	args := append([]string{
		leaseID, number(r.Tokens), number(r.Slots),
		number(bounded(h.Prompt)), number(bounded(h.Output)), number(bounded(h.Most)), number(bounded(h.Least)), flag(h.Extended), number(bounded(h.Spare)),
		number(limit.SmallRest),
	}, capArgs(&caps)...)
	err := s.do(ctx, "reserve tokens", func(ctx context.Context) error {
		answer, err := s.call(ctx, s.scripts.reserve, args...)
		if err != nil {
			return err
		}
		key, _ := s.journal.keyOf(leaseID)
		var t taken
		if d, t, err = s.decision(key, &caps, answer); err != nil {
			return err
		}
		if d.Denied == limit.Admitted {
			s.journal.reserved(leaseID, r.Tokens, t.slots, t.wide, d.Granted, true)
			s.shadow.Mirror(leaseID, t.slots, t.wide, r.Tokens, d.Granted) // unknown: nothing to count
		}
		return nil
	}, func() error {
		var err error
		if d, err = s.reserveAlone(ctx, leaseID, &caps, r); err == nil && d.Denied == limit.Admitted {
			slots, wide := s.shadow.Taken(leaseID)
			s.journal.reserved(leaseID, r.Tokens, slots, wide, d.Granted, false)
		} else {
			s.journal.suspect(leaseID)
		}
		return err
	})
	return d, err
}

// Extend implements [limit.Store].
func (s *Store) Extend(ctx context.Context, leaseID string, caps limit.Caps, total int64) (int64, error) {
	granted := int64(0)
	total = bounded(total)
	err := s.do(ctx, "extend reservation", func(ctx context.Context) error {
		r, err := s.call(ctx, s.scripts.extend, append([]string{leaseID, number(total), number(limit.ExtendStep)}, capArgs(&caps)...)...)
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
			s.journal.saw(key, caps.QuotaPeriod, v[1])
		}
		s.journal.extended(leaseID, granted, true)
		s.shadow.Grant(leaseID, granted)
		return nil
	}, func() error {
		key, ok := s.journal.keyOf(leaseID)
		if !ok {
			return limit.ErrLease
		}
		var err error
		if granted, err = s.shadow.Extend(ctx, leaseID, s.shares(ctx, key, &caps), total); err == nil {
			s.journal.extended(leaseID, granted, false)
		}
		return err
	})
	return granted, err
}
