package redisstore

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"tollgate/internal/limit"
)

const (
	// bucketsKept: seconds of own use that are remembered, the running one and
	// the one that slides out included.
	bucketsKept = int64(limit.Window/time.Second) + 1
	// quotasKept bounds how many quota counters are remembered.
	quotasKept = 1 << 16
	// maxTokens bounds what callers name, as in [limit.Memory].
	maxTokens = int64(1) << 48
)

func bounded(tokens int64) int64 { return min(max(tokens, 0), maxTokens) }

// journal is what this replica did: its live leases, its own use of the last
// 60 s and the quota counters it saw. Each part knows what of it Redis has not
// confirmed ("pending"); that is what join sends after an outage. After a loss
// of data in Redis, all of it is pending.
type journal struct {
	start time.Time

	mu        sync.Mutex
	leases    map[string]*holding // guarded by mu, like all that follows
	dirty     map[string]*holding // those that Redis does not know as they are
	keys      map[string]*history
	stale     map[string]*history // those with pending use
	quotas    *simplelru.LRU[quotaKey, *counter]
	owed      map[quotaKey]*counter // those with pending growth
	debts     *simplelru.LRU[string, knownDebt]
	lostDebts map[string]knownDebt // debts that Redis lost
	outage    uint64               // number of the running or the last outage
}

// holding is a lease of this replica.
type holding struct {
	id, key         string
	slots, wide     int64 // of the key, of the gateway
	granted         int64 // by the quota; below 0: no quota
	claimed         bool
	hasReserved     bool
	ended           bool // released; kept until Redis knows
	known           bool // Redis confirmed that it holds the lease
	kept            bool // and that it is claimed: its request stays, whatever happens
	reserved        int64
	total           int64 // tokens used so far
	acked           int64 // tokens that Redis confirmed
	born            time.Time
	renewed         time.Time
	version         uint64 // grows with every change that is not confirmed
	told            bool   // Redis may know of it: it was asked, or was sent it
	releaseUnderWay bool
}

// history is a key's own use by second, oldest first.
type history struct {
	key     string
	buckets []bucket
}

type bucket struct {
	second                         int64 // since the journal's start
	requests, tokens               int64
	pendingRequests, pendingTokens int64
}

type quotaKey struct{ key, period string }

// counter is a quota counter as this replica knows it.
type counter struct {
	used    int64 // what Redis said last, and own growth since
	pending int64 // own growth that Redis did not confirm
	lost    bool  // Redis lost it: it is to know what was used before, too
	// What was used when the outage of that number began: shares are taken of
	// the rest.
	base   int64
	outage uint64
}

func newJournal() *journal {
	quotas, err := simplelru.NewLRU[quotaKey, *counter](quotasKept, nil)
	if err != nil {
		panic(err) // only a size below 1 is refused
	}
	debts, err := simplelru.NewLRU[string, knownDebt](quotasKept, nil)
	if err != nil {
		panic(err)
	}
	return &journal{
		start: time.Now(), leases: map[string]*holding{}, dirty: map[string]*holding{},
		keys: map[string]*history{}, stale: map[string]*history{}, quotas: quotas, owed: map[quotaKey]*counter{},
		debts: debts, lostDebts: map[string]knownDebt{},
	}
}

// acquired notes an admission. shared: Redis took it. told: it was asked.
func (j *journal) acquired(ask *limit.Ask, shared, told bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := time.Now()
	l := &holding{id: ask.LeaseID, key: ask.KeyID, granted: limit.Unlimited, known: shared, told: told, born: now, renewed: now}
	if ask.Slot {
		l.slots, l.wide = 1, 1
	}
	j.leases[l.id] = l
	j.use(l.key, now, 1, 0, shared)
	if !shared {
		j.touch(l)
	}
}

// doubted notes a refusal of our own after Redis gave no answer: it may have
// admitted the lease nevertheless, which ends with the outage.
func (j *journal) doubted(ask *limit.Ask) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.leases[ask.LeaseID] == nil {
		j.touch(&holding{id: ask.LeaseID, key: ask.KeyID, granted: limit.Unlimited, told: true, ended: true})
	}
}

// claimed notes a claim. A lease that another replica acquired is given as
// Redis describes it.
func (j *journal) claimed(id string, adopted *holding, shared bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	l := j.leases[id]
	if l == nil && adopted != nil {
		l = adopted
		j.leases[id] = l
	}
	if l == nil {
		return
	}
	l.claimed, l.renewed = true, time.Now()
	if shared {
		l.kept = true
		return
	}
	j.touch(l)
}

// extended notes how many tokens a lease may use in all.
func (j *journal) extended(id string, granted int64, shared bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if l := j.leases[id]; l != nil && l.granted != granted {
		l.granted = granted
		if !shared {
			j.touch(l)
		}
	}
}

func (j *journal) reserved(id string, tokens, slots, wide, granted int64, shared bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if l := j.leases[id]; l != nil {
		l.hasReserved, l.reserved, l.slots, l.wide, l.granted = true, tokens, slots, wide, granted
		if !shared {
			j.touch(l)
		}
	}
}

