package sqlitestore_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"tollgate/internal/ledger"
	"tollgate/internal/sqlitestore"
	"tollgate/internal/storetest"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(crashLedger); path != "" {
		crashChild(path)
		os.Exit(3) //nolint:forbidigo // the child of the crash test: it is to be killed
	}
	goleak.VerifyTestMain(m)
}

// open opens a ledger and closes it with the test.
func open(t *testing.T, o sqlitestore.Options) *sqlitestore.Store {
	t.Helper()
	if o.Path == "" {
		o.Path = filepath.Join(t.TempDir(), "ledger.db")
	}
	s, err := sqlitestore.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func TestStoreKeepsTheContract(t *testing.T) {
	for _, sync := range []string{sqlitestore.SyncProcess, sqlitestore.SyncPower} {
		t.Run(sync, func(t *testing.T) {
			storetest.Ledger(t, func(t *testing.T) ledger.Store {
				t.Helper()
				path := filepath.Join(t.TempDir(), "a folder?", "ledger#1.db")
				s := open(t, sqlitestore.Options{Path: path, Sync: sync})
				t.Cleanup(func() { wantSound(t, path) })
				return s
			})
		})
	}
}

func TestRowsSurviveReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	s := open(t, sqlitestore.Options{Path: path})
	fill(t, s, 5)
	want := rows(t, s.Reader, ledger.Filter{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path + "-wal"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the WAL is still there after Close: %v", err)
	}
	got := rows(t, open(t, sqlitestore.Options{Path: path}).Reader, ledger.Filter{})
	if len(got) != 5 || got[4] != want[4] {
		t.Errorf("got %d rows, the last %+v, want %+v", len(got), got[len(got)-1], want[4])
	}
}

func TestLedgerIsReadableByItsOwnerOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	fill(t, open(t, sqlitestore.Options{Path: path}), 1)
	for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
		info, err := os.Stat(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != 0o600 {
			t.Errorf("ledger.db%s: got mode %o, want 600", suffix, got)
		}
	}
}

func TestSecondWriterIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	s := open(t, sqlitestore.Options{Path: path})
	if _, err := sqlitestore.Open(t.Context(), sqlitestore.Options{Path: path}); !errors.Is(err, sqlitestore.ErrLocked) {
		t.Errorf("second Open: got %v, want ErrLocked", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, sqlitestore.Options{Path: path})
}

func TestUnknownSyncIsRefused(t *testing.T) {
	_, err := sqlitestore.Open(t.Context(), sqlitestore.Options{Path: filepath.Join(t.TempDir(), "l.db"), Sync: "maybe"})
	if err == nil || !strings.Contains(err.Error(), `"maybe"`) {
		t.Errorf("got %v, want an error that names the value", err)
	}
}

func TestForeignAndNewerFilesAreRefused(t *testing.T) {
	for name, change := range map[string]string{
		"newer tollgate": "PRAGMA user_version = 999",
		"another":        "PRAGMA user_version = 0",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ledger.db")
			s := open(t, sqlitestore.Options{Path: path})
			if err := s.Exec(t.Context(), change); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := sqlitestore.Open(t.Context(), sqlitestore.Options{Path: path}); !errors.Is(err, sqlitestore.ErrSchema) || !strings.Contains(err.Error(), name) {
				t.Errorf("Open: got %v, want ErrSchema that speaks of %s", err, name)
			}
			if _, err := sqlitestore.OpenReadOnly(t.Context(), path); !errors.Is(err, sqlitestore.ErrSchema) {
				t.Errorf("OpenReadOnly: got %v, want ErrSchema", err)
			}
		})
	}
}

func TestMigrationIsWholeOrNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	s := open(t, sqlitestore.Options{Path: path})
	fill(t, s, 3)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	released := sqlitestore.Migrations()

	next := func(step string) []string { return append(slices.Clone(released), step) }
	restore := sqlitestore.SetMigrations(next("ALTER TABLE requests ADD COLUMN extra INTEGER; SELECT * FROM nowhere"))
	t.Cleanup(restore)
	if _, err := sqlitestore.Open(t.Context(), sqlitestore.Options{Path: path}); err == nil {
		t.Fatal("a broken migration was accepted")
	}

	sqlitestore.SetMigrations(next("ALTER TABLE requests ADD COLUMN extra INTEGER"))
	if _, err := sqlitestore.OpenReadOnly(t.Context(), path); !errors.Is(err, sqlitestore.ErrSchema) {
		t.Errorf("OpenReadOnly of an older ledger: got %v, want ErrSchema", err)
	}
	s = open(t, sqlitestore.Options{Path: path}) // fails on a duplicate column if the broken step left half of itself
	if got := len(rows(t, s.Reader, ledger.Filter{})); got != 3 {
		t.Errorf("rows after the migration: got %d, want 3", got)
	}
	if err := s.Exec(t.Context(), "UPDATE requests SET extra = 1"); err != nil {
		t.Errorf("the new column: %v", err)
	}
}

// What the service asks for while it works must not read the whole ledger.
func TestWorkDoesNotReadTheWholeLedger(t *testing.T) {
	s := open(t, sqlitestore.Options{})
	fill(t, s, 3)
	for name, query := range sqlitestore.Queries() {
		plan, err := s.Plan(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(plan, "SCAN requests") || !strings.Contains(plan, "USING INDEX") {
			t.Errorf("%s: %s", name, plan)
		}
	}
}

func TestMetricsShowSettlesAndBacklog(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	s := open(t, sqlitestore.Options{Metrics: sqlitestore.NewMetrics(reg)})
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	fill(t, s, 2)
	release := s.Stall()
	if err := testutil.GatherAndCompare(reg, bytes.NewBufferString(
		"# HELP ledger_backlog Ledger writes that wait for their commit.\n# TYPE ledger_backlog gauge\nledger_backlog 1\n"),
		"ledger_backlog"); err != nil {
		t.Error(err)
	}
	release()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := testutil.GatherAndCompare(reg, bytes.NewBufferString(
		"# HELP ledger_backlog Ledger writes that wait for their commit.\n# TYPE ledger_backlog gauge\nledger_backlog 0\n"),
		"ledger_backlog"); err != nil {
		t.Error(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "ledger_settle_seconds" {
			if got := f.GetMetric()[0].GetHistogram().GetSampleCount(); got != 2 {
				t.Errorf("settles observed: got %d, want 2", got)
			}
			return
		}
	}
	t.Error("ledger_settle_seconds was not gathered")
}
