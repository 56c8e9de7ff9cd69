package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/ledger"
	"tollgate/internal/usage"
)

// noon is when the requests of the suite start: UTC, away from the edges of a day.
var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// Ledger holds a [ledger.Store] to its contract. Every call of open returns an
// empty store, which open closes at the end of the test.
func Ledger(t *testing.T, open func(t *testing.T) ledger.Store) {
	t.Helper()
	for _, c := range []struct {
		name string
		run  func(*testing.T, ledger.Store)
	}{
		{"an intent is an open row", intentIsOpen},
		{"a lease begins once", beginsOnce},
		{"what breaks the contract is refused", refusesInvalid},
		{"an unknown lease is unknown", unknownLease},
		{"checkpoints only grow and only while open", checkpointsGrow},
		{"the first settlement moves all its counts", firstSettlement},
		{"a settlement below its checkpoint", settlementBelowCheckpoint},
		{"settling again changes nothing", settlesOnce},
		{"within a quality counts grow and gaps are filled", sameQuality},
		{"a better quality replaces up and down", betterQuality},
		{"a worse quality changes nothing", worseQuality},
		{"unsaid stays unsaid and zero stays zero", unsaidAndZero},
		{"an end is not before its start", endAfterStart},
		{"recovery ends the named leases that are open", recovers},
		{"open rows are listed by start", listsOpen},
		{"each change has a number of its own", numbersChanges},
		{"used sums a key's tokens by start", usedSums},
		{"seconds rebuild the windows", seconds},
		{"an ended context writes no intent", endedContext},
		{"concurrent settlements of one lease move counts once", concurrentSettle},
		{"a closed store is unavailable", closed},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, open(t)) })
	}
}

// intent is a complete intent of key k1.
func intent(lease string) ledger.Intent {
	return ledger.Intent{
		LeaseID: lease, RequestID: "req-" + lease, KeyID: "k1", User: "ann", Model: "m",
		Endpoint: "/v1/chat/completions", Engine: "127.0.0.1:8000", Stream: true, N: 2, Prompts: 1,
		StartedAt: noon, Reserved: 500, ClientAddr: "192.0.2.7",
		RequestedModel: "alias", Meter: "envoy-1", Gateway: "gate-1", EndUser: "eve", Secret: "0a1b2c3d",
	}
}

func settlement(lease string, q ledger.Quality, why ledger.EndReason, prompt, completion int64) ledger.Settlement {
	return ledger.Settlement{
		LeaseID: lease, Status: 200, FirstByteAt: noon.Add(time.Second), EndedAt: noon.Add(2 * time.Second),
		Reason: why, Quality: q, Counts: counts(prompt, completion),
	}
}

// counts says prompt and completion and nothing else.
func counts(prompt, completion int64) usage.Counts {
	c := usage.None()
	c.Prompt, c.Completion = prompt, completion
	return c
}

// moved is a delta of prompt and completion.
func moved(prompt, completion int64) usage.Counts {
	return usage.Counts{Prompt: prompt, Completion: completion}
}

func mustBegin(t *testing.T, s ledger.Store, in ledger.Intent) {
	t.Helper()
	if err := s.Begin(t.Context(), in); err != nil {
		t.Fatalf("Begin(%s): %v", in.LeaseID, err)
	}
}

func mustSettle(t *testing.T, s ledger.Store, st ledger.Settlement) (ledger.Record, usage.Counts) {
	t.Helper()
	r, delta, err := s.Settle(t.Context(), st)
	if err != nil {
		t.Fatalf("Settle(%s): %v", st.LeaseID, err)
	}
	if diff := cmp.Diff(r, mustGet(t, s, st.LeaseID)); diff != "" {
		t.Errorf("what Settle returned and what Get reads differ (-settle +get):\n%s", diff)
	}
	return r, delta
}

func mustGet(t *testing.T, s ledger.Store, lease string) ledger.Record {
	t.Helper()
	r, err := s.Get(t.Context(), lease)
	if err != nil {
		t.Fatalf("Get(%s): %v", lease, err)
	}
	return r
}

