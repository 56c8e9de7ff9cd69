package redisstore

import (
	"context"
	"strconv"
	"time"

	"tollgate/internal/limit"
)

// maxLimit bounds limits that callers name, so that a Lua number holds them.
const maxLimit = int64(1) << 52

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

// decision reads the reply of acquire.lua and reserve.lua.
func (s *Store) decision(key string, c *limit.Caps, r reply) (limit.Decision, error) {
	switch r.verdict {
	case "lease":
		return limit.Decision{}, limit.ErrLease
	case "unseeded":
		return limit.Decision{}, limit.ErrUnseeded
	case "ok", string(limit.Requests), string(limit.GlobalSlots), string(limit.KeySlots), string(limit.TokensWindow), string(limit.Quota):
	default:
		return limit.Decision{}, unexpected(r.verdict)
	}
	v, err := r.integers(7)
	if err != nil {
		return limit.Decision{}, err
	}
	wait, requests, requestsReset, tokens, tokensReset, reserved, used := v[0], v[1], v[2], v[3], v[4], v[5], v[6]
	d := limit.Decision{
		RetryAfter: time.Duration(wait) * time.Microsecond,
		Requests:   limit.Rate{Limit: limit.Unlimited}, Tokens: limit.Rate{Limit: limit.Unlimited}, Quota: limit.Rate{Limit: limit.Unlimited},
	}
	if r.verdict != "ok" {
		d.Denied = limit.Denial(r.verdict)
	}
	if c.Requests >= 0 {
		d.Requests = rate(c.Requests, requests, requestsReset)
	}
	if c.Tokens >= 0 {
		d.Tokens = rate(c.Tokens, tokens+reserved, tokensReset)
	}
	if c.Quota == 0 || c.Quota > 0 && used >= 0 {
		d.Quota = limit.Rate{Limit: c.Quota, Remaining: max(0, c.Quota-max(0, used)-reserved)}
	}
	s.journal.saw(key, c.QuotaPeriod, used)
	return d, nil
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
			d, err = s.decision(ask.KeyID, &ask.Caps, r)
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
		case r.verdict != "ok" || len(r.values) != 5:
			return unexpected(r.verdict)
		}
		l := &holding{id: leaseID, known: true, told: true, born: time.Now()}
		if l.key, err = r.values[0].ToString(); err != nil {
			return unexpected(r.verdict)
		}
		var v [4]int64
		for i := range v {
			if v[i], err = r.integer(i + 1); err != nil {
				return err
			}
		}
		l.slot, l.hasReserved, l.reserved, l.total, l.acked = v[0] == 1, v[1] == 1, v[2], v[3], v[3]
		s.journal.claimed(leaseID, l, true)
		if s.shadow.Claim(ctx, leaseID) != nil { // it was acquired elsewhere
			s.reflect(ctx, leaseID, l.key, l.slot)
			_ = s.shadow.Claim(ctx, leaseID)
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
func (s *Store) Reserve(ctx context.Context, leaseID string, caps limit.Caps, tokens int64) (limit.Decision, error) {
	var d limit.Decision
	tokens = bounded(tokens)
	err := s.do(ctx, "reserve tokens", func(ctx context.Context) error {
		r, err := s.call(ctx, s.scripts.reserve, append([]string{leaseID, number(tokens)}, capArgs(&caps)...)...)
		if err != nil {
			return err
		}
		key, _ := s.journal.keyOf(leaseID)
		if d, err = s.decision(key, &caps, r); err != nil {
			return err
		}
		if d.Denied == limit.Admitted {
			s.journal.reserved(leaseID, tokens, true)
			_, _ = s.shadow.Reserve(ctx, leaseID, unlimited, tokens) // unknown: nothing to count
		}
		return nil
	}, func() error {
		var err error
		if d, err = s.reserveAlone(ctx, leaseID, &caps, tokens); err == nil && d.Denied == limit.Admitted {
			s.journal.reserved(leaseID, tokens, false)
		} else {
			s.journal.suspect(leaseID)
		}
		return err
	})
	return d, err
}
