package limit

import "time"

// maxTokens bounds every count of tokens that a caller names, so that sums
// cannot overflow. It is far beyond what an engine makes in a year.
const maxTokens = int64(1) << 48

// bounded brings a caller's count into [0, maxTokens].
func bounded(tokens int64) int64 { return min(max(tokens, 0), maxTokens) }

// account is all that a store knows of one key. It exists while the key has
// leases and for [Window] afterwards.
type account struct {
	id       string
	requests window
	tokens   window
	leases   int64
	slots    int64
	reserved int64 // tokens in open reservations
	debt     debt
	quota    quotaBook
	held     int64         // of the quota, by leases
	dropAt   instant       // when an idle account may go
	idle     node[account] // in Memory.idle while the account has no lease
}

func (a *account) slide(now instant) {
	a.requests.slide(now)
	a.tokens.slide(now)
}

// allowRequest checks the request window for one more request.
func (a *account) allowRequest(limit int64, now instant) (time.Duration, bool) {
	switch {
	case limit < 0 || a.requests.total < limit:
		return 0, true
	case limit == 0:
		return Window, false
	}
	return a.requests.until(now, limit-1), false
}

// allowTokens checks the token window for tokens more.
func (a *account) allowTokens(limit, tokens int64, now instant) (time.Duration, bool) {
	if limit < 0 {
		return 0, true
	}
	if limit == 0 {
		return Window, false
	}
	room := limit - min(tokens, limit)
	if wait := a.debt.wait(now); wait > 0 {
		return max(wait, a.tokens.until(now, room)), false
	}
	switch {
	case a.tokens.total+a.reserved <= room:
		return 0, true
	case a.tokens.total <= room: // only reservations stand in the way, and they may vanish any time
		return time.Second, false
	}
	return a.tokens.until(now, room), false
}

// allowQuota checks that need is left of the quota of the running period, and
// beside other requests spare as well. [ErrUnseeded] when its counter is not known.
func (a *account) allowQuota(caps *Caps, need, spare int64) (time.Duration, bool, error) {
	if caps.Quota < 0 {
		return 0, true, nil
	}
	if caps.Quota == 0 {
		return 0, false, nil
	}
	used, known := a.quota.used(caps.QuotaPeriod)
	switch {
	case !known:
		return 0, false, ErrUnseeded
	case caps.Quota-used < need:
		return 0, false, nil
	case a.held > 0 && caps.Quota-used-a.held < need+spare: // what is held may come back any time
		return time.Second, false, nil
	}
	return 0, true, nil
}

// decide fills in the numbers that a client may see.
func (a *account) decide(denied Denial, retry time.Duration, caps *Caps, now instant) Decision {
	d := Decision{
		Denied: denied, RetryAfter: retry,
		Requests: Rate{Limit: Unlimited}, Tokens: Rate{Limit: Unlimited}, Quota: Rate{Limit: Unlimited},
	}
	if caps.Requests >= 0 {
		d.Requests = Rate{
			Limit:     caps.Requests,
			Remaining: max(0, caps.Requests-a.requests.total),
			Reset:     a.requests.empties(now),
		}
	}
	if caps.Tokens >= 0 {
		d.Tokens = Rate{
			Limit:     caps.Tokens,
			Remaining: max(0, caps.Tokens-a.tokens.total-a.reserved),
			Reset:     a.tokens.empties(now),
		}
		if wait := a.debt.wait(now); wait > 0 {
			d.Tokens.Remaining, d.Tokens.Reset, d.Debt = 0, max(d.Tokens.Reset, wait), a.debt.tokens(now)
		}
	}
	if used, known := a.quota.used(caps.QuotaPeriod); caps.Quota == 0 || caps.Quota > 0 && known {
		d.Quota = Rate{Limit: caps.Quota, Remaining: max(0, caps.Quota-used-a.held)}
	}
	return d
}

// periodsKept is how many quota periods of one key are remembered: the running
// one, the one before for requests that span the change, and one that a change
// of quota_period left behind.
const periodsKept = 3

// quotaBook holds the quota counters of one key, newest last.
type quotaBook []quotaCounter

type quotaCounter struct {
	period string
	tokens int64
}

// used returns the counter of a period and whether it is known.
func (b quotaBook) used(period string) (int64, bool) {
	for i := range b {
		if b[i].period == period {
			return b[i].tokens, true
		}
	}
	return 0, false
}

// add counts tokens (below 0: gives back) in a period whose counter is known
// and reports whether it is. A counter that is not known is not started: its
// seed, which is the ledger's sum, will hold these tokens.
func (b quotaBook) add(period string, tokens int64) bool {
	for i := range b {
		if b[i].period == period {
			b[i].tokens = max(0, b[i].tokens+tokens)
			return true
		}
	}
	return false
}

// seed starts the counter of a period that is not known yet.
func (b *quotaBook) seed(period string, used int64) {
	if _, known := b.used(period); known {
		return
	}
	if len(*b) >= periodsKept {
		*b = append((*b)[:0], (*b)[1:]...)
	}
	*b = append(*b, quotaCounter{period: period, tokens: bounded(used)})
}
