package sqlitestore_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"tollgate/internal/ledger"
	"tollgate/internal/sqlitestore"
)

// Without folding the WAL of this many requests has several times this size;
// the folder alone, beside a writer that never rests, could not end it.
func TestTheWALIsBoundedUnderLoad(t *testing.T) {
	const bound = 256 << 20
	requests := int64(40_000 / thin)
	path := filepath.Join(t.TempDir(), "ledger.db")
	s := open(t, sqlitestore.Options{Path: path})
	var next atomic.Int64
	var most atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := next.Add(1); i <= requests; i = next.Add(1) {
				lease := fmt.Sprintf("%016x", i*0x9e3779b97f4a7c) // anywhere in the indexes
				if err := s.Begin(context.Background(), intent(lease)); err != nil {
					t.Error(err)
					return
				}
				if _, _, err := s.Settle(context.Background(), complete(lease, 10, 5)); err != nil {
					t.Error(err)
					return
				}
				if i%256 == 0 {
					most.Store(max(most.Load(), size(t, path+"-wal")))
				}
			}
		})
	}
	wg.Wait()
	wal := max(most.Load(), size(t, path+"-wal"))
	t.Logf("%d requests: file %d MiB, WAL at most %d MiB", requests, size(t, path)>>20, wal>>20)
	if wal > bound {
		t.Errorf("the WAL grew to %d MiB, want at most %d", wal>>20, bound>>20)
	}
	if got := size(t, path); got < 100*requests {
		t.Errorf("the file has %d bytes: nothing was folded in", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantSound(t, path)
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Error(err)
		return 0
	}
	return info.Size()
}

// After a failed sync the WAL is the only place that surely has everything, so
// nothing may be folded in and then removed, not even at the end.
func TestAfterAFailedSyncTheWALStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	s := open(t, sqlitestore.Options{Path: path})
	s.Break()
	before := size(t, path)
	fill(t, s, 2000) // enough to be folded in
	if got := size(t, path); got != before {
		t.Errorf("the file went from %d to %d bytes", before, got)
	}
	if err := s.Close(); err == nil {
		t.Error("the end said nothing of it")
	}
	defer func() {
		if err := s.End(); err != nil {
			t.Error(err)
		}
	}()
	copied := filepath.Join(t.TempDir(), "ledger.db")
	for _, suffix := range []string{"", "-wal"} { // as the next process finds them
		data, err := os.ReadFile(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(copied+suffix, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	next := open(t, sqlitestore.Options{Path: copied})
	if got := len(rows(t, next.Reader, ledger.Filter{})); got != 2000 {
		t.Errorf("after the next start: %d rows, want 2000", got)
	}
}
