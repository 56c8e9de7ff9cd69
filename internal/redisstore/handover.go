package redisstore

import (
	"context"
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
	leases []sentLease
	uses   []sentUse
	quotas []sentQuota
	debts  map[string]knownDebt
}

type sentLease struct {
	holding
	version uint64
}

type sentUse struct {
	key              string
	second           int64
	requests, tokens int64
}

type sentQuota struct {
	quotaKey
	grown, used int64
	lost        bool
}

// held is what of a lease's part of the quota is still open.
func (l *holding) held() int64 { return max(0, l.granted-l.total) }

func (b *batch) empty() bool { return len(b.leases)+len(b.uses)+len(b.quotas)+len(b.debts) == 0 }

// full reports whether more may be pending.
func (b *batch) full() bool {
	return max(len(b.leases), len(b.uses), len(b.quotas), len(b.debts)) >= perPush
}

// take returns what is pending, at most perPush of each kind.
func (j *journal) take() *batch {
	j.mu.Lock()
	defer j.mu.Unlock()
	b := &batch{}
	for _, l := range j.dirty {
		if len(b.leases) == perPush {
			break
		}
		l.told = true
		b.leases = append(b.leases, sentLease{*l, l.version})
	}
	now := j.second(time.Now())
	for key, h := range j.stale {
		if len(b.uses) >= perPush {
			break
		}
		h.trim(now)
		sent := len(b.uses)
		for _, u := range h.buckets {
			if u.pendingRequests != 0 || u.pendingTokens != 0 {
				b.uses = append(b.uses, sentUse{key, u.second, u.pendingRequests, u.pendingTokens})
			}
		}
		if len(b.uses) == sent {
			delete(j.stale, key)
		}
	}
	for key, c := range j.owed {
		if len(b.quotas) == perPush {
			break
		}
		b.quotas = append(b.quotas, sentQuota{key, c.pending, c.used, c.lost})
	}
	for key, d := range j.lostDebts {
		if len(b.debts) == perPush {
			break
		}
		if b.debts == nil {
			b.debts = make(map[string]knownDebt, min(len(j.lostDebts), perPush))
		}
		b.debts[key] = d
	}
	return b
}

// confirm notes that Redis took a batch; used are the counters of its quotas.
func (j *journal) confirm(b *batch, used []int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	moment := time.Now()
	for _, s := range b.leases {
		l := j.dirty[s.id]
		if l == nil {
			continue
		}
		l.known, l.kept, l.acked = true, s.claimed, s.total
		if s.claimed {
			l.renewed = moment
		}
		if l.version == s.version {
			delete(j.dirty, s.id)
		}
	}
	now := j.second(moment)
	for _, s := range b.uses {
		if h := j.keys[s.key]; h != nil {
			if u := h.bucket(s.second, now); u != nil {
				u.pendingRequests -= s.requests
				u.pendingTokens -= s.tokens
			}
		}
	}
	for key := range b.debts {
		delete(j.lostDebts, key)
	}
	for i, s := range b.quotas {
		c := j.owed[s.quotaKey]
		if c == nil {
			continue
		}
		c.lost = false
		if c.pending -= s.grown; c.pending == 0 {
			delete(j.owed, s.quotaKey)
		}
		c.used = used[i] + c.pending
	}
}

// forget makes everything pending: Redis holds nothing of it any more.
func (j *journal) forget() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.dirty = make(map[string]*holding, len(j.leases))
	for _, l := range j.leases {
		l.known, l.kept, l.acked = false, false, 0
		j.touch(l)
	}
	for key, h := range j.keys {
		for i := range h.buckets {
			u := &h.buckets[i]
			u.pendingRequests, u.pendingTokens = u.requests, u.tokens
		}
		j.stale[key] = h
	}
	for _, key := range j.debts.Keys() {
		if d, ok := j.debts.Peek(key); ok && d.now() > 0 {
			j.lostDebts[key] = d
		}
	}
	for _, key := range j.quotas.Keys() {
		if c, ok := j.quotas.Peek(key); ok {
			c.lost = true
			j.owed[key] = c
		}
	}
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

// document writes a batch as of now.
func (j *journal) document(b *batch) (string, error) {
	now := time.Now()
	doc := joinDocument{
		Leases: make([]joinLease, 0, len(b.leases)), Uses: make([]joinUse, 0, len(b.uses)), Quotas: make([]joinQuota, 0, len(b.quotas)),
		Debts: make([]joinDebt, 0, len(b.debts)),
	}
	for _, l := range b.leases {
		doc.Leases = append(doc.Leases, joinLease{
			ID: l.id, Key: l.key, Slots: l.slots, Wide: l.wide, Granted: l.granted, Held: l.held(), Claimed: l.claimed, HasReserved: l.hasReserved, Ended: l.ended, Known: l.known, Kept: l.kept,
			Reserved: l.reserved, Total: l.total, Acked: l.acked, Age: now.Sub(l.born).Microseconds(),
		})
	}
	for _, u := range b.uses {
		// The newest instant of its second: use counts rather too long than too
		// short.
		at := min(time.Duration(u.second+1)*time.Second, now.Sub(j.start))
		doc.Uses = append(doc.Uses, joinUse{Key: u.key, Age: (now.Sub(j.start) - at).Microseconds(), Requests: u.requests, Tokens: u.tokens})
	}
	for key, d := range b.debts {
		doc.Debts = append(doc.Debts, joinDebt{Key: key, Limit: d.limit, Unpaid: d.now()})
	}
	for _, q := range b.quotas {
		doc.Quotas = append(doc.Quotas, joinQuota{Key: q.key, Period: q.period, Grown: q.grown, Used: q.used, Lost: q.lost})
	}
	text, err := json.Marshal(doc)
	if err != nil {
		return "", fmt.Errorf("write what was decided alone: %w", err)
	}
	return string(text), nil
}

// push tells Redis all that was pending when it began. Only mind calls it.
func (s *Store) push(ctx context.Context) error {
	for more := true; more; {
		b, again := s.unsure, s.unsure != nil
		if !again {
			if b = s.journal.take(); b.empty() {
				return nil
			}
			b.mark = s.mark()
			s.unsure = b
		}
		if err := s.send(ctx, b); err != nil {
			return err
		}
		s.unsure = nil
		more = again || b.full()
	}
	return nil
}

func (s *Store) send(ctx context.Context, b *batch) error {
	doc, err := s.journal.document(b)
	if err != nil {
		return err
	}
	r, err := s.call(ctx, s.scripts.join, doc, s.replica, b.mark)
	if err != nil {
		return err
	}
	if r.verdict != "ok" {
		return unexpected(r.verdict)
	}
	used, err := r.integers(len(b.quotas))
	if err != nil {
		return err
	}
	s.journal.confirm(b, used)
	return nil
}
