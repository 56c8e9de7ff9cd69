// Package histogram counts durations in buckets that grow with the value: 32
// to each power of two, so that every quantile is right to 1.6 %.
package histogram

import (
	"encoding/json"
	"fmt"
	"math"
	"math/bits"
	"sync/atomic"
)

const (
	subBits = 5
	sub     = 1 << subBits
	buckets = (64 - subBits + 1) * sub
)

// Histogram holds counts of nanoseconds. The zero value is empty and ready;
// Record is safe for concurrent use, the other methods want a quiet histogram.
type Histogram struct {
	counts [buckets]atomic.Uint64
}

// Record counts one duration; a negative one counts as 0.
func (h *Histogram) Record(ns int64) { h.counts[bucket(uint64(max(0, ns)))].Add(1) }

func bucket(v uint64) int {
	if v < sub {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return shift*sub + int(v>>shift) //nolint:gosec // below 64
}

// middle is the value in the middle of a bucket.
func middle(i int) int64 {
	if i < 2*sub {
		return int64(i)
	}
	shift := i/sub - 1
	low := int64(i-shift*sub) << shift
	return low + int64(1)<<shift/2
}

// Count is the number of durations.
func (h *Histogram) Count() uint64 {
	var n uint64
	for i := range h.counts {
		n += h.counts[i].Load()
	}
	return n
}

// Quantile is the duration in nanoseconds that a share q of all, 0 to 1, do not
// exceed; 0 when there are none.
func (h *Histogram) Quantile(q float64) int64 {
	total := h.Count()
	if total == 0 {
		return 0
	}
	rank := max(1, uint64(math.Ceil(q*float64(total))))
	var seen uint64
	for i := range h.counts {
		if seen += h.counts[i].Load(); seen >= rank {
			return middle(i)
		}
	}
	return middle(buckets - 1)
}

// Merge adds the counts of another histogram.
func (h *Histogram) Merge(o *Histogram) {
	for i := range o.counts {
		if n := o.counts[i].Load(); n > 0 {
			h.counts[i].Add(n)
		}
	}
}

// MarshalJSON writes pairs of bucket and count, empty buckets left out.
func (h *Histogram) MarshalJSON() ([]byte, error) {
	pairs := [][2]uint64{}
	for i := range h.counts {
		if n := h.counts[i].Load(); n > 0 {
			pairs = append(pairs, [2]uint64{uint64(i), n})
		}
	}
	return json.Marshal(pairs)
}

// UnmarshalJSON reads what MarshalJSON wrote into an empty histogram.
func (h *Histogram) UnmarshalJSON(b []byte) error {
	var pairs [][2]uint64
	if err := json.Unmarshal(b, &pairs); err != nil {
		return fmt.Errorf("read histogram: %w", err)
	}
	for _, p := range pairs {
		if p[0] >= buckets {
			return fmt.Errorf("read histogram: there is no bucket %d", p[0])
		}
		h.counts[p[0]].Store(p[1])
	}
	return nil
}
