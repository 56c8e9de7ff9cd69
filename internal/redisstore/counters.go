package redisstore

import "time"

// saw notes what Redis said of a quota counter; below 0 it is not known.
func (j *journal) saw(key, period string, used int64) {
	if used < 0 {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	at := quotaKey{key, period}
	if c, ok := j.quotas.Get(at); ok {
		c.used = used + c.pending
		return
	}
	j.quotas.Add(at, &counter{used: used})
}

// seed starts a counter that is not known yet.
func (j *journal) seed(key, period string, used int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	at := quotaKey{key, period}
	if _, ok := j.quotas.Get(at); ok {
		return
	}
	c := &counter{used: used}
	j.quotas.Add(at, c)
	j.owed[at] = c
}

// quota returns a counter for a decision during an outage: what is used, and
// what had been used when the outage began.
func (j *journal) quota(key, period string) (used, base int64, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	c, ok := j.quotas.Get(quotaKey{key, period})
	if !ok {
		return 0, 0, false
	}
	j.freeze(c)
	return c.used, c.base, true
}

// used returns a counter, -1 when it is not known.
func (j *journal) used(key, period string) int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	if c, ok := j.quotas.Get(quotaKey{key, period}); ok {
		return c.used
	}
	return -1
}

// freeze notes what was used when the running outage began. Called before a
// counter changes.
func (j *journal) freeze(c *counter) {
	if c.outage != j.outage {
		c.base, c.outage = c.used, j.outage
	}
}

// alone begins an outage.
func (j *journal) alone() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.outage++
}

// keyOf returns the key of a live lease.
func (j *journal) keyOf(id string) (string, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	l := j.leases[id]
	if l == nil {
		return "", false
	}
	return l.key, true
}

// number is that of the running or the last outage.
func (j *journal) number() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.outage
}

// knownDebt is what Redis said last of a key's unpaid tokens.
type knownDebt struct {
	unpaid float64
	at     time.Time
	limit  int64
}

// now is what is unpaid by now.
func (d knownDebt) now() float64 {
	return max(0, d.unpaid-float64(d.limit)*time.Since(d.at).Minutes())
}

// sawDebt notes what a decision said of a debt, and the limit that it was under.
func (j *journal) sawDebt(key string, limited, unpaid int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if limited < 1 {
		j.debts.Remove(key)
		return
	}
	j.debts.Add(key, knownDebt{float64(unpaid), time.Now(), limited})
}

// owes adds own use to what is known of a debt. REQUIRES: mu held.
func (j *journal) owes(key string, tokens int64) {
	if d, ok := j.debts.Peek(key); ok {
		j.debts.Add(key, knownDebt{max(0, d.now()+float64(tokens)), time.Now(), d.limit})
	}
}

// unpaid is what is known of a debt under a limit; 0 when there is none above it.
func (j *journal) unpaid(key string, limited int64) float64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	if d, ok := j.debts.Peek(key); ok && limited > 0 && d.now() > float64(limited) {
		return d.now()
	}
	return 0
}