func wantCounts(t *testing.T, what string, got, want usage.Counts) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func intentIsOpen(t *testing.T, s ledger.Store) {
	t.Helper()
	in := intent("a")
	in.StartedAt = noon.Add(1234 * time.Nanosecond).In(time.FixedZone("somewhere", 3600))
	mustBegin(t, s, in)
	want := ledger.Record{Intent: in, Counts: usage.None()}
	want.StartedAt = noon.Add(time.Microsecond) // UTC, whole microseconds
	got := mustGet(t, s, "a")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("row (-want +got):\n%s", diff)
	}
	if !got.Open() {
		t.Error("the row is not open")
	}
}

func beginsOnce(t *testing.T, s ledger.Store) {
	t.Helper()
	mustBegin(t, s, intent("a"))
	again := intent("a")
	again.KeyID = "k2"
	if err := s.Begin(t.Context(), again); !errors.Is(err, ledger.ErrDuplicate) {
		t.Errorf("second Begin: got %v, want ErrDuplicate", err)
	}
	mustSettle(t, s, settlement("a", ledger.Exact, ledger.Complete, 1, 2))
	if err := s.Begin(t.Context(), again); !errors.Is(err, ledger.ErrDuplicate) {
		t.Errorf("Begin of a settled lease: got %v, want ErrDuplicate", err)
	}
	if got := mustGet(t, s, "a").KeyID; got != "k1" {
		t.Errorf("key after the duplicates: got %q, want k1", got)
	}
}

func refusesInvalid(t *testing.T, s ledger.Store) {
	t.Helper()
	if err := s.Begin(t.Context(), intent("")); !errors.Is(err, ledger.ErrInvalid) {
		t.Errorf("Begin without a lease: got %v, want ErrInvalid", err)
	}
	mustBegin(t, s, intent("a"))
	for _, st := range []ledger.Settlement{
		settlement("", ledger.Exact, ledger.Complete, 1, 2),
		settlement("a", "", ledger.Complete, 1, 2),
		settlement("a", ledger.Exact, "", 1, 2),
		settlement("a", ledger.Exact, "because", 1, 2),
	} {
		if _, _, err := s.Settle(t.Context(), st); !errors.Is(err, ledger.ErrInvalid) {
			t.Errorf("Settle(%q, %q, %q): got %v, want ErrInvalid", st.LeaseID, st.Quality, st.Reason, err)
		}
	}
	if _, err := s.Recover(t.Context(), []string{"a"}, "because", noon); !errors.Is(err, ledger.ErrInvalid) {
		t.Errorf("Recover: got %v, want ErrInvalid", err)
	}
	if r := mustGet(t, s, "a"); !r.Open() {
		t.Errorf("the row was settled by an invalid settlement: %+v", r)
	}
}

func unknownLease(t *testing.T, s ledger.Store) {
	t.Helper()
	if _, err := s.Get(t.Context(), "no"); !errors.Is(err, ledger.ErrUnknown) {
		t.Errorf("Get: got %v, want ErrUnknown", err)
	}
	if _, _, err := s.Settle(t.Context(), settlement("no", ledger.Exact, ledger.Complete, 1, 2)); !errors.Is(err, ledger.ErrUnknown) {
		t.Errorf("Settle: got %v, want ErrUnknown", err)
	}
	if err := s.Checkpoint(t.Context(), []ledger.Checkpoint{{LeaseID: "no", Counts: counts(1, 2)}}); err != nil {
		t.Errorf("Checkpoint skips unknown leases: got %v", err)
	}
}

