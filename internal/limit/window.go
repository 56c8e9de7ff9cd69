package limit

import "time"

// instant is a moment on a store's own monotonic clock: the time since its
// origin. The first instant that a window sees is at least 2 x [Window], so
// that nothing it looks back at is negative.
type instant = time.Duration

// span is how many one-second buckets a window needs: 60 whole seconds, the
// running one included, and the one that is sliding out.
const span = int64(Window/time.Second) + 1

// window counts what happened in the last [Window], in one-second buckets.
//
// Each bucket also remembers when in its second the newest event fell, and
// leaves the window as a whole when that event is [Window] old. So a count is
// never too low for any real 60 s, and an event stays less than a second too
// long. The zero value is an empty window. All methods but slide expect that
// slide was called with the same now. Nothing allocates.
type window struct {
	sums   [span]int64 // what fell into second s, at index s mod span
	newest [span]int32 // nanoseconds within second s of its newest event; only where sums is not 0
	total  int64
	head   int64 // the latest second that was seen
}

func split(at instant) (second int64, offset int32) {
	return int64(at / time.Second), int32(at % time.Second)
}

// slide moves the window to now and drops what is too old.
func (w *window) slide(now instant) {
	second, offset := split(now)
	if second < w.head {
		return // another clock's reading: what was counted stays
	}
	for steps := min(second-w.head, span); steps > 0; steps-- {
		w.drop((second - steps + 1) % span)
	}
	w.head = second
	if oldest := (second + 1) % span; offset >= w.newest[oldest] {
		w.drop(oldest)
	}
}

func (w *window) drop(index int64) {
	w.total -= w.sums[index]
	w.sums[index] = 0
}

// add counts n that happened at an instant at or before now. What is older
// than the window is not counted.
//
// The oldest second may have left already, and who counted in it then would
// give back (take) what is not theirs: what falls there goes into the next one,
// so it stays less than two seconds too long.
func (w *window) add(at instant, n int64) {
	second, offset := split(at)
	if n <= 0 || second <= w.head-span || second > w.head {
		return
	}
	if second == w.head-span+1 {
		second, offset = second+1, 0
	}
	i := second % span
	if w.sums[i] == 0 || offset > w.newest[i] {
		w.newest[i] = offset
	}
	w.sums[i] += n
	w.total += n
}

// take removes up to n from one second, as far as it is still in the window.
func (w *window) take(second, n int64) {
	if n <= 0 || second <= w.head-span || second > w.head {
		return
	}
	i := second % span
	n = min(n, w.sums[i])
	w.sums[i] -= n
	w.total -= n
}

// until returns how long it takes from now until the sum is at most x if
// nothing more is added: 0 when it is already. An x below 0 is taken as 0.
func (w *window) until(now instant, x int64) time.Duration {
	left := w.total
	if left <= max(x, 0) {
		return 0
	}
	for second := w.head - span + 1; second <= w.head; second++ {
		i := second % span
		if w.sums[i] == 0 {
			continue
		}
		if left -= w.sums[i]; left <= max(x, 0) {
			return w.leaves(second, i) - now
		}
	}
	return 0
}

// empties is until(now, 0), cheap for a window that was used lately.
func (w *window) empties(now instant) time.Duration {
	if w.total == 0 {
		return 0
	}
	for second := w.head; second > w.head-span; second-- {
		i := second % span
		if w.sums[i] != 0 {
			return w.leaves(second, i) - now
		}
	}
	return 0
}

// leaves is the instant at which the bucket of a second leaves the window.
func (w *window) leaves(second, index int64) instant {
	return instant(second)*time.Second + instant(w.newest[index]) + Window
}
