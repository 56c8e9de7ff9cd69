package redisstore

import (
	"sync"
	"time"

	"tollgate/internal/limit"
)

// maxTokens bounds what callers name, as in [limit.Memory].
const maxTokens = int64(1) << 48

func bounded(tokens int64) int64 { return min(max(tokens, 0), maxTokens) }

// journal is what this replica did: its live leases, its own use of the last 60 s,
// and the counters that it saw. Each part knows what of it Redis has not confirmed
// ("pending"): that is sent after an outage. After a loss of data in Redis, all of
// it is pending.
//
// In its methods, confirmed says that Redis has taken what is noted.
type journal struct {
	mu       sync.Mutex
	leases   map[string]*lease // guarded by mu, like all that follows
	unsynced map[string]*lease // those that Redis does not hold as they are
	use      usage
	counters counters
}

func newJournal() *journal {
	return &journal{leases: map[string]*lease{}, unsynced: map[string]*lease{}, use: newUsage(), counters: newCounters()}
}

// acquired notes an admission, and what Redis knows of it.
func (j *journal) acquired(ask *limit.Ask, k knowledge) {
	j.mu.Lock()
	defer j.mu.Unlock()
	l := newLease(ask.LeaseID, ask.KeyID, k)
	if ask.Slot {
		l.slots, l.wide = 1, 1
	}
	j.leases[l.id] = l
	confirmed := k >= confirmedProvisional
	j.use.add(l.key, l.born, 1, 0, confirmed)
	if !confirmed {
		j.sync(l)
	}
}

// refused notes a refusal of our own after Redis gave no answer: it may have
// admitted the lease nevertheless, which must end there.
func (j *journal) refused(ask *limit.Ask) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.leases[ask.LeaseID] == nil {
		l := newLease(ask.LeaseID, ask.KeyID, asked)
		l.life = released
		j.sync(l)
	}
}

// claimed notes a claim. A lease that another replica acquired is given as Redis
// describes it.
func (j *journal) claimed(id string, foreign *lease, confirmed bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	l := j.leases[id]
	if l == nil && foreign != nil {
		l = foreign
		j.leases[id] = l
	}
	if l == nil {
		return
	}
	l.claimed, l.renewed = true, time.Now()
	j.settled(l, confirmed)
}

// settled ends a change of a claimed lease.
func (j *journal) settled(l *lease, confirmed bool) {
	if confirmed {
		l.known = confirmedClaimed
		return
	}
	j.sync(l)
}

// adopted notes a lease that was taken over. One that this replica holds already
// keeps its reservation, and of its use the growth counts.
func (j *journal) adopted(taken *lease, period string, confirmed bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	l := j.leases[taken.id]
	if l == nil {
		l = taken
		j.leases[l.id] = l
	}
	l.claimed, l.renewed = true, taken.renewed
	if taken.total > l.total {
		j.grow(l, taken.total-l.total, period, confirmed)
	}
	if !l.hasReserved {
		l.hasReserved, l.reserved, l.granted, l.slots, l.wide = true, taken.reserved, taken.granted, taken.slots, taken.wide
	}
	j.settled(l, confirmed)
}

// reserved notes what a lease holds after its reservation.
func (j *journal) reserved(id string, tokens, slots, wide, granted int64, confirmed bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if l := j.leases[id]; l != nil {
		l.hasReserved, l.reserved, l.slots, l.wide, l.granted = true, tokens, slots, wide, granted
		if !confirmed {
			j.sync(l)
		}
	}
}

// extended notes how many tokens a lease may use in all.
func (j *journal) extended(id string, granted int64, confirmed bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if l := j.leases[id]; l != nil && l.granted != granted {
		l.granted = granted
		if !confirmed {
			j.sync(l)
		}
	}
}

// spent notes the running use of a lease.
func (j *journal) spent(id string, total int64, period string, confirmed bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if l := j.leases[id]; l != nil && total > l.total {
		j.grow(l, total-l.total, period, confirmed)
	}
}

// grow counts tokens of a lease; below 0 they are given back.
func (j *journal) grow(l *lease, tokens int64, period string, confirmed bool) {
	l.total += tokens
	l.reserved -= min(max(tokens, 0), l.reserved)
	j.use.add(l.key, time.Now(), 0, tokens, confirmed)
	j.counters.add(quotaKey{l.key, period}, tokens, confirmed)
	if confirmed {
		l.acked = l.total
		return
	}
	j.sync(l)
}

