package extproc

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Budget bounds the bytes of request bodies that are held at once: of all
// requests (request.max_inflight_body_mb), and of one key, which gets a quarter
// of that so that no key can take the room of all others. It counts memory that
// is held, never what a client announces. It is safe for concurrent use.
type Budget struct {
	limit int64 // bytes, of all requests
	share int64 // bytes, of one key

	mu   sync.Mutex
	used int64            // guarded by mu
	keys map[string]int64 // guarded by mu; a key that holds nothing has no entry

	refused *prometheus.CounterVec // nil: not counted
}

// keyShare is the part of the whole that one key may hold.
const keyShare = 4

// Room is the answer to a wish for memory.
type Room string

// The answers. Those that refuse are the labels of body_refusals_total.
const (
	Granted   Room = ""
	KeyIsFull Room = "key_share" // the key holds its share
	AllIsFull Room = "total"     // all keys together hold the whole
	// TooSlow is no answer to a wish, but ends a body too: it brought less than
	// the least rate of arrival.
	TooSlow Room = "slow"
)

// NewBudget returns a budget of so many bytes, of which one key may hold a
// quarter, but always one body of the largest size that is allowed.
func NewBudget(limit, largest int64) *Budget {
	return &Budget{limit: limit, share: min(limit, max(limit/keyShare, largest)), keys: map[string]int64{}}
}

// Take takes n bytes for a key, or nothing where it does not say [Granted].
func (b *Budget) Take(key string, n int64) Room {
	b.mu.Lock()
	defer b.mu.Unlock()
	held := b.keys[key]
	switch { // the differences cannot overflow, sums could
	case n > b.share-held:
		return KeyIsFull
	case n > b.limit-b.used:
		return AllIsFull
	}
	b.used += n
	b.keys[key] = held + n
	return Granted
}

// Free gives n bytes of a key back.
func (b *Budget) Free(key string, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	if b.keys[key] -= n; b.keys[key] <= 0 {
		delete(b.keys, key)
	}
}

// Used is the number of bytes taken.
func (b *Budget) Used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// ended counts a body that was refused.
func (b *Budget) ended(why Room) {
	if b != nil && b.refused != nil {
		b.refused.WithLabelValues(string(why)).Inc()
	}
}

// Register adds the budget's metrics. It must come before the first request.
func (b *Budget) Register(reg prometheus.Registerer) {
	b.refused = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "body_refusals_total",
		Help: "Requests refused while their body arrived: key_share (429, the key holds its share), total (503, the memory for bodies is full), slow (408, too few bytes a second).",
	}, []string{"reason"})
	for _, why := range []Room{KeyIsFull, AllIsFull, TooSlow} {
		b.refused.WithLabelValues(string(why))
	}
	reg.MustRegister(
		b.refused,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "body_bytes_inflight", Help: "Bytes of memory that request bodies hold.",
		}, func() float64 { return float64(b.Used()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "body_bytes_limit", Help: "Bytes that all request bodies may hold: request.max_inflight_body_mb.",
		}, func() float64 { return float64(b.limit) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "body_bytes_key_limit", Help: "Bytes that the request bodies of one key may hold.",
		}, func() float64 { return float64(b.share) }),
	)
}
