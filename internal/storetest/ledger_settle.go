package storetest

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/ledger"
	"tollgate/internal/usage"
)

func firstSettlement(t *testing.T, s ledger.Store) {
	t.Helper()
	mustBegin(t, s, intent("a"))
	if err := s.Checkpoint(t.Context(), []ledger.Checkpoint{{LeaseID: "a", Counts: counts(10, 4)}}); err != nil {
		t.Fatal(err)
	}
	st := settlement("a", ledger.Exact, ledger.Complete, 10, 7)
	st.Counts.Cached, st.Counts.Reasoning = 8, 0
	st.Engine = "10.0.0.2:8000"
	r, delta := mustSettle(t, s, st)
	wantCounts(t, "delta, the checkpoint included", delta, usage.Counts{Prompt: 10, Completion: 7, Cached: 8})
	in := intent("a")
	in.Engine = st.Engine
	want := ledger.Record{
		Intent: in, Status: 200, FirstByteAt: st.FirstByteAt, EndedAt: st.EndedAt,
		Reason: ledger.Complete, Quality: ledger.Exact, Counts: st.Counts, Change: 1,
	}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Errorf("row (-want +got):\n%s", diff)
	}
}

func settlementBelowCheckpoint(t *testing.T, s ledger.Store) {
	t.Helper()
	for q, want := range map[ledger.Quality]usage.Counts{
		ledger.Exact:     counts(9, 60), // the engine's word stands
		ledger.Partial:   counts(10, 64),
		ledger.Estimated: counts(10, 64),
	} {
		lease := string(q)
		mustBegin(t, s, intent(lease))
		if err := s.Checkpoint(t.Context(), []ledger.Checkpoint{{LeaseID: lease, Counts: counts(10, 64)}}); err != nil {
			t.Fatal(err)
		}
		r, _ := mustSettle(t, s, settlement(lease, q, ledger.ClientAbort, 9, 60))
		wantCounts(t, lease, r.Counts, want)
	}
	if got, err := s.Used(t.Context(), "k1", time.Time{}, time.Time{}); err != nil || got != 69+74+74 {
		t.Errorf("used: got %d, %v, want %d", got, err, 69+74+74)
	}
}

func settlesOnce(t *testing.T, s ledger.Store) {
	t.Helper()
	mustBegin(t, s, intent("a"))
	first, _ := mustSettle(t, s, settlement("a", ledger.Exact, ledger.Complete, 10, 7))
	later := settlement("a", ledger.Exact, ledger.ClientAbort, 10, 6)
	later.Status, later.EndedAt, later.FirstByteAt = 499, noon.Add(time.Hour), noon.Add(time.Minute)
	later.Engine = "elsewhere"
	again, delta := mustSettle(t, s, later)
	wantCounts(t, "delta", delta, usage.Counts{})
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("row moved (-first +again):\n%s", diff)
	}
}

func sameQuality(t *testing.T, s ledger.Store) {
	t.Helper()
	in := intent("a")
	in.Engine = ""
	mustBegin(t, s, in)
	open := settlement("a", ledger.Exact, ledger.Aborted, 10, 7)
	open.Status, open.FirstByteAt = 0, time.Time{}
	mustSettle(t, s, open)
	named := settlement("a", ledger.Exact, ledger.ClientAbort, 9, 8)
	named.Engine = "10.0.0.2:8000"
	named.EndedAt = noon.Add(time.Hour)
	r, delta := mustSettle(t, s, named)
	wantCounts(t, "delta", delta, moved(0, 1))
	wantCounts(t, "counts", r.Counts, counts(10, 8))
	if r.Reason != ledger.ClientAbort || r.Status != 200 || r.Engine != "10.0.0.2:8000" || !r.FirstByteAt.Equal(noon.Add(time.Second)) {
		t.Errorf("gaps were not filled: %+v", r)
	}
	if !r.EndedAt.Equal(open.EndedAt) {
		t.Errorf("ended: got %s, want the first end %s", r.EndedAt, open.EndedAt)
	}
}

