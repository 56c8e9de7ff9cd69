package redisstore

import (
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// countersKept bounds how many quota counters and how many debts are remembered.
const countersKept = 1 << 16

// counters are the quota counters and debts of keys as this replica knows them.
// They are guarded by the journal's mutex.
type counters struct {
	quotas        *simplelru.LRU[quotaKey, *quota]
	pendingQuotas map[quotaKey]*quota // those with growth that Redis has not confirmed
	debts         *simplelru.LRU[string, debt]
	pendingDebts  map[string]debt // those that Redis lost
	outage        uint64          // number of the running or the last outage
}

type quotaKey struct{ key, period string }

// quota is one counter.
type quota struct {
	used    int64 // what Redis said last, and own growth since
	pending int64 // own growth that Redis did not confirm
	lost    bool  // Redis lost it: it must be told what was used before, too
	// base is what was used when the outage of that number began: shares are taken
	// of the rest.
	base   int64
	outage uint64
}

// sentQuota is what Redis is sent of one counter.
type sentQuota struct {
	quotaKey
	grown, used int64
	lost        bool
}

// debt is what Redis said last of a key's unpaid tokens.
type debt struct {
	unpaid float64
	at     time.Time
	limit  int64
}

func newCounters() counters {
	quotas, err := simplelru.NewLRU[quotaKey, *quota](countersKept, nil)
	if err != nil {
		panic(err) // only a size below 1 is refused
	}
	debts, err := simplelru.NewLRU[string, debt](countersKept, nil)
	if err != nil {
		panic(err)
	}
	return counters{quotas: quotas, pendingQuotas: map[quotaKey]*quota{}, debts: debts, pendingDebts: map[string]debt{}}
}

// learn notes what Redis said of a quota counter; below 0 it does not know it.
func (c *counters) learn(at quotaKey, used int64) {
	if used < 0 {
		return
	}
	if q, ok := c.quotas.Get(at); ok {
		q.used = used + q.pending
		return
	}
	c.quotas.Add(at, &quota{used: used})
}

// seed starts a counter that is not known yet.
func (c *counters) seed(at quotaKey, used int64) {
	if _, ok := c.quotas.Get(at); ok {
		return
	}
	q := &quota{used: used}
	c.quotas.Add(at, q)
	c.pendingQuotas[at] = q
}

// add counts own use in a counter and a debt, where they are known.
func (c *counters) add(at quotaKey, tokens int64, confirmed bool) {
	if d, ok := c.debts.Peek(at.key); ok {
		c.debts.Add(at.key, debt{max(0, d.now()+float64(tokens)), time.Now(), d.limit})
	}
	q, ok := c.quotas.Get(at)
	if !ok {
		return
	}
	c.rebase(q)
	q.used = max(0, q.used+tokens)
	if !confirmed {
		q.pending += tokens
		c.pendingQuotas[at] = q
	}
}

// rebase notes what was used when the running outage began. It must be called
// before a counter changes.
func (c *counters) rebase(q *quota) {
	if q.outage != c.outage {
		q.base, q.outage = q.used, c.outage
	}
}

// confirm notes that Redis took growth of a counter, which is used now.
func (c *counters) confirm(s sentQuota, used int64) {
	q := c.pendingQuotas[s.quotaKey]
	if q == nil {
		return
	}
	q.lost = false
	if q.pending -= s.grown; q.pending == 0 {
		delete(c.pendingQuotas, s.quotaKey)
	}
	q.used = used + q.pending
}

// lost makes all counters and debts pending.
func (c *counters) lost() {
	for _, key := range c.debts.Keys() {
		if d, ok := c.debts.Peek(key); ok && d.now() > 0 {
			c.pendingDebts[key] = d
		}
	}
	for _, key := range c.quotas.Keys() {
		if q, ok := c.quotas.Peek(key); ok {
			q.lost = true
			c.pendingQuotas[key] = q
		}
	}
}

// now is what is unpaid by now.
func (d debt) now() float64 {
	return max(0, d.unpaid-float64(d.limit)*time.Since(d.at).Minutes())
}

// learnDebt notes what a decision said of a debt, and the limit that it was under.
func (c *counters) learnDebt(key string, limited, unpaid int64) {
	if limited < 1 {
		c.debts.Remove(key)
		return
	}
	c.debts.Add(key, debt{float64(unpaid), time.Now(), limited})
}

// unpaid is what is known of a debt under a limit; 0 when it is not above it.
func (c *counters) unpaid(key string, limited int64) float64 {
	if d, ok := c.debts.Peek(key); ok && limited > 0 && d.now() > float64(limited) {
		return d.now()
	}
	return 0
}
