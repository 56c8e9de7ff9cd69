package sqlitestore_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/ledger"
	"tollgate/internal/sqlitestore"
)

func TestUsageGroupsWholeAndPartialDays(t *testing.T) {
	s := open(t, sqlitestore.Options{})
	fill(t, s, 30) // noon to 17:00 of the next day
	group := func(by ledger.By, name string, n int64) ledger.Group {
		return ledger.Group{By: by, Group: name, Requests: n, PromptTokens: 10 * n, CompletionTokens: 5 * n, TotalTokens: 15 * n}
	}
	for _, c := range []struct {
		name string
		q    ledger.Query
		want []ledger.Group
	}{
		{"by key", ledger.Query{By: ledger.ByKey}, []ledger.Group{group(ledger.ByKey, "key-0", 15), group(ledger.ByKey, "key-1", 15)}},
		{"by user", ledger.Query{By: ledger.ByUser}, []ledger.Group{group(ledger.ByUser, "ann", 30)}},
		{"by model", ledger.Query{By: ledger.ByModel, Since: noon.Add(time.Hour), Until: noon.Add(3 * time.Hour)}, []ledger.Group{
			group(ledger.ByModel, "model-1", 1), group(ledger.ByModel, "model-2", 1),
		}},
		{"by day", ledger.Query{By: ledger.ByDay, Since: noon.Add(10 * time.Hour)}, []ledger.Group{
			group(ledger.ByDay, "2026-11-24", 2), group(ledger.ByDay, "2026-11-25", 18),
		}},
		{"nothing", ledger.Query{By: ledger.ByDay, Until: noon}, nil},
	} {
		got, err := s.Usage(t.Context(), c.q)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
	if _, err := s.Usage(t.Context(), ledger.Query{By: "colour"}); !errors.Is(err, ledger.ErrQuery) {
		t.Errorf("unknown grouping: got %v, want ErrQuery", err)
	}
}

func TestRetentionKeepsSums(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	s := open(t, sqlitestore.Options{Path: path})
	fill(t, s, 30)
	if err := s.Begin(t.Context(), intent("open")); err != nil {
		t.Fatal(err)
	}
	usage := func() []byte {
		groups, err := s.Usage(t.Context(), ledger.Query{By: ledger.ByModel})
		if err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(groups)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	before := usage()
	n, err := s.Retain(t.Context(), noon.Add(20*time.Hour), 3)
	if err != nil || n != 20 {
		t.Fatalf("Retain: got %d, %v, want 20", n, err)
	}
	if diff := cmp.Diff(string(before), string(usage())); diff != "" {
		t.Errorf("usage moved (-before +after):\n%s", diff)
	}
	left := rows(t, s.Reader, ledger.Filter{})
	if len(left) != 11 || !left[0].Open() {
		t.Errorf("rows: got %d, the first %+v, want the open one and 10", len(left), left[0])
	}
	if n, err := s.Retain(t.Context(), noon.Add(20*time.Hour), 0); err != nil || n != 0 {
		t.Errorf("second Retain: got %d, %v, want 0", n, err)
	}
	// A day that is half deleted still counts what comes later.
	if _, _, err := s.Settle(t.Context(), complete("open", 100, 100)); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Used(t.Context(), "key-1", time.Time{}, time.Time{}); err != nil || got != 15*15+200 {
		t.Errorf("used: got %d, %v, want %d", got, err, 15*15+200)
	}
	wantSound(t, path)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Retain(cancelled, noon, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Retain with an ended context: got %v, want Canceled", err)
	}
}

// beginMany begins n requests within seven seconds and settles every other one.
func beginMany(t *testing.T, s *sqlitestore.Store, n int) {
	t.Helper()
	for i := range n {
		in := intent(fmt.Sprint("a", i))
		in.StartedAt = noon.Add(time.Duration(i%7) * time.Second)
		if i%100 == 0 {
			in.KeyID = "other"
		}
		if err := s.Begin(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if _, _, err := s.Settle(t.Context(), complete(in.LeaseID, 1, 1)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestEachStreamsInOrderOfStart(t *testing.T) {
	s := open(t, sqlitestore.Options{})
	const n = 1203 // more than two pages, many with the same start
	beginMany(t, s, n)
	for _, f := range []ledger.Filter{
		{},
		{KeyID: "other"},
		{Open: true},
		{Since: noon.Add(2 * time.Second)},
		{Until: noon.Add(2 * time.Second)},
		{Since: noon.Add(time.Second), Until: noon.Add(5 * time.Second), KeyID: "key-1", Open: true},
	} {
		seen := map[string]bool{}
		var last time.Time
		for _, r := range rows(t, s.Reader, f) {
			if seen[r.LeaseID] || r.StartedAt.Before(last) || !f.Match(&r) {
				t.Fatalf("%+v: row out of place: %+v", f, r)
			}
			seen[r.LeaseID], last = true, r.StartedAt
		}
		want := 0
		for _, r := range rows(t, s.Reader, ledger.Filter{}) {
			if f.Match(&r) {
				want++
			}
		}
		if len(seen) != want || want == 0 {
			t.Errorf("%+v: got %d rows, want %d", f, len(seen), want)
		}
	}
	enough := errors.New("enough")
	if err := s.Each(t.Context(), ledger.Filter{}, func(ledger.Record) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("error of the callback: got %v", err)
	}
}

func TestReaderSeesALiveLedgerAndCannotWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	s := open(t, sqlitestore.Options{Path: path})
	fill(t, s, 3)
	r, err := sqlitestore.OpenReadOnly(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if got := len(rows(t, r, ledger.Filter{})); got != 3 {
		t.Errorf("rows: got %d, want 3", got)
	}
	if err := s.Begin(t.Context(), intent("later")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Get(t.Context(), "later"); err != nil {
		t.Errorf("a row written after the reader opened: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), "later"); err != nil {
		t.Errorf("the service after the reader left: %v", err)
	}
}

func TestMissingLedgerIsSaidSo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	if _, err := sqlitestore.OpenReadOnly(t.Context(), path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("reading made a file: %v", err)
	}
}

func TestVerifyFindsEveryBrokenInvariant(t *testing.T) {
	for _, c := range []struct {
		rule   ledger.Rule
		lease  string
		damage string
	}{
		{ledger.RuleOpen, "open", "UPDATE requests SET quality = 'exact' WHERE lease_id = 'open'"},
		{ledger.RuleOpen, "open", "UPDATE requests SET status = 200 WHERE lease_id = 'open'"},
		{ledger.RuleSettled, "lease-0001", "UPDATE requests SET quality = NULL WHERE lease_id = 'lease-0001'"},
		{ledger.RuleSettled, "lease-0001", "UPDATE requests SET ended_at = NULL WHERE lease_id = 'lease-0001'"},
		{ledger.RuleSettled, "lease-0001", "UPDATE requests SET end_reason = 'because' WHERE lease_id = 'lease-0001'; UPDATE rollups SET errors = errors + 1 WHERE key_id = 'key-1' AND model = 'model-1'"},
		{ledger.RuleRollup, "", "UPDATE requests SET cached_tokens = 5 WHERE lease_id = 'lease-0001'"},
		{ledger.RuleRollup, "", "UPDATE requests SET end_reason = 'timeout' WHERE lease_id = 'lease-0001'"},
		{ledger.RuleCount, "lease-0001", "UPDATE requests SET cached_tokens = -5 WHERE lease_id = 'lease-0001'"},
		{ledger.RuleTime, "lease-0001", "UPDATE requests SET ended_at = started_at - 1 WHERE lease_id = 'lease-0001'"},
		{ledger.RuleTime, "lease-0001", "UPDATE requests SET first_byte_at = started_at - 1 WHERE lease_id = 'lease-0001'"},
		{ledger.RuleRollup, "", "UPDATE requests SET prompt_tokens = 11 WHERE lease_id = 'lease-0001'"},
		{ledger.RuleRollup, "", "DELETE FROM requests WHERE lease_id = 'lease-0001'"},
		{ledger.RuleRollup, "", "DELETE FROM rollups WHERE key_id = 'key-1' AND model = 'model-1'"},
		{ledger.RuleRollup, "", "UPDATE rollups SET completion_tokens = completion_tokens + 1 WHERE key_id = 'key-0' AND model = 'model-2'"},
	} {
		t.Run(c.damage, func(t *testing.T) {
			s := open(t, sqlitestore.Options{})
			fill(t, s, 3)
			if err := s.Begin(t.Context(), intent("open")); err != nil {
				t.Fatal(err)
			}
			if found, err := s.Verify(t.Context()); err != nil || len(found) > 0 {
				t.Fatalf("before the damage: %+v, %v", found, err)
			}
			if err := s.Exec(t.Context(), c.damage); err != nil {
				t.Fatal(err)
			}
			found, err := s.Verify(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(found) != 1 || found[0].Rule != c.rule || found[0].LeaseID != c.lease {
				t.Errorf("got %+v, want one %s of %q", found, c.rule, c.lease)
			}
		})
	}
}

func TestVerifyFindsADamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	s := open(t, sqlitestore.Options{Path: path})
	fill(t, s, 200)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, 6000), 5*4096); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := sqlitestore.OpenReadOnly(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	found, err := r.Verify(t.Context())
	if err == nil && len(found) == 0 {
		t.Error("two zeroed pages went unseen")
	}
}

func TestVerifyStopsAtABound(t *testing.T) {
	s := open(t, sqlitestore.Options{})
	err := s.Exec(t.Context(), `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 1500)
		INSERT INTO requests (lease_id, request_id, key_id, user, model, endpoint, engine, stream, n, prompts, started_at,
		reserved_tokens, client_addr) SELECT i, '', 'k', '', '', '', '', 0, 1, 1, 0, -1, '' FROM n`)
	if err != nil {
		t.Fatal(err)
	}
	found, err := s.Verify(t.Context())
	if err != nil || len(found) != 1000 {
		t.Errorf("got %d violations, %v, want 1000", len(found), err)
	}
}
