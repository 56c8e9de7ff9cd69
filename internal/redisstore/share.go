package redisstore

import (
	"context"
	"strconv"

	"tollgate/internal/limit"
)

// unlimited are the caps under which the shadow takes what Redis decided.
var unlimited = limit.Caps{
	Global: limit.Unlimited, Concurrent: limit.Unlimited, Requests: limit.Unlimited,
	Tokens: limit.Unlimited, Quota: limit.Unlimited,
}

// reflect puts a lease that Redis admitted into the shadow. One that is there
// already is left as it is.
func (s *Store) reflect(ctx context.Context, leaseID, keyID string, slot bool) {
	_, _ = s.shadow.Acquire(ctx, limit.Ask{LeaseID: leaseID, KeyID: keyID, Caps: unlimited, Slot: slot})
}

// share is this replica's part of a limit: ceil(limit ÷ replicas last seen)
// (docs/limits.md). Below 0 stays unlimited, 0 stays 0.
func share(limited, replicas int64) int64 {
	if limited <= 0 {
		return limited
	}
	return (limited-1)/replicas + 1
}

// shares are the caps of a decision made alone. The quota is that of the
// shadow's own counter for this outage: what was used when it began, and a
// share of the rest.
func (s *Store) shares(ctx context.Context, keyID string, c *limit.Caps) limit.Caps {
	n := s.replicas.Load()
	own := limit.Caps{
		Global: share(c.Global, n), Concurrent: share(c.Concurrent, n), Requests: share(c.Requests, n),
		Tokens: share(c.Tokens, n), Quota: c.Quota, QuotaPeriod: s.ownPeriod(c.QuotaPeriod),
	}
	if unpaid := s.journal.unpaid(keyID, c.Tokens); unpaid > 0 {
		_ = s.shadow.Owe(ctx, keyID, own.Tokens, owedAlone(unpaid, c.Tokens, own.Tokens))
	}
	if c.Quota <= 0 {
		return own
	}
	used, base, known := s.journal.quota(keyID, c.QuotaPeriod)
	if !known {
		return own // the shadow does not know it either: ErrUnseeded
	}
	_ = s.shadow.Seed(ctx, keyID, own.QuotaPeriod, used) // fails when closed, like the decision
	if rest := c.Quota - base; rest > 0 {
		own.Quota = base + share(rest, n)
	}
	return own
}

// owedAlone is what is unpaid under a share of a limit: a key in debt stays in debt,
// by as many minutes under the smaller limit.
func owedAlone(unpaid float64, limited, own int64) int64 {
	if limited < 1 {
		return 0
	}
	return int64(unpaid / float64(limited) * float64(own))
}

// ownPeriod names the shadow's quota counter of this outage, so that each
// outage begins with what was known last.
func (s *Store) ownPeriod(period string) string {
	return period + "#" + strconv.FormatUint(s.journal.number(), 10)
}

func (s *Store) acquireAlone(ctx context.Context, ask *limit.Ask) (limit.Decision, error) {
	own := *ask
	own.Caps = s.shares(ctx, ask.KeyID, &ask.Caps)
	d, err := s.shadow.Acquire(ctx, own)
	return advertise(d, &ask.Caps), err
}

func (s *Store) reserveAlone(ctx context.Context, leaseID string, caps *limit.Caps, r limit.Reservation) (limit.Decision, error) {
	key, ok := s.journal.keyOf(leaseID)
	if !ok {
		return limit.Decision{}, limit.ErrLease
	}
	d, err := s.shadow.Reserve(ctx, leaseID, s.shares(ctx, key, caps), r)
	return advertise(d, caps), err
}

// advertise names the client's own limits; what remains is of the share.
func advertise(d limit.Decision, caps *limit.Caps) limit.Decision {
	if caps.Requests >= 0 {
		d.Requests.Limit = caps.Requests
	}
	if caps.Tokens >= 0 {
		d.Tokens.Limit = caps.Tokens
	}
	if d.Quota.Limit != limit.Unlimited {
		d.Quota.Limit = caps.Quota
	}
	return d
}

// mirror keeps the shadow's use equal to this replica's own.
func (s *Store) mirror(ctx context.Context, batch []limit.Spend) {
	own := make([]limit.Spend, len(batch))
	for i, b := range batch {
		own[i] = limit.Spend{LeaseID: b.LeaseID, Total: b.Total, QuotaPeriod: s.ownPeriod(b.QuotaPeriod)}
	}
	_ = s.shadow.Spend(ctx, own) // never fails
}

// dismiss ends a lease in the shadow and reports whether there was one.
func (s *Store) dismiss(ctx context.Context, leaseID string, f limit.Final) bool {
	f.QuotaPeriod = s.ownPeriod(f.QuotaPeriod)
	ok, _ := s.shadow.Release(ctx, leaseID, f) // never fails
	return ok
}