// releasing says that a release is on its way, so that nobody puts the lease back
// when Redis no longer knows it.
func (j *journal) releasing(id string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if l := j.leases[id]; l != nil {
		l.life = releasing
	}
}

// released ends a lease and reports whether there was one.
func (j *journal) released(id string, f limit.Final, confirmed bool) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	l := j.leases[id]
	if l == nil {
		return false
	}
	if total := bounded(f.Total); total != l.total {
		j.grow(l, total-l.total, f.QuotaPeriod, confirmed)
	}
	j.end(l, f.GiveBackRequest, confirmed)
	return true
}

// expired ends a lease that was never claimed here.
func (j *journal) expired(id string, confirmed bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if l := j.leases[id]; l != nil && !l.claimed {
		j.end(l, true, confirmed)
	}
}

func (j *journal) end(l *lease, giveBackRequest, confirmed bool) {
	if giveBackRequest {
		j.use.add(l.key, l.born, -1, 0, confirmed)
	}
	delete(j.leases, l.id)
	l.life, l.reserved = released, 0
	if confirmed || l.known == unasked { // a long outage does not pile up what came and went in it
		delete(j.unsynced, l.id)
		return
	}
	j.sync(l)
}

// sync says that Redis must be told of a lease as it is now.
func (j *journal) sync(l *lease) {
	l.version++
	j.unsynced[l.id] = l
}

// resend says that Redis may hold a lease otherwise than this replica does, after
// a call that it gave no answer to.
func (j *journal) resend(id string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if l := j.leases[id]; l != nil {
		j.sync(l)
	}
}

// resendStale makes all live leases pending that were not renewed lately: they may
// have expired in Redis during an outage, or soon will.
func (j *journal) resendStale(every time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := time.Now()
	for _, l := range j.leases {
		if l.running() && now.Sub(l.renewed) >= every {
			j.sync(l)
		}
	}
}

// putBack notes that Redis does not know a lease and reports whether it runs here:
// then Redis is told of it again.
func (j *journal) putBack(id string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	l := j.leases[id]
	if l == nil || !l.running() {
		return false
	}
	j.sync(l)
	return true
}

// due returns those of ids that are to be renewed now.
func (j *journal) due(ids []string, every time.Duration) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := time.Now()
	var due []string
	for _, id := range ids {
		if l := j.leases[id]; l != nil && l.claimed && now.Sub(l.renewed) >= every {
			due = append(due, id)
		}
	}
	return due
}

// renewed notes that Redis has prolonged a lease.
func (j *journal) renewed(id string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if l := j.leases[id]; l != nil {
		l.renewed = time.Now()
	}
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

// restored notes use from before this store was opened.
func (j *journal) restored(key string, at time.Time, requests, tokens int64, confirmed bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.use.add(key, at, requests, tokens, confirmed)
}

// sweep drops keys that were idle for a window.
func (j *journal) sweep() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.use.sweep()
}

// outageBegins gives the outage that begins a number.
func (j *journal) outageBegins() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.counters.outage++
}

// outage is the number of the running or the last outage.
func (j *journal) outage() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.counters.outage
}

// learn notes what Redis said of a quota counter; below 0 it does not know it.
func (j *journal) learn(key, period string, used int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.counters.learn(quotaKey{key, period}, used)
}

// learnDebt notes what Redis said of a debt.
func (j *journal) learnDebt(key string, limited, unpaid int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.counters.learnDebt(key, limited, unpaid)
}

// seed starts a counter that is not known yet.
func (j *journal) seed(key, period string, used int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.counters.seed(quotaKey{key, period}, used)
}

// quota returns a counter for a decision during an outage: what is used, and what
// had been used when the outage began.
func (j *journal) quota(key, period string) (used, base int64, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	q, ok := j.counters.quotas.Get(quotaKey{key, period})
	if !ok {
		return 0, 0, false
	}
	j.counters.rebase(q)
	return q.used, q.base, true
}

// quotaUsed returns a counter, -1 when it is not known.
func (j *journal) quotaUsed(key, period string) int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	if q, ok := j.counters.quotas.Get(quotaKey{key, period}); ok {
		return q.used
	}
	return -1
}

// unpaid is what is known of a debt under a limit; 0 when it is not above it.
func (j *journal) unpaid(key string, limited int64) float64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.counters.unpaid(key, limited)
}