func betterQuality(t *testing.T, s ledger.Store) {
	t.Helper()
	mustBegin(t, s, intent("a"))
	mustSettle(t, s, settlement("a", ledger.Estimated, ledger.ClientAbort, 10, 40))
	_, delta := mustSettle(t, s, settlement("a", ledger.Partial, ledger.GatewayCrash, 12, 30))
	wantCounts(t, "delta to partial", delta, moved(2, -10))
	exact := settlement("a", ledger.Exact, ledger.Complete, 11, 90)
	exact.EndedAt = noon.Add(time.Minute)
	r, delta := mustSettle(t, s, exact)
	wantCounts(t, "delta to exact", delta, moved(-1, 60))
	if r.Reason != ledger.Complete || r.Quality != ledger.Exact || !r.EndedAt.Equal(exact.EndedAt) {
		t.Errorf("the exact settlement did not replace: %+v", r)
	}
	if got, err := s.Used(t.Context(), "k1", time.Time{}, time.Time{}); err != nil || got != 101 {
		t.Errorf("used: got %d, %v, want 101", got, err)
	}
}

func worseQuality(t *testing.T, s ledger.Store) {
	t.Helper()
	mustBegin(t, s, intent("a"))
	st := settlement("a", ledger.Exact, ledger.Aborted, 0, 0)
	st.Status = 0
	first, _ := mustSettle(t, s, st)
	for _, q := range []ledger.Quality{ledger.Partial, ledger.Estimated} {
		again, delta := mustSettle(t, s, settlement("a", q, ledger.Timeout, 50, 50))
		wantCounts(t, "delta of "+string(q), delta, usage.Counts{})
		if diff := cmp.Diff(first, again); diff != "" {
			t.Errorf("%s moved the row (-first +again):\n%s", q, diff)
		}
	}
}

func unsaidAndZero(t *testing.T, s ledger.Store) {
	t.Helper()
	mustBegin(t, s, intent("a"))
	st := settlement("a", ledger.Exact, ledger.Complete, 0, 0)
	st.Counts.Cached = 0
	r, _ := mustSettle(t, s, st)
	wantCounts(t, "counts", r.Counts, usage.Counts{Cached: 0, Reasoning: usage.Unsaid})

	mustBegin(t, s, intent("b"))
	r, delta := mustSettle(t, s, settlement("b", ledger.Estimated, ledger.ClientAbort, usage.Unsaid, -77))
	wantCounts(t, "a settlement always says prompt and completion", r.Counts, counts(0, 0))
	wantCounts(t, "delta", delta, usage.Counts{})

	mustBegin(t, s, intent("c"))
	r, _ = mustSettle(t, s, settlement("c", ledger.Exact, ledger.Complete, 1, 1<<62))
	wantCounts(t, "nonsense is cut", r.Counts, counts(1, ledger.MaxTokens))
}

func endAfterStart(t *testing.T, s ledger.Store) {
	t.Helper()
	mustBegin(t, s, intent("a"))
	st := settlement("a", ledger.Exact, ledger.Complete, 1, 2)
	st.FirstByteAt, st.EndedAt = noon.Add(-2*time.Hour), noon.Add(-time.Hour) // the clock was set back
	r, _ := mustSettle(t, s, st)
	if !r.EndedAt.Equal(noon) || !r.FirstByteAt.Equal(noon) {
		t.Errorf("got first byte %s, end %s, want the start %s", r.FirstByteAt, r.EndedAt, noon)
	}
}

