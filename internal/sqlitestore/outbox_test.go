package sqlitestore_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/ledger"
	"tollgate/internal/sqlitestore"
	"tollgate/internal/usage"
)

// changesOf walks all changes in pages and returns the rows by lease as the
// last page had them, and how many were handed out.
func changesOf(t *testing.T, s *sqlitestore.Store, page int) (rows map[string]ledger.Record, n int, last int64) {
	t.Helper()
	rows = map[string]ledger.Record{}
	for {
		got, err := s.Changes(t.Context(), last, page)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 0 {
			return rows, n, last
		}
		for _, r := range got {
			if r.Change <= last {
				t.Fatalf("change %d came after %d", r.Change, last)
			}
			last, rows[r.LeaseID] = r.Change, r
			n++
		}
	}
}

func TestChangesAreReadInOrderOfSettlement(t *testing.T) { //nolint:gocyclo // one story, told step by step
	s := open(t, sqlitestore.Options{})
	long := intent("long")
	if err := s.Begin(t.Context(), long); err != nil {
		t.Fatal(err)
	}
	fill(t, s, 10)
	rows, n, last := changesOf(t, s, 3)
	if n != 10 || last != 10 || rows["long"].LeaseID != "" {
		t.Fatalf("got %d rows up to %d, the open one among them: %+v", n, last, rows["long"])
	}
	if b, err := s.Backlog(t.Context(), last); err != nil || b != (ledger.Backlog{}) {
		t.Errorf("backlog of nothing: %+v, %v", b, err)
	}
	// What began first ends last, and a correction comes behind it.
	if _, _, err := s.Settle(t.Context(), complete("long", 7, 8)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Settle(t.Context(), complete("lease-0003", 10, 9)); err != nil {
		t.Fatal(err)
	}
	b, err := s.Backlog(t.Context(), last)
	if err != nil || b.Rows != 2 || !b.Oldest.Equal(noon.Add(2*time.Second)) {
		t.Errorf("backlog: got %+v, %v, want 2 rows since the end of the long one", b, err)
	}
	got, err := s.Changes(t.Context(), last, 10)
	if err != nil || len(got) != 2 || got[0].LeaseID != "long" || got[1].LeaseID != "lease-0003" || got[1].Counts.Completion != 9 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestCommitsOfChangesAreTold(t *testing.T) {
	s := open(t, sqlitestore.Options{})
	if err := s.Begin(t.Context(), intent("a")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Changed():
		t.Error("an intent is no change")
	default:
	}
	for range 3 {
		if _, _, err := s.Settle(t.Context(), complete("a", 1, 2)); err != nil {
			t.Fatal(err)
		}
	}
	<-s.Changed()
	select {
	case <-s.Changed():
		t.Error("a settlement that changes nothing was told")
	default:
	}
}

func TestRetentionKeepsWhatIsNotShipped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	s := open(t, sqlitestore.Options{Path: path, Outbox: true})
	fill(t, s, 10)
	retain := func(want int) {
		t.Helper()
		if n, err := s.Retain(t.Context(), noon.AddDate(0, 1, 0), 3); n != want || err != nil {
			t.Errorf("retain: got %d, %v, want %d", n, err, want)
		}
	}
	retain(0)
	if err := s.SetMark(t.Context(), sqlitestore.MarkShipped, 7); err != nil {
		t.Fatal(err)
	}
	retain(7)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, sqlitestore.Options{Path: path, Outbox: true})
	if n, err := s.Mark(t.Context(), sqlitestore.MarkShipped); n != 7 || err != nil {
		t.Errorf("the mark after a start: got %d, %v", n, err)
	}
	if _, n, _ := changesOf(t, s, 100); n != 3 {
		t.Errorf("rows left: got %d, want 3", n)
	}
	wantSound(t, path)
}

func TestOldRowsGetTheirNumbersOnce(t *testing.T) {
	written, err := os.ReadFile("testdata/schema2.db")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ledger.db")
	if err := os.WriteFile(path, written, 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, sqlitestore.Options{Path: path})
	if err := s.Begin(t.Context(), intent("new")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Settle(t.Context(), complete("new", 1, 2)); err != nil { // takes 1
		t.Fatal(err)
	}
	total := 0
	for {
		n, err := s.NumberOld(t.Context(), 7)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		total += n
	}
	rows, n, last := changesOf(t, s, 4)
	if total != 30 || n != 31 || last != 31 || rows["new"].Change != 1 {
		t.Errorf("numbered %d, read %d up to %d, the new one has %d", total, n, last, rows["new"].Change)
	}
	if n, err := s.NumberOld(t.Context(), 7); n != 0 || err != nil {
		t.Errorf("again: got %d, %v", n, err)
	}
}

func TestALedgerKnowsItselfAndItsNumbers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	s := open(t, sqlitestore.Options{Path: path})
	id, err := s.ID(t.Context())
	if err != nil || len(id) != 32 {
		t.Fatalf("got %q, %v", id, err)
	}
	if err := s.RaiseChange(t.Context(), 1000); err != nil {
		t.Fatal(err)
	}
	if err := s.RaiseChange(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, sqlitestore.Options{Path: path})
	if again, err := s.ID(t.Context()); again != id || err != nil {
		t.Errorf("after a start: got %q, %v, want %q", again, err, id)
	}
	if other, err := open(t, sqlitestore.Options{}).ID(t.Context()); other == id || err != nil {
		t.Errorf("another ledger has the same id %q, %v", other, err)
	}
	fill(t, s, 1)
	if r, err := s.Get(t.Context(), "lease-0000"); r.Change != 1001 || err != nil {
		t.Errorf("got change %d, %v, want 1001", r.Change, err)
	}
}

func TestUseThatIsNotShippedIsSummed(t *testing.T) {
	s := open(t, sqlitestore.Options{})
	fill(t, s, 10) // key-0 and key-1, 15 tokens each, an hour apart
	in := intent("live")
	in.KeyID = "key-0"
	if err := s.Begin(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	counts := usage.None()
	counts.Completion = 100
	if err := s.Checkpoint(t.Context(), []ledger.Checkpoint{{LeaseID: "live", Counts: counts}}); err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for name, c := range map[string]struct {
		since, until time.Time
		after        int64
	}{
		"all": {}, "after 4": {after: 4}, "shipped": {after: 10},
		"from the seventh": {since: noon.Add(6 * time.Hour)}, "until the third": {until: noon.Add(2 * time.Hour)},
	} {
		sum, err := s.UsedAfter(t.Context(), "key-0", c.since, c.until, c.after)
		if err != nil {
			t.Fatal(err)
		}
		got[name] = sum
	}
	want := map[string]int64{"all": 175, "after 4": 145, "shipped": 100, "from the seventh": 30, "until the third": 115}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sums (-want +got):\n%s", diff)
	}
}