func checkpointsGrow(t *testing.T, s ledger.Store) {
	t.Helper()
	checkpoint := func(c usage.Counts) {
		t.Helper()
		err := s.Checkpoint(t.Context(), []ledger.Checkpoint{{LeaseID: "no", Counts: c}, {LeaseID: "a", Counts: c}})
		if err != nil {
			t.Fatal(err)
		}
	}
	mustBegin(t, s, intent("a"))
	checkpoint(counts(usage.Unsaid, 4))
	wantCounts(t, "after a partial checkpoint", mustGet(t, s, "a").Counts, counts(usage.Unsaid, 4))
	checkpoint(counts(10, 3))
	wantCounts(t, "after a lower completion", mustGet(t, s, "a").Counts, counts(10, 4))
	if mustGet(t, s, "a").Reason != "" {
		t.Error("a checkpoint settled the row")
	}
	mustSettle(t, s, settlement("a", ledger.Exact, ledger.Complete, 10, 5))
	checkpoint(counts(10, 99))
	wantCounts(t, "after a checkpoint of a settled row", mustGet(t, s, "a").Counts, counts(10, 5))
	if err := s.Checkpoint(t.Context(), nil); err != nil {
		t.Errorf("empty batch: got %v", err)
	}
}

func usedSums(t *testing.T, s ledger.Store) {
	t.Helper()
	midnight := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	for i, at := range []time.Time{
		midnight.Add(-25 * time.Hour), midnight.Add(-time.Microsecond), midnight, noon, noon.Add(time.Hour), midnight.Add(24 * time.Hour),
	} {
		in := intent(fmt.Sprint("a", i))
		in.StartedAt = at
		mustBegin(t, s, in)
		st := settlement(in.LeaseID, ledger.Exact, ledger.Complete, 0, 1<<i)
		st.EndedAt = at.Add(time.Second)
		mustSettle(t, s, st)
	}
	other := intent("other")
	other.KeyID = "k2"
	mustBegin(t, s, other)
	live := intent("live") // at noon, with a checkpoint only
	mustBegin(t, s, live)
	if err := s.Checkpoint(t.Context(), []ledger.Checkpoint{
		{LeaseID: "live", Counts: counts(1000, usage.Unsaid)}, {LeaseID: "other", Counts: counts(5, 5)},
	}); err != nil {
		t.Fatal(err)
	}
	none := time.Time{}
	for _, c := range []struct {
		name         string
		since, until time.Time
		want         int64
	}{
		{"everything", none, none, 1063},
		{"one day", midnight, midnight.Add(24 * time.Hour), 1028},
		{"since a day", midnight, none, 1060},
		{"until a day", none, midnight, 3},
		{"since within a day", noon.Add(time.Microsecond), none, 48},
		{"until within a day", none, noon, 7},
		{"within one day", noon, noon.Add(time.Hour), 1008},
		{"edges on three days", midnight.Add(-time.Hour), midnight.Add(24*time.Hour + time.Second), 1062},
		{"edges on neighbouring days", midnight.Add(-time.Hour), noon, 6},
		{"a nanosecond late", midnight.Add(time.Nanosecond), midnight.Add(12*time.Hour + time.Nanosecond), 1008},
		{"empty", noon, noon, 0},
		{"backwards", noon, midnight, 0},
	} {
		if got, err := s.Used(t.Context(), "k1", c.since, c.until); err != nil || got != c.want {
			t.Errorf("%s: got %d, %v, want %d", c.name, got, err, c.want)
		}
	}
	if got, err := s.Used(t.Context(), "nobody", none, none); err != nil || got != 0 {
		t.Errorf("unknown key: got %d, %v, want 0", got, err)
	}
}

