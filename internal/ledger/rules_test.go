package ledger_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"tollgate/internal/ledger"
	"tollgate/internal/usage"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func anyCounts(t *rapid.T, name string) usage.Counts {
	n := rapid.Int64Range(usage.Unsaid, 6)
	return usage.Counts{
		Prompt: n.Draw(t, name+" prompt"), Completion: n.Draw(t, name+" completion"),
		Cached: n.Draw(t, name+" cached"), Reasoning: n.Draw(t, name+" reasoning"),
	}
}

func anySettlement(t *rapid.T) ledger.Settlement {
	return ledger.Settlement{
		LeaseID:     "a",
		Status:      rapid.SampledFrom([]int{0, 200, 499}).Draw(t, "status"),
		FirstByteAt: rapid.SampledFrom([]time.Time{{}, noon.Add(time.Second), noon.Add(-time.Second)}).Draw(t, "first byte"),
		EndedAt:     noon.Add(time.Duration(rapid.IntRange(-2, 5).Draw(t, "ended")) * time.Second),
		Reason:      rapid.SampledFrom(ledger.EndReasons()).Draw(t, "reason"),
		Quality:     rapid.SampledFrom([]ledger.Quality{ledger.Exact, ledger.Partial, ledger.Estimated}).Draw(t, "quality"),
		Counts:      anyCounts(t, "settled"),
		Engine:      rapid.SampledFrom([]string{"", "e1", "e2"}).Draw(t, "engine"),
	}
}

func anyOpen(t *rapid.T) ledger.Record {
	r := ledger.Opened(ledger.Intent{LeaseID: "a", StartedAt: noon})
	if rapid.Bool().Draw(t, "checkpoint") {
		r.Counts = anyCounts(t, "checkpoint")
	}
	return r
}

func settleAll(r ledger.Record, all []ledger.Settlement) (ledger.Record, usage.Counts) {
	var sum usage.Counts
	for _, s := range all {
		var delta usage.Counts
		r, delta, _ = ledger.Merge(r, s)
		sum.Prompt += delta.Prompt
		sum.Completion += delta.Completion
		sum.Cached += delta.Cached
		sum.Reasoning += delta.Reasoning
	}
	return r, sum
}

// The counts and the quality of a row do not depend on the order in which its
// witnesses spoke, as long as no checkpoint stands below an inexact first one.
func TestCountsDoNotDependOnTheOrderOfSettlements(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		row := ledger.Opened(ledger.Intent{LeaseID: "a", StartedAt: noon})
		all := rapid.SliceOfN(rapid.Custom(anySettlement), 1, 6).Draw(t, "settlements")
		want, wantSum := settleAll(row, all)
		shuffled := append([]ledger.Settlement(nil), all...)
		seed := rapid.Uint64().Draw(t, "seed")
		rand.New(rand.NewPCG(seed, 1)).Shuffle(len(shuffled), func(i, j int) {
			shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
		})
		got, gotSum := settleAll(row, shuffled)
		if got.Quality != want.Quality || got.Counts != want.Counts {
			t.Fatalf("got %s %+v, in the other order %s %+v", got.Quality, got.Counts, want.Quality, want.Counts)
		}
		if gotSum != wantSum {
			t.Fatalf("deltas sum to %+v, in the other order to %+v", gotSum, wantSum)
		}
	})
}

func TestSettlingAgainChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		row := anyOpen(t)
		all := rapid.SliceOfN(rapid.Custom(anySettlement), 1, 6).Draw(t, "settlements")
		settled, _ := settleAll(row, all)
		for _, s := range all {
			again, delta, changed := ledger.Merge(settled, s)
			// A named reason may still come from a settlement that was of too low
			// a quality when it was first seen; it then changes no count either.
			if delta != (usage.Counts{}) || again.Counts != settled.Counts || again.Quality != settled.Quality {
				t.Fatalf("repeating %+v moved %+v to %+v", s, settled, again)
			}
			if changed != (again != settled) {
				t.Fatalf("changed is %v: %+v, %+v", changed, settled, again)
			}
		}
		twice, _, _ := ledger.Merge(settled, all[len(all)-1])
		if twice != settled {
			t.Fatalf("the last settlement, repeated, changed the row (-first +again):\n%s", cmp.Diff(settled, twice))
		}
	})
}

func TestDeltasSumToTheCountsOfTheRow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(rapid.Custom(anySettlement), 1, 6).Draw(t, "settlements")
		got, sum := settleAll(anyOpen(t), all)
		if want := ledger.Minus(got.Counts, usage.Counts{}); sum != want {
			t.Fatalf("deltas sum to %+v, the row says %+v", sum, want)
		}
	})
}

func TestQualityNeverFallsAndCountsNeverFallWithinIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		row := anyOpen(t)
		for _, s := range rapid.SliceOfN(rapid.Custom(anySettlement), 1, 6).Draw(t, "settlements") {
			next, _, _ := ledger.Merge(row, s)
			if next.Quality.Rank() < row.Quality.Rank() {
				t.Fatalf("quality fell from %s to %s", row.Quality, next.Quality)
			}
			if _, moved := ledger.Grow(next.Counts, row.Counts); next.Quality == row.Quality && moved {
				t.Fatalf("counts fell from %+v to %+v", row.Counts, next.Counts)
			}
			if row.Reason != ledger.Aborted && row.Reason != "" && next.Reason == ledger.Aborted {
				t.Fatalf("reason %s was forgotten", row.Reason)
			}
			if found := ledger.Check(&next); len(found) > 0 {
				t.Fatalf("a merged row breaks %+v", found)
			}
			row = next
		}
	})
}

func TestAbortedIsNamedWithinItsQualityOnly(t *testing.T) {
	aborted := ledger.Settlement{LeaseID: "a", Reason: ledger.Aborted, Quality: ledger.Exact, EndedAt: noon}
	row, _, _ := ledger.Merge(ledger.Opened(ledger.Intent{LeaseID: "a", StartedAt: noon}), aborted)
	for q, want := range map[ledger.Quality]ledger.EndReason{
		ledger.Exact: ledger.Timeout, ledger.Partial: ledger.Aborted, ledger.Estimated: ledger.Aborted,
	} {
		got, _, changed := ledger.Merge(row, ledger.Settlement{LeaseID: "a", Reason: ledger.Timeout, Quality: q, EndedAt: noon})
		if got.Reason != want || changed != (want == ledger.Timeout) {
			t.Errorf("%s: got %s, changed %v, want %s", q, got.Reason, changed, want)
		}
	}
}

func TestEveryReasonSettles(t *testing.T) {
	seen := map[ledger.EndReason]bool{}
	for _, r := range ledger.EndReasons() {
		s := ledger.Settlement{LeaseID: "a", Reason: r, Quality: ledger.Exact}
		if err := s.Validate(); err != nil || seen[r] {
			t.Errorf("%s: %v, seen before %v", r, err, seen[r])
		}
		seen[r] = true
	}
}