func recovers(t *testing.T, s ledger.Store) {
	t.Helper()
	for _, lease := range []string{"bare", "counted", "settled", "other"} {
		mustBegin(t, s, intent(lease))
	}
	if err := s.Checkpoint(t.Context(), []ledger.Checkpoint{{LeaseID: "counted", Counts: counts(10, 64)}}); err != nil {
		t.Fatal(err)
	}
	mustSettle(t, s, settlement("settled", ledger.Exact, ledger.Complete, 1, 2))
	at := noon.Add(time.Hour)
	if n, err := s.Recover(t.Context(), nil, ledger.GatewayCrash, at); err != nil || n != 0 {
		t.Fatalf("Recover of nothing: got %d, %v, want 0", n, err)
	}
	leases := []string{"settled", "unknown", "counted", "bare", "counted"}
	if n, err := s.Recover(t.Context(), leases, ledger.GatewayCrash, at); err != nil || n != 2 {
		t.Fatalf("Recover: got %d, %v, want 2", n, err)
	}
	if n, err := s.Recover(t.Context(), leases, ledger.EnvoyCrash, at); err != nil || n != 0 {
		t.Fatalf("second Recover: got %d, %v, want 0", n, err)
	}
	for lease, want := range map[string]ledger.Record{
		"bare":    {Reason: ledger.GatewayCrash, Quality: ledger.Estimated, EndedAt: at, Counts: counts(0, 0), Change: 3},
		"counted": {Reason: ledger.GatewayCrash, Quality: ledger.Partial, EndedAt: at, Counts: counts(10, 64), Change: 2},
	} {
		want.Intent = intent(lease)
		if diff := cmp.Diff(want, mustGet(t, s, lease)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", lease, diff)
		}
	}
	if got := mustGet(t, s, "settled").Reason; got != ledger.Complete {
		t.Errorf("recovery touched a settled row: %q", got)
	}
	if r := mustGet(t, s, "other"); !r.Open() {
		t.Errorf("recovery ended a lease that it was not told to: %+v", r)
	}
	// A better known settlement still replaces the recovery.
	_, delta := mustSettle(t, s, settlement("counted", ledger.Exact, ledger.Complete, 10, 70))
	wantCounts(t, "delta after recovery", delta, moved(0, 6))
}

func listsOpen(t *testing.T, s ledger.Store) {
	t.Helper()
	if open, err := s.Open(t.Context()); err != nil || len(open) != 0 {
		t.Fatalf("an empty store: got %v, %v", open, err)
	}
	for lease, start := range map[string]time.Duration{"late": time.Second, "b": 0, "a": 0, "settled": 0} {
		in := intent(lease)
		in.StartedAt = noon.Add(start)
		mustBegin(t, s, in)
	}
	mustSettle(t, s, settlement("settled", ledger.Exact, ledger.Complete, 1, 2))
	if err := s.Checkpoint(t.Context(), []ledger.Checkpoint{{LeaseID: "b", Counts: counts(10, 4)}}); err != nil {
		t.Fatal(err)
	}
	open, err := s.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []ledger.Record{mustGet(t, s, "a"), mustGet(t, s, "b"), mustGet(t, s, "late")}
	if diff := cmp.Diff(want, open); diff != "" {
		t.Errorf("open rows (-want +got):\n%s", diff)
	}
}

// numbersChanges: what changes a settled row gives it the next number of the
// whole store; what leaves it alone takes no number.
func numbersChanges(t *testing.T, s ledger.Store) {
	t.Helper()
	change := func(lease string, q ledger.Quality, completion, want int64) {
		t.Helper()
		if r, _ := mustSettle(t, s, settlement(lease, q, ledger.Complete, 10, completion)); r.Change != want {
			t.Errorf("%s settled as %s with %d: got change %d, want %d", lease, q, completion, r.Change, want)
		}
	}
	for _, lease := range []string{"a", "b"} {
		mustBegin(t, s, intent(lease))
	}
	if err := s.Checkpoint(t.Context(), []ledger.Checkpoint{{LeaseID: "a", Counts: counts(10, 4)}}); err != nil {
		t.Fatal(err)
	}
	if r := mustGet(t, s, "a"); r.Change != 0 {
		t.Errorf("an open row has change %d", r.Change)
	}
	change("b", ledger.Partial, 5, 1) // begun later, settled first
	change("a", ledger.Partial, 5, 2)
	change("b", ledger.Partial, 5, 1)   // says nothing new
	change("b", ledger.Estimated, 9, 1) // knows less
	change("b", ledger.Exact, 4, 3)     // corrects
	change("a", ledger.Partial, 6, 4)
	if _, err := s.Recover(t.Context(), []string{"a", "b"}, ledger.GatewayCrash, noon); err != nil {
		t.Fatal(err)
	}
	change("a", ledger.Partial, 7, 5) // the recovery of settled rows took no number
}
