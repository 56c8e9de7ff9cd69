package ledger

import (
	"fmt"
	"slices"
	"time"

	"tollgate/internal/usage"
)

// MaxTokens is the largest count that one request can be charged: 2^40. What
// claims more is cut to it, so that sums over millions of rows stay far from
// the end of int64 and nonsense never becomes a negative charge.
const MaxTokens int64 = 1 << 40

// Merge is the one rule of what a row says after a settlement.
//
// An open row takes everything. A settled one takes a better quality whole, up
// or down; of the same quality it takes each count that is higher, a named
// reason in place of [Aborted] and a status in place of 0; of a lower quality
// it takes nothing. Whatever the order, [Aborted] never replaces a named
// reason, and an end is never before the start.
//
// A checkpoint of an open row ranks below an exact settlement, which replaces
// it, and stands against any other: what was counted already is not lost.
//
// The delta is how far the counts moved beyond what had been settled before:
// all of them when old was open, negative where a better quality corrected
// downwards, with [usage.Unsaid] taken as 0. Merging the same settlement again
// changes nothing.
func Merge(old Record, s Settlement) (merged Record, delta usage.Counts, changed bool) {
	next, before := old, old.Counts
	switch {
	case old.Open():
		before = usage.Counts{}
		next.Counts = firstCounts(old.Counts, s)
		take(&next, s)
	case s.Quality.Rank() > old.Quality.Rank():
		next.Counts = said(bounded(s.Counts))
		take(&next, s)
	case s.Quality.Rank() == old.Quality.Rank():
		next.Counts, _ = Grow(old.Counts, s.Counts)
		fill(&next, s)
	}
	return next, Minus(next.Counts, before), next != old
}

// take lets a settlement that wins say everything it knows.
func take(r *Record, s Settlement) {
	if s.Reason != Aborted || r.Open() {
		r.Reason = s.Reason
	}
	r.Quality = s.Quality
	r.EndedAt = notBefore(r.StartedAt, s.EndedAt)
	if s.Status != 0 {
		r.Status = s.Status
	}
	if s.Engine != "" {
		r.Engine = s.Engine
	}
	if !s.FirstByteAt.IsZero() {
		r.FirstByteAt = notBefore(r.StartedAt, s.FirstByteAt)
	}
}

// fill lets a settlement of the same quality say what the row does not know.
func fill(r *Record, s Settlement) {
	if r.Reason == Aborted {
		r.Reason = s.Reason
	}
	if r.Status == 0 {
		r.Status = s.Status
	}
	if r.Engine == "" {
		r.Engine = s.Engine
	}
	if r.FirstByteAt.IsZero() && !s.FirstByteAt.IsZero() {
		r.FirstByteAt = notBefore(r.StartedAt, s.FirstByteAt)
	}
}

// firstCounts are the counts of a row's first settlement, given its checkpoint.
func firstCounts(checkpoint usage.Counts, s Settlement) usage.Counts {
	c := bounded(s.Counts)
	if s.Quality != Exact {
		c, _ = Grow(checkpoint, c)
	}
	return said(c)
}

// Grow is the rule of checkpoints: each count becomes the higher of the two,
// and it says whether one moved. [usage.Unsaid] is below everything.
func Grow(old, c usage.Counts) (grown usage.Counts, moved bool) {
	c = bounded(c)
	grown = usage.Counts{
		Prompt:     max(old.Prompt, c.Prompt),
		Completion: max(old.Completion, c.Completion),
		Cached:     max(old.Cached, c.Cached),
		Reasoning:  max(old.Reasoning, c.Reasoning),
	}
	return grown, grown != old
}

// Recovery is how an intent that was found open at start ends: as its last
// checkpoint says, or as an estimate of no completion where there was none.
func Recovery(r *Record, reason EndReason, at time.Time) Settlement {
	s := Settlement{LeaseID: r.LeaseID, EndedAt: at, Reason: reason, Quality: Partial, Counts: said(r.Counts)}
	if r.Counts.Completion == usage.Unsaid {
		s.Quality = Estimated
	}
	return s
}

// Minus subtracts b from a, field by field, with [usage.Unsaid] taken as 0.
func Minus(a, b usage.Counts) usage.Counts {
	return usage.Counts{
		Prompt:     max(a.Prompt, 0) - max(b.Prompt, 0),
		Completion: max(a.Completion, 0) - max(b.Completion, 0),
		Cached:     max(a.Cached, 0) - max(b.Cached, 0),
		Reasoning:  max(a.Reasoning, 0) - max(b.Reasoning, 0),
	}
}

// Validate reports what makes the intent unusable, as [ErrInvalid].
func (in *Intent) Validate() error {
	if in.LeaseID == "" {
		return fmt.Errorf("%w: intent without a lease id", ErrInvalid)
	}
	return nil
}

// Validate reports what makes the settlement unusable, as [ErrInvalid].
func (s *Settlement) Validate() error {
	switch {
	case s.LeaseID == "":
		return fmt.Errorf("%w: settlement without a lease id", ErrInvalid)
	case !s.Reason.known():
		return fmt.Errorf("%w: end reason %q", ErrInvalid, s.Reason)
	case s.Quality.Rank() == 0:
		return fmt.Errorf("%w: quality %q", ErrInvalid, s.Quality)
	}
	return nil
}

var reasons = EndReasons()

func (e EndReason) known() bool { return slices.Contains(reasons, e) }

// Opened is the row that an intent begins: open, nothing counted, its start at
// the precision of the ledger.
func Opened(in Intent) Record {
	in.StartedAt = Micro(in.StartedAt)
	return Record{Intent: in, Counts: usage.None()}
}

// Micro is a time as the ledger keeps it: UTC, in whole microseconds, without
// a monotonic reading. The zero time stays zero.
func Micro(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return time.UnixMicro(t.UnixMicro()).UTC()
}

// notBefore guards against wall clocks that were set back during a request.
func notBefore(start, t time.Time) time.Time {
	if t.Before(start) {
		return Micro(start)
	}
	return Micro(t)
}

// bounded turns every count into one of Unsaid, 0 … MaxTokens.
func bounded(c usage.Counts) usage.Counts {
	b := func(n int64) int64 { return min(max(n, usage.Unsaid), MaxTokens) }
	return usage.Counts{Prompt: b(c.Prompt), Completion: b(c.Completion), Cached: b(c.Cached), Reasoning: b(c.Reasoning)}
}

// said makes the two counts that a settled row always says at least 0.
func said(c usage.Counts) usage.Counts {
	c.Prompt, c.Completion = max(c.Prompt, 0), max(c.Completion, 0)
	return c
}