// spent notes the running use of a lease and returns its growth.
func (j *journal) spent(id string, total int64, period string, shared bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if l := j.leases[id]; l != nil && total > l.total {
		j.grow(l, total-l.total, period, shared)
	}
}

// grow counts tokens of a lease; below 0 they are given back.
func (j *journal) grow(l *holding, tokens int64, period string, shared bool) {
	l.total += tokens
	l.reserved -= min(max(tokens, 0), l.reserved)
	j.use(l.key, time.Now(), 0, tokens, shared)
	j.owes(l.key, tokens)
	if c, ok := j.quotas.Get(quotaKey{l.key, period}); ok {
		j.freeze(c)
		c.used = max(0, c.used+tokens)
		if !shared {
			c.pending += tokens
			j.owed[quotaKey{l.key, period}] = c
		}
	}
	if shared {
		l.acked = l.total
		return
	}
	j.touch(l)
}

// released ends a lease and reports whether there was one.
func (j *journal) released(id string, f limit.Final, shared bool) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	l := j.leases[id]
	if l == nil {
		return false
	}
	if total := bounded(f.Total); total != l.total {
		j.grow(l, total-l.total, f.QuotaPeriod, shared)
	}
	j.end(l, f.GiveBackRequest, shared)
	return true
}

func (j *journal) end(l *holding, giveBackRequest, shared bool) {
	if giveBackRequest {
		j.use(l.key, l.born, -1, 0, shared)
	}
	delete(j.leases, l.id)
	l.ended, l.reserved = true, 0
	if shared || !l.told { // a long outage does not pile up what came and went in it
		delete(j.dirty, l.id)
		return
	}
	j.touch(l)
}

// expired ends a lease that was never claimed.
func (j *journal) expired(id string, shared bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if l := j.leases[id]; l != nil && !l.claimed {
		j.end(l, true, shared)
	}
}

// releasing says that a release is on its way, so that nobody puts the lease
// back when Redis no longer knows it.
func (j *journal) releasing(id string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if l := j.leases[id]; l != nil {
		l.releaseUnderWay = true
	}
}

func (j *journal) touch(l *holding) {
	l.version++
	j.dirty[l.id] = l
}

// use counts in the second of an instant.
func (j *journal) use(key string, at time.Time, requests, tokens int64, shared bool) {
	h := j.keys[key]
	if h == nil {
		h = &history{key: key}
		j.keys[key] = h
	}
	now := j.second(time.Now())
	h.trim(now)
	b := h.bucket(j.second(at), now)
	if b == nil {
		return
	}
	b.requests += requests
	b.tokens += tokens
	if !shared {
		b.pendingRequests += requests
		b.pendingTokens += tokens
		j.stale[key] = h
	}
}

func (j *journal) second(at time.Time) int64 { return int64(at.Sub(j.start) / time.Second) }

// trim drops what has left the window.
func (h *history) trim(now int64) {
	n := 0
	for n < len(h.buckets) && h.buckets[n].second <= now-bucketsKept {
		n++
	}
	h.buckets = append(h.buckets[:0], h.buckets[n:]...)
}

// bucket returns the bucket of a second, nil when that has left the window.
func (h *history) bucket(second, now int64) *bucket {
	if second <= now-bucketsKept {
		return nil
	}
	i := len(h.buckets)
	for i > 0 && h.buckets[i-1].second > second {
		i--
	}
	if i > 0 && h.buckets[i-1].second == second {
		return &h.buckets[i-1]
	}
	h.buckets = append(h.buckets, bucket{})
	copy(h.buckets[i+1:], h.buckets[i:])
	h.buckets[i] = bucket{second: second}
	return &h.buckets[i]
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

// renewed notes what Redis said of leases and reports whether some are unknown
// to it; those are pending now.
func (j *journal) renewed(ids []string, known []bool) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	now, lost := time.Now(), false
	for i, id := range ids {
		l := j.leases[id]
		if l == nil {
			continue
		}
		if known[i] {
			l.renewed = now
			continue
		}
		lost = j.miss(l) || lost
	}
	return lost
}

// recall makes all live leases pending that were not renewed lately: they may
// have expired in Redis during an outage, or soon will.
func (j *journal) recall(every time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := time.Now()
	for _, l := range j.leases {
		if now.Sub(l.renewed) >= every {
			j.miss(l)
		}
	}
}

// lost notes that Redis does not know a lease and reports whether it lives.
func (j *journal) lost(id string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	l := j.leases[id]
	return l != nil && j.miss(l)
}

func (j *journal) miss(l *holding) bool {
	if !l.claimed || l.releaseUnderWay {
		return false
	}
	j.touch(l)
	return true
}

// suspect notes that Redis may hold a lease otherwise than this replica does,
// after a call that it gave no answer to.
func (j *journal) suspect(id string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if l := j.leases[id]; l != nil {
		j.touch(l)
	}
}

// sweep drops keys that were idle for a window.
func (j *journal) sweep() {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := j.second(time.Now())
	for key, h := range j.keys {
		if h.trim(now); len(h.buckets) == 0 {
			delete(j.keys, key)
			delete(j.stale, key)
		}
	}
}

// restored notes use from before this store was opened.
func (j *journal) restored(key string, at time.Time, requests, tokens int64, shared bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.use(key, at, requests, tokens, shared)
}
