package reconcile

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/ledger"
	"tollgate/internal/usage"
)

// list is a ledger of rows in the order of their start.
type list []ledger.Record

func (l list) Each(_ context.Context, f ledger.Filter, fn func(ledger.Record) error) error {
	for _, r := range l {
		if f.Match(&r) {
			if err := fn(r); err != nil {
				return err
			}
		}
	}
	return nil
}

func TestRowsAreFoldedOnceAndInOrder(t *testing.T) {
	old := time.Now().Add(-time.Hour).Truncate(time.Microsecond)
	at := func(d time.Duration, open bool) ledger.Record {
		r := ledger.Record{Counts: usage.Counts{Prompt: 1, Completion: 10}}
		r.StartedAt, r.N = old.Add(d), 1
		if !open {
			r.Reason, r.Quality, r.EndedAt = ledger.Complete, ledger.Exact, r.StartedAt.Add(time.Second)
		}
		return r
	}
	rows := list{at(0, false), at(1*time.Second, false), at(1*time.Second, true), at(2*time.Second, false)}
	s := &span{cursor: old, mine: func(*ledger.Record) bool { return true }}
	check := func(folded, live int64, cursor time.Time) {
		t.Helper()
		for range 2 { // reading again changes nothing
			if err := s.read(t.Context(), rows); err != nil {
				t.Fatal(err)
			}
			got := []int64{s.folded.Prompt, s.live.Prompt}
			if diff := cmp.Diff([]int64{folded, live}, got); diff != "" || !s.cursor.Equal(cursor) {
				t.Errorf("folded and live rows (-want +got):\n%scursor %v, want %v", diff, s.cursor, cursor)
			}
		}
	}
	// What shares its microsecond with an open row waits with it.
	check(1, 3, old.Add(time.Microsecond))
	rows[2] = at(1*time.Second, false)
	check(4, 0, old.Add(2*time.Second+time.Microsecond))
	fresh := at(time.Hour, false)
	fresh.EndedAt = time.Now()
	rows = append(rows, fresh)
	check(4, 1, old.Add(2*time.Second+time.Microsecond))
}
