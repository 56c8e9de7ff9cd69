package extproc

import "sync/atomic"

// Budget bounds the bytes of all request bodies that are being read or parsed
// at once (request.max_inflight_body_mb). It is safe for concurrent use.
type Budget struct {
	limit int64 // bytes
	used  atomic.Int64
}

// NewBudget returns a budget of so many bytes.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

// Take takes n bytes, or nothing and false where there is no room.
func (b *Budget) Take(n int64) bool {
	if b.used.Add(n) > b.limit {
		b.used.Add(-n)
		return false
	}
	return true
}

// Free gives n bytes back.
func (b *Budget) Free(n int64) { b.used.Add(-n) }

// Used is the number of bytes taken.
func (b *Budget) Used() int64 { return b.used.Load() }
