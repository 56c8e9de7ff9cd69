package sqlitestore_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"tollgate/internal/ledger"
	"tollgate/internal/sqlitestore"
)

// together submits writes one after the other and commits them as one group.
func together(t *testing.T, s *sqlitestore.Store, writes ...func()) {
	t.Helper()
	release := s.Stall()
	var wg sync.WaitGroup
	for i, write := range writes {
		wg.Go(write)
		waitQueued(t, s, i+1)
	}
	release()
	wg.Wait()
}

func TestOneGroupSeesItsOwnWrites(t *testing.T) {
	s := open(t, sqlitestore.Options{})
	var begun, settled error
	var row ledger.Record
	together(t, s,
		func() { begun = s.Begin(t.Context(), intent("a")) },
		func() { _, _, _ = s.Settle(t.Context(), complete("a", 10, 5)) },
		func() { _, _, settled = s.Settle(t.Context(), complete("a", 10, 7)) },
	)
	row, err := s.Get(t.Context(), "a")
	if begun != nil || settled != nil || err != nil || row.Open() {
		t.Errorf("begin %v, second settle %v, row %+v, %v", begun, settled, row, err)
	}
	if found, err := s.Verify(t.Context()); err != nil || len(found) > 0 {
		t.Errorf("verify: %+v, %v", found, err)
	}
}

func TestARowDeletedInTheSameGroupIsGone(t *testing.T) {
	s := open(t, sqlitestore.Options{})
	if err := s.Begin(t.Context(), intent("a")); err != nil {
		t.Fatal(err)
	}
	var again error
	var deleted int
	together(t, s,
		func() { _, _, _ = s.Settle(t.Context(), complete("a", 10, 5)) },
		func() { deleted, _ = s.Retain(t.Context(), noon.Add(time.Hour), 0) },
		func() { _, _, again = s.Settle(t.Context(), complete("a", 10, 7)) },
	)
	if deleted != 1 || !errors.Is(again, ledger.ErrUnknown) {
		t.Errorf("%d deleted; a settlement after that: %v, want ErrUnknown", deleted, again)
	}
	if found, err := s.Verify(t.Context()); err != nil || len(found) > 0 {
		t.Errorf("verify: %+v, %v", found, err)
	}
}

// TestABurstOnOneProcessorIsFewGroups: writes that can be queued while the first one
// waits for its commit are in the same group.
func TestABurstOnOneProcessorIsFewGroups(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	s := open(t, sqlitestore.Options{})
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		groups = map[any]int{}
	)
	for range 20 {
		wg.Go(func() {
			group, err := s.Transaction(t.Context())
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			groups[group]++
			mu.Unlock()
		})
	}
	wg.Wait()
	if len(groups) > 5 {
		t.Errorf("20 writes of the same moment took %d transactions", len(groups))
	}
}

// TestWhatAFailedGroupNotedIsForgotten: a row that was begun in a group that
// failed, and whose caller has left since, is in no file and must be known to
// nobody: its settlement would go to the row that has got its number.
func TestWhatAFailedGroupNotedIsForgotten(t *testing.T) {
	s := open(t, sqlitestore.Options{})
	leaving, leave := context.WithCancel(t.Context())
	together(t, s,
		func() { _ = s.Begin(leaving, intent("a")) },
		func() { _ = s.Fail(t.Context(), leave) },
	)
	if err := s.Begin(t.Context(), intent("b")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Settle(t.Context(), complete("a", 10, 5)); !errors.Is(err, ledger.ErrUnknown) {
		t.Errorf("a settlement of a row that is in no file: %v, want ErrUnknown", err)
	}
	if row, err := s.Get(t.Context(), "b"); err != nil || !row.Open() {
		t.Errorf("another row was settled in its place: %+v, %v", row, err)
	}
}

func TestSettledRowsAreNotRemembered(t *testing.T) {
	s := open(t, sqlitestore.Options{})
	fill(t, s, 20)
	if err := s.Begin(t.Context(), intent("lives")); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Remembered(t.Context()); n != 1 || err != nil {
		t.Errorf("%d rows are remembered, %v; want the one that lives", n, err)
	}
}