func seconds(t *testing.T, s ledger.Store) {
	t.Helper()
	for i, c := range []struct {
		key        string
		start, end time.Duration
	}{
		{"k1", -time.Hour, 1500 * time.Millisecond}, // started long ago, ends in the window
		{"k1", 1200 * time.Millisecond, 1900 * time.Millisecond},
		{"k2", 1200 * time.Millisecond, 3 * time.Second},
		{"k1", 2 * time.Second, -1}, // still open
		{"k1", -time.Hour, -time.Minute},
		{"k1", -time.Second, -1}, // still open, from before the window
	} {
		in := intent(fmt.Sprint("a", i))
		in.KeyID, in.StartedAt = c.key, noon.Add(c.start)
		mustBegin(t, s, in)
		if c.end == -1 {
			if err := s.Checkpoint(t.Context(), []ledger.Checkpoint{{LeaseID: in.LeaseID, Counts: counts(7, usage.Unsaid)}}); err != nil {
				t.Fatal(err)
			}
			continue
		}
		st := settlement(in.LeaseID, ledger.Exact, ledger.Complete, 100, 1<<i)
		st.EndedAt = noon.Add(c.end)
		mustSettle(t, s, st)
	}
	got, err := s.Minute(t.Context(), noon)
	if err != nil {
		t.Fatal(err)
	}
	want := []ledger.Second{
		{KeyID: "k1", At: noon.Add(time.Second), Tokens: 203, Requests: 1},
		{KeyID: "k2", At: noon.Add(time.Second), Requests: 1},
		{KeyID: "k1", At: noon.Add(2 * time.Second), Tokens: 7, Requests: 1},
		{KeyID: "k2", At: noon.Add(3 * time.Second), Tokens: 104},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("seconds (-want +got):\n%s", diff)
	}
}

func endedContext(t *testing.T, s ledger.Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 { // a store that picks at random would slip through once
		if err := s.Begin(ctx, intent("a")); !errors.Is(err, context.Canceled) {
			t.Fatalf("Begin: got %v, want context.Canceled", err)
		}
	}
	mustBegin(t, s, intent("b")) // behind the others in any queue
	if _, err := s.Get(t.Context(), "a"); !errors.Is(err, ledger.ErrUnknown) {
		t.Errorf("Get: got %v, want ErrUnknown", err)
	}
}

func concurrentSettle(t *testing.T, s ledger.Store) {
	t.Helper()
	const leases, witnesses = 20, 8
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex
		sum usage.Counts
	)
	for i := range leases {
		mustBegin(t, s, intent(fmt.Sprint("a", i)))
	}
	for w := range witnesses {
		wg.Go(func() {
			for i := range leases {
				st := settlement(fmt.Sprint("a", i), ledger.Exact, ledger.Complete, 10, int64(1+w))
				_, delta, err := s.Settle(t.Context(), st)
				if err != nil {
					t.Errorf("Settle: %v", err)
				}
				mu.Lock()
				sum.Prompt += delta.Prompt
				sum.Completion += delta.Completion
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	wantCounts(t, "sum of the deltas", sum, moved(leases*10, leases*witnesses))
	if got, err := s.Used(t.Context(), "k1", time.Time{}, time.Time{}); err != nil || got != sum.Prompt+sum.Completion {
		t.Errorf("used: got %d, %v, want %d", got, err, sum.Prompt+sum.Completion)
	}
}

func closed(t *testing.T, s ledger.Store) {
	t.Helper()
	mustBegin(t, s, intent("a"))
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
	}
	ctx := t.Context()
	_, _, settle := s.Settle(ctx, settlement("a", ledger.Exact, ledger.Complete, 1, 2))
	_, get := s.Get(ctx, "a")
	_, recov := s.Recover(ctx, []string{"a"}, ledger.GatewayCrash, noon)
	_, open := s.Open(ctx)
	_, used := s.Used(ctx, "k1", noon, noon.Add(time.Hour))
	_, minute := s.Minute(ctx, noon)
	for name, err := range map[string]error{
		"Begin":      s.Begin(ctx, intent("b")),
		"Checkpoint": s.Checkpoint(ctx, []ledger.Checkpoint{{LeaseID: "a", Counts: counts(1, 2)}}),
		"Settle":     settle, "Get": get, "Open": open, "Recover": recov, "Used": used, "Minute": minute,
	} {
		if !errors.Is(err, ledger.ErrUnavailable) {
			t.Errorf("%s: got %v, want ErrUnavailable", name, err)
		}
	}
}
