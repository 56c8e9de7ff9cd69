package sqlitestore_test

import (
	"errors"
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
