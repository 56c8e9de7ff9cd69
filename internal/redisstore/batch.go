package redisstore

import (
	"encoding/json"
	"fmt"
	"time"
)

// perPush is how many items of each kind one join script takes: well under a
// call's budget.
const perPush = 128

// batch is what one join tells Redis. It is sent again, under the same mark,
// until an answer was seen.
type batch struct {
	mark   string
	leases []lease // copies
	uses   []sentUse
	quotas []sentQuota
	debts  map[string]debt
}

func (b *batch) empty() bool { return len(b.leases)+len(b.uses)+len(b.quotas)+len(b.debts) == 0 }

// full reports whether more may be pending.
func (b *batch) full() bool {
	return max(len(b.leases), len(b.uses), len(b.quotas), len(b.debts)) >= perPush
}

// pending returns what Redis must be told, at most perPush of each kind.
func (j *journal) pending() *batch {
	j.mu.Lock()
	defer j.mu.Unlock()
	b := &batch{}
	for _, l := range j.unsynced {
		if len(b.leases) == perPush {
			break
		}
		l.known = max(l.known, asked)
		b.leases = append(b.leases, *l)
	}
	j.use.pendingInto(b)
	j.counters.pendingInto(b)
	return b
}

func (u *usage) pendingInto(b *batch) {
	now := u.second(time.Now())
	for key, h := range u.pending {
		if len(b.uses) >= perPush {
			break
		}
		h.trim(now)
		sent := len(b.uses)
		for _, s := range h.buckets {
			if s.pendingRequests != 0 || s.pendingTokens != 0 {
				b.uses = append(b.uses, sentUse{key, s.second, s.pendingRequests, s.pendingTokens})
			}
		}
		if len(b.uses) == sent {
			delete(u.pending, key)
		}
	}
}

func (c *counters) pendingInto(b *batch) {
	for key, q := range c.pendingQuotas {
		if len(b.quotas) == perPush {
			break
		}
		b.quotas = append(b.quotas, sentQuota{key, q.pending, q.used, q.lost})
	}
	for key, d := range c.pendingDebts {
		if len(b.debts) == perPush {
			break
		}
		if b.debts == nil {
			b.debts = make(map[string]debt, min(len(c.pendingDebts), perPush))
		}
		b.debts[key] = d
	}
}

// confirm notes that Redis took a batch; used are the counters of its quotas.
func (j *journal) confirm(b *batch, used []int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := time.Now()
	for i := range b.leases {
		j.confirmLease(&b.leases[i], now)
	}
	second := j.use.second(now)
	for _, s := range b.uses {
		j.use.confirm(s, second)
	}
	for key := range b.debts {
		delete(j.counters.pendingDebts, key)
	}
	for i, s := range b.quotas {
		j.counters.confirm(s, used[i])
	}
}

func (j *journal) confirmLease(sent *lease, now time.Time) {
	l := j.unsynced[sent.id]
	if l == nil {
		return
	}
	l.known, l.acked = confirmedProvisional, sent.total
	if sent.claimed {
		l.known, l.renewed = confirmedClaimed, now
	}
	if l.version == sent.version {
		delete(j.unsynced, sent.id)
	}
}

// redisLost makes everything pending: Redis holds nothing of it any more.
func (j *journal) redisLost() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.unsynced = make(map[string]*lease, len(j.leases))
	for _, l := range j.leases {
		l.known, l.acked = min(l.known, asked), 0
		j.sync(l)
	}
	j.use.lost()
	j.counters.lost()
}

// The document that join.lua reads. Ages are µs.
type (
	joinLease struct {
		ID          string `json:"id"`
		Key         string `json:"key"`
		Slots       int64  `json:"slots"`
		Wide        int64  `json:"wide"`
		Granted     int64  `json:"granted"`
		Held        int64  `json:"held"`
		Claimed     bool   `json:"claimed"`
		HasReserved bool   `json:"has_reserved"`
		Ended       bool   `json:"ended"`
		Known       bool   `json:"known"`
		Kept        bool   `json:"kept"`
		Reserved    int64  `json:"reserved"`
		Total       int64  `json:"total"`
		Acked       int64  `json:"acked"`
		Age         int64  `json:"age"`
	}
	joinUse struct {
		Key      string `json:"key"`
		Age      int64  `json:"age"`
		Requests int64  `json:"requests"`
		Tokens   int64  `json:"tokens"`
	}
	joinQuota struct {
		Key    string `json:"key"`
		Period string `json:"period"`
		Grown  int64  `json:"grown"`
		Used   int64  `json:"used"`
		Lost   bool   `json:"lost"`
	}
	joinDebt struct {
		Key    string  `json:"key"`
		Limit  int64   `json:"limit"`
		Unpaid float64 `json:"unpaid"`
	}
	joinDocument struct {
		Leases []joinLease `json:"leases"`
		Uses   []joinUse   `json:"windows"`
		Quotas []joinQuota `json:"quotas"`
		Debts  []joinDebt  `json:"debts"`
	}
)

// document writes a batch as of now; its seconds count from start.
func (b *batch) document(now, start time.Time) (string, error) {
	doc := joinDocument{
		Leases: make([]joinLease, 0, len(b.leases)), Uses: make([]joinUse, 0, len(b.uses)),
		Quotas: make([]joinQuota, 0, len(b.quotas)), Debts: make([]joinDebt, 0, len(b.debts)),
	}
	for i := range b.leases {
		l := &b.leases[i]
		doc.Leases = append(doc.Leases, joinLease{
			ID: l.id, Key: l.key, Slots: l.slots, Wide: l.wide, Granted: l.granted, Held: l.openQuota(),
			Claimed: l.claimed, HasReserved: l.hasReserved, Ended: l.life == released,
			Known: l.known >= confirmedProvisional, Kept: l.known == confirmedClaimed,
			Reserved: l.reserved, Total: l.total, Acked: l.acked, Age: now.Sub(l.born).Microseconds(),
		})
	}
	for _, u := range b.uses {
		// The newest instant of its second: use counts rather too long than too
		// short.
		at := min(time.Duration(u.second+1)*time.Second, now.Sub(start))
		doc.Uses = append(doc.Uses, joinUse{Key: u.key, Age: (now.Sub(start) - at).Microseconds(), Requests: u.requests, Tokens: u.tokens})
	}
	for _, q := range b.quotas {
		doc.Quotas = append(doc.Quotas, joinQuota{Key: q.key, Period: q.period, Grown: q.grown, Used: q.used, Lost: q.lost})
	}
	for key, d := range b.debts {
		doc.Debts = append(doc.Debts, joinDebt{Key: key, Limit: d.limit, Unpaid: d.now()})
	}
	text, err := json.Marshal(doc)
	if err != nil {
		return "", fmt.Errorf("write what was decided here: %w", err)
	}
	return string(text), nil
}
