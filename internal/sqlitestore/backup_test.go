package sqlitestore_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/ledger"
	"tollgate/internal/sqlitestore"
)

func TestBackupIsTheWholeLedgerOfOneMoment(t *testing.T) {
	dir := t.TempDir()
	path, to := filepath.Join(dir, "ledger.db"), filepath.Join(dir, "a copy?.db")
	s := open(t, sqlitestore.Options{Path: path})
	fill(t, s, 20)
	if _, err := s.Retain(t.Context(), noon.Add(5*time.Hour), 0); err != nil {
		t.Fatal(err)
	}
	want := rows(t, s.Reader, ledger.Filter{})
	if err := sqlitestore.Backup(t.Context(), path, to); err != nil {
		t.Fatal(err)
	}
	if err := s.Begin(t.Context(), intent("later")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(to)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("got %v, %v, want mode 600", info.Mode(), err)
	}
	wantSound(t, to)
	restored := open(t, sqlitestore.Options{Path: to})
	if diff := cmp.Diff(want, rows(t, restored.Reader, ledger.Filter{})); diff != "" {
		t.Errorf("rows (-ledger +copy):\n%s", diff)
	}
	if err := restored.Begin(t.Context(), intent("after")); err != nil {
		t.Fatal(err)
	}
	if r, _, err := restored.Settle(t.Context(), complete("after", 1, 2)); r.Change != 21 || err != nil {
		t.Errorf("the counter of changes: got %d, %v, want 21", r.Change, err)
	}
}

func TestBackupThatCannotBeMadeChangesNothing(t *testing.T) {
	dir := t.TempDir()
	path, to := filepath.Join(dir, "ledger.db"), filepath.Join(dir, "copy.db")
	if err := sqlitestore.Backup(t.Context(), path, to); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no ledger: got %v, want ErrNotExist", err)
	}
	fill(t, open(t, sqlitestore.Options{Path: path}), 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := sqlitestore.Backup(ctx, path, to); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v, want Canceled", err)
	}
	if _, err := os.Stat(to); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a backup that failed left a file: %v", err)
	}
	if err := os.WriteFile(to, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := sqlitestore.Backup(t.Context(), path, to); !errors.Is(err, os.ErrExist) {
		t.Errorf("a file in the way: got %v, want ErrExist", err)
	}
	if got, _ := os.ReadFile(to); string(got) != "precious" {
		t.Errorf("the file in the way became %q", got)
	}
}
