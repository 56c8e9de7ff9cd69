package redisstore

import (
	"context"
	"strconv"

	"tollgate/internal/limit"
)

// local decides by this replica's share of each limit. Its memory holds this
// replica's own leases and use at all times, so that it can begin at once.
type local struct {
	memory  *limit.Memory
	journal *journal
	peers   *peers
}

// unlimited are the caps under which the memory takes what Redis decided.
var unlimited = limit.Caps{
	Global: limit.Unlimited, Concurrent: limit.Unlimited, Requests: limit.Unlimited,
	Tokens: limit.Unlimited, Quota: limit.Unlimited,
}

// share is this replica's part of a limit: ceil(limit ÷ replicas last seen)
// (docs/limits.md). Below 0 stays unlimited, 0 stays 0.
func share(limited, replicas int64) int64 {
	if limited <= 0 {
		return limited
	}
	return (limited-1)/replicas + 1
}

// shares are the caps of a decision made here. The quota is that of the memory's
// own counter for this outage: what was used when it began, and a share of the
// rest.
func (l *local) shares(ctx context.Context, keyID string, c *limit.Caps) limit.Caps {
	n := l.peers.count()
	own := limit.Caps{
		Global: share(c.Global, n), Concurrent: share(c.Concurrent, n), Requests: share(c.Requests, n),
		Tokens: share(c.Tokens, n), Quota: c.Quota, QuotaPeriod: l.period(c.QuotaPeriod),
	}
	if unpaid := l.journal.unpaid(keyID, c.Tokens); unpaid > 0 {
		_ = l.memory.Owe(ctx, keyID, own.Tokens, shareOfDebt(unpaid, c.Tokens, own.Tokens))
	}
	if c.Quota <= 0 {
		return own
	}
	used, base, known := l.journal.quota(keyID, c.QuotaPeriod)
	if !known {
		return own // the memory does not know it either: ErrUnseeded
	}
	_ = l.memory.Seed(ctx, keyID, own.QuotaPeriod, used) // fails when closed, like the decision
	if rest := c.Quota - base; rest > 0 {
		own.Quota = base + share(rest, n)
	}
	return own
}

// shareOfDebt is what is unpaid under a share of a limit: a key in debt stays in
// debt, by as many minutes under the smaller limit.
func shareOfDebt(unpaid float64, limited, own int64) int64 {
	if limited < 1 {
		return 0
	}
	return int64(unpaid / float64(limited) * float64(own))
}

// period names the memory's quota counter of this outage, so that each outage
// begins with what was known last.
func (l *local) period(period string) string {
	return period + "#" + strconv.FormatUint(l.journal.outage(), 10)
}

func (l *local) acquire(ctx context.Context, ask *limit.Ask) (limit.Decision, error) {
	own := *ask
	own.Caps = l.shares(ctx, ask.KeyID, &ask.Caps)
	d, err := l.memory.Acquire(ctx, own)
	return advertise(d, &ask.Caps), err
}

func (l *local) reserve(ctx context.Context, leaseID string, caps *limit.Caps, r limit.Reservation) (limit.Decision, error) {
	key, ok := l.journal.keyOf(leaseID)
	if !ok {
		return limit.Decision{}, limit.ErrLease
	}
	d, err := l.memory.Reserve(ctx, leaseID, l.shares(ctx, key, caps), r)
	return advertise(d, caps), err
}

func (l *local) extend(ctx context.Context, leaseID string, caps *limit.Caps, total int64) (int64, error) {
	key, ok := l.journal.keyOf(leaseID)
	if !ok {
		return 0, limit.ErrLease
	}
	return l.memory.Extend(ctx, leaseID, l.shares(ctx, key, caps), total)
}

// adopt takes over a lease, with the slots of its request and not of a share.
func (l *local) adopt(ctx context.Context, leaseID, keyID string, caps *limit.Caps, r limit.Reservation, spent int64) error {
	own := l.shares(ctx, keyID, caps)
	own.Global, own.Concurrent = caps.Global, caps.Concurrent
	return l.memory.Adopt(ctx, leaseID, keyID, own, r, spent)
}

// spend counts use.
func (l *local) spend(ctx context.Context, batch []limit.Spend) {
	own := make([]limit.Spend, len(batch))
	for i, b := range batch {
		own[i] = limit.Spend{LeaseID: b.LeaseID, Total: b.Total, QuotaPeriod: l.period(b.QuotaPeriod)}
	}
	_ = l.memory.Spend(ctx, own) // never fails
}

// release ends a lease.
func (l *local) release(ctx context.Context, leaseID string, f limit.Final) {
	f.QuotaPeriod = l.period(f.QuotaPeriod)
	_, _ = l.memory.Release(ctx, leaseID, f) // never fails
}

// copyAdmission takes a lease that Redis admitted. One that is there already is
// left as it is.
func (l *local) copyAdmission(ctx context.Context, leaseID, keyID string, slot bool) {
	_, _ = l.memory.Acquire(ctx, limit.Ask{LeaseID: leaseID, KeyID: keyID, Caps: unlimited, Slot: slot})
}

// copyClaim takes a claim that Redis has confirmed, of a lease as Redis describes
// it.
func (l *local) copyClaim(ctx context.Context, c *lease) {
	if l.memory.Claim(ctx, c.id) == nil {
		return
	}
	l.copyAdmission(ctx, c.id, c.key, c.slots > 0) // it was acquired elsewhere
	_ = l.memory.Claim(ctx, c.id)
	if c.hasReserved {
		l.memory.Mirror(c.id, c.slots, c.wide, c.reserved, c.granted)
	}
}

// copyAdoption takes what Redis holds of a lease that was taken over.
func (l *local) copyAdoption(ctx context.Context, taken *lease, caps limit.Caps, r limit.Reservation) {
	caps.Tokens, caps.QuotaPeriod = limit.Unlimited, l.period(caps.QuotaPeriod)
	r.Tokens = taken.reserved + taken.total
	_ = l.memory.Adopt(ctx, taken.id, taken.key, caps, r, taken.total) // fails when closed
	l.memory.Grant(taken.id, taken.granted)
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
