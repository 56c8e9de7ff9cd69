package vllmsim

import "sync"

// records remembers requests, a bounded number of ended ones.
type records struct {
	limit int

	mu   sync.Mutex
	seq  int64
	all  []*record          // guarded by mu; oldest first
	byID map[string]*record // guarded by mu; the latest of an id
}

func newRecords(limit int) *records {
	return &records{limit: limit, byID: make(map[string]*record)}
}

func (rs *records) add(r *record) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.seq++
	r.truth.Seq = rs.seq // nobody else has r yet
	rs.all = append(rs.all, r)
	if id := r.truth.RequestID; id != "" {
		rs.byID[id] = r
	}
	// Trimmed by halves, so that one arrival in many pays for it.
	if len(rs.all) > 2*rs.limit {
		rs.trim(len(rs.all) - rs.limit)
	}
}

// trim forgets the oldest n that have ended. The caller holds mu.
func (rs *records) trim(n int) {
	kept := make([]*record, 0, len(rs.all))
	for i, r := range rs.all {
		if i >= n || !closed(r.ended) {
			kept = append(kept, r)
			continue
		}
		if id := r.truth.RequestID; rs.byID[id] == r { // the id is never written again
			delete(rs.byID, id)
		}
	}
	rs.all = kept
}

func (rs *records) find(requestID string) *record {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return rs.byID[requestID]
}

func (rs *records) list() []*record {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return append([]*record(nil), rs.all...)
}

func (rs *records) snapshots() []Truth {
	list := rs.list()
	out := make([]Truth, len(list))
	for i, r := range list {
		out[i] = r.snapshot()
	}
	return out
}

// release resumes the paused requests of that id, or all for "".
func (rs *records) release(requestID string) int {
	n := 0
	for _, r := range rs.list() {
		if (requestID == "" || r.truth.RequestID == requestID) && r.release() {
			n++
		}
	}
	return n
}

// reset forgets everything that has ended.
func (rs *records) reset() {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.trim(len(rs.all))
}
