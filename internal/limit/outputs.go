package limit

import "math/bits"

const (
	// stepsPerDoubling sets the precision of a learned output: counts within
	// 1/8 of an octave (12 % at most) share a bucket; up to 16 each has its own.
	stepsPerDoubling = 8
	outputBuckets    = 160 // up to 2^22 tokens
	outputDecay      = 0.99
	rescaleAt        = 1 << 40
)

// outputs is a histogram of outputs per choice that fades: each new one weighs
// 1/outputDecay of the one before, so that the last 100 or so decide.
type outputs struct {
	buckets [outputBuckets]float32
	weight  float64 // of the next output, grows instead of all buckets shrinking
	total   float64
	seen    int64
	peak    int64 // the last output much above what was learned; fades
}

const (
	// peakFactor is how much longer than learned an output is that raises the
	// estimate at once.
	peakFactor = 1.5
	// peakDecay lowers a peak for each output that does not reach it.
	peakDecay = 0.8
)

// expected is what to reserve for the next output: 0 when nothing is known.
func (o *outputs) expected() int64 { return max(o.learned(), o.peak) }

func (o *outputs) learned() int64 {
	if o.seen < outputsNeeded {
		return 0
	}
	return o.quantile(outputQuantile)
}

// raise takes in an output that may have been cut: at least so much was wanted.
func (o *outputs) raise(tokens int64) {
	if tokens > o.peak && float64(tokens) > peakFactor*float64(o.learned()) {
		o.peak = tokens
	}
}

// learn adds one output in constant time, but for a rescaling every few
// thousand.
func (o *outputs) learn(tokens int64) {
	if o.peak = int64(float64(o.peak) * peakDecay); o.peak <= o.learned() {
		o.peak = 0
	}
	o.raise(tokens)
	o.buckets[bucketOf(tokens)] += float32(o.weight)
	o.total += o.weight
	o.seen++
	if o.weight /= outputDecay; o.weight < rescaleAt {
		return
	}
	o.total = 0
	for i := range o.buckets {
		o.buckets[i] /= float32(o.weight)
		o.total += float64(o.buckets[i])
	}
	o.weight = 1
}

// quantile returns the smallest count, rounded up to its bucket's upper end,
// that at least a share q of the outputs does not exceed. 0 when empty.
func (o *outputs) quantile(q float64) int64 {
	left := q * o.total * (1 - 1e-6) // the sum of float32 buckets may fall short of total
	for i := range o.buckets {
		if left -= float64(o.buckets[i]); left <= 0 && o.buckets[i] > 0 {
			return upperOf(i)
		}
	}
	return 0
}

// bucketOf maps 0 to 15 to themselves; from 16 on, each doubling is divided in
// 8 equal steps.
func bucketOf(tokens int64) int {
	tokens = bounded(tokens)
	if tokens < 2*stepsPerDoubling {
		return int(tokens)
	}
	shift := bits.Len64(uint64(tokens)) - 4
	return min(shift*stepsPerDoubling+int(tokens>>shift), outputBuckets-1)
}

// upperOf is the largest count in a bucket.
func upperOf(bucket int) int64 {
	if bucket < 2*stepsPerDoubling {
		return int64(bucket)
	}
	shift := bucket/stepsPerDoubling - 1
	mantissa := int64(bucket%stepsPerDoubling + stepsPerDoubling)
	return (mantissa+1)<<shift - 1
}
