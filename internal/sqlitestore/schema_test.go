package sqlitestore_test

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/ledger"
	"tollgate/internal/sqlitestore"
)

// TestColumnsAreThoseOfTheFile: the migrations are history and name columns
// themselves, so the file is compared with the list that everything else uses.
func TestColumnsAreThoseOfTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	open(t, sqlitestore.Options{Path: path})
	db := raw(t, path)
	rows, err := db.Query("SELECT name FROM pragma_table_info('requests') ORDER BY cid")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var got, want []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		got = append(got, name)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	for _, c := range ledger.Columns() {
		want = append(want, c.Name)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("columns (-list +file):\n%s", diff)
	}
}

// raw opens a file without any of our code.
func raw(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// TestOldLedgersAreBroughtUpToDate opens files as older programs left them:
// three settled rows and one that is open, or testdata/schema2.db, which the
// program of that schema has written, 10 of its 40 settled rows deleted by
// retention.
func TestOldLedgersAreBroughtUpToDate(t *testing.T) { //nolint:gocyclo // one story, told step by step
	written, err := os.ReadFile("testdata/schema2.db")
	if err != nil {
		t.Fatal(err)
	}
	old := map[string]func(path string) (settled int){
		"a file that schema 2 has written": func(path string) int {
			if err := os.WriteFile(path, written, 0o600); err != nil {
				t.Fatal(err)
			}
			return 30
		},
	}
	for version := 1; version < sqlitestore.SchemaVersion(); version++ {
		old[fmt.Sprint("schema ", version)] = func(path string) int {
			writeOld(t, path, version)
			return 3
		}
	}
	for name, write := range old {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ledger.db")
			settled := write(path)
			s := open(t, sqlitestore.Options{Path: path, Gateway: "gate-1"})
			if got := leasesOf(t, s); !slices.Equal(got, []string{"left-open"}) {
				t.Errorf("open: got %v, want left-open", got)
			}
			all := rows(t, s.Reader, ledger.Filter{})
			if len(all) != settled+1 {
				t.Errorf("rows: got %d, want %d", len(all), settled+1)
			}
			for _, r := range all {
				if r.Change != 0 || r.Gateway != "" || r.Meter != "" || r.RequestedModel != "" {
					t.Errorf("an old row says what it cannot know: %+v", r)
				}
			}
			if n, err := s.Recover(t.Context(), leasesOf(t, s), ledger.GatewayCrash, time.Now()); n != 1 || err != nil {
				t.Errorf("recover: got %d, %v, want 1", n, err)
			}
			if r, err := s.Get(t.Context(), "left-open"); r.Change != 1 || err != nil {
				t.Errorf("the first change: got %d, %v, want 1", r.Change, err)
			}
			if err := s.Begin(t.Context(), intent("new")); err != nil {
				t.Fatal(err)
			}
			if r, _, err := s.Settle(t.Context(), complete("new", 1, 2)); r.Change != 2 || r.Gateway != "gate-1" || err != nil {
				t.Errorf("a new row: got change %d of %q, %v", r.Change, r.Gateway, err)
			}
			wantSound(t, path)
		})
	}
}

// writeOld makes a ledger as the program of an older schema left it.
func writeOld(t *testing.T, path string, version int) {
	t.Helper()
	db := raw(t, path)
	defer db.Close()
	run := func(query string, args ...any) {
		t.Helper()
		if _, err := db.Exec(query, args...); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range sqlitestore.Migrations()[:version] {
		run(step)
	}
	run(fmt.Sprint("PRAGMA user_version = ", version))
	for i, lease := range []string{"a", "b", "c", "left-open"} {
		run(`INSERT INTO requests (lease_id, request_id, key_id, user, model, endpoint, engine, stream, n, prompts, started_at,
			reserved_tokens, client_addr) VALUES (?, 'r', 'key-1', 'ann', 'm', '/v1/completions', 'e', 1, 1, 1, ?, 0, '')`,
			lease, noon.Add(time.Duration(i)*time.Second).UnixMicro())
	}
	run(`UPDATE requests SET ended_at = started_at, end_reason = 'complete', quality = 'exact', status = 200,
		prompt_tokens = 1, completion_tokens = 2 WHERE lease_id <> 'left-open'`)
	run(`INSERT INTO rollups (key_id, day, user, model, requests, prompt_tokens, completion_tokens)
		SELECT key_id, '2026-11-24', user, model, 4, 3, 6 FROM requests LIMIT 1`)
}

// TestChangeNumbersNeverComeTwice: neither a start nor the deletion of the rows
// that had the highest numbers takes the counter back.
func TestChangeNumbersNeverComeTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	s := open(t, sqlitestore.Options{Path: path})
	fill(t, s, 5)
	reopen := func(want int64) {
		t.Helper()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, sqlitestore.Options{Path: path})
		lease := fmt.Sprint("after-", want)
		if err := s.Begin(t.Context(), intent(lease)); err != nil {
			t.Fatal(err)
		}
		if r, _, err := s.Settle(t.Context(), complete(lease, 1, 2)); r.Change != want || err != nil {
			t.Errorf("got change %d, %v, want %d", r.Change, err, want)
		}
	}
	reopen(6)
	if n, err := s.Retain(t.Context(), noon.AddDate(1, 0, 0), 0); n != 6 || err != nil {
		t.Fatalf("retain: got %d, %v, want 6", n, err)
	}
	reopen(7)
}
