package operator_test

import (
	"database/sql"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "modernc.org/sqlite" // writes the ledger that a service then opens

	"tollgate/e2e/stack"
	"tollgate/internal/sqlitestore"
)

// fillLedger writes a ledger of n requests over 90 days: 40 keys of 20 users, five
// models, 200 end users, one request of a hundred with a bad end.
func fillLedger(t *testing.T, path string, n int) {
	t.Helper()
	s, err := sqlitestore.Open(t.Context(), sqlitestore.Options{Path: path}) // makes the schema
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=synchronous(0)&_pragma=journal_mode(wal)")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	const rows = `WITH RECURSIVE i(n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM i WHERE n + 1 < ?2)
		INSERT INTO requests (lease_id, request_id, key_id, user, model, endpoint, engine, stream, n, prompts, status, started_at, first_byte_at, ended_at,
			end_reason, quality, prompt_tokens, completion_tokens, cached_tokens, reserved_tokens, client_addr, requested_model, meter, change, gateway, end_user, secret)
		SELECT printf('%032x', n), printf('req-%d', n), printf('key-%d', n % 40), printf('user-%d', n % 20), printf('model-%d', n % 5), '/v1/chat/completions',
			'10.0.0.2:8000', 1, 1, 1, 200, ?3 + n * ?4, ?3 + n * ?4 + 300000, ?3 + n * ?4 + 2000000,
			CASE WHEN n % 100 <> 99 THEN 'complete' WHEN n % 200 = 99 THEN 'client_abort' ELSE 'timeout' END, 'exact', 100 + n % 900, 10 + n % 300, n % 50, 200,
			'192.0.2.7', printf('name-%d', n % 7), '', n + 1, 'gate-1', printf('person-%d@example.org', n % 200), '0a1b2c3d' FROM i`
	const batch = 100_000
	step := 90 * 24 * time.Hour.Microseconds() / int64(n)
	first := time.Now().Add(-90 * 24 * time.Hour).UnixMicro()
	for from := 0; from < n; from += batch {
		if _, err := db.Exec(rows, from, min(from+batch, n), first, step); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.Exec(`INSERT INTO rollups (key_id, day, user, model, requested_model, end_user, requests, prompt_tokens, completion_tokens, cached_tokens, errors)
		SELECT key_id, date(started_at / 1000000, 'unixepoch'), user, model, requested_model, end_user, count(*), sum(prompt_tokens), sum(completion_tokens),
			sum(cached_tokens), sum(end_reason NOT IN ('complete', 'client_abort')) FROM requests GROUP BY 1, 2, 3, 4, 5, 6`); err != nil {
		t.Fatal(err)
	}
}

// A ledger of years answers every question of the console, and a report of the command
// line, while somebody waits for it.
func TestALargeLedgerIsQuick(t *testing.T) {
	rows, page, report := 100_000, 5*time.Second, 10*time.Second
	if long() {
		rows, page, report = 5_000_000, time.Second, 2*time.Second
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "state"), 0o750); err != nil {
		t.Fatal(err)
	}
	fillLedger(t, filepath.Join(dir, "state", "ledger.db"), rows)
	s := stack.Start(t, stack.Options{Dir: dir})
	ago := func(d time.Duration) string { return time.Now().Add(-d).UTC().Format(time.RFC3339) }
	const day = 24 * time.Hour
	paths := []string{
		"/health", "/metrics", "/admin/requests", "/admin/keys", "/admin/limits", "/admin/engines", "/admin/children", "/admin/log-stats", // no rows
		"/admin/audit?limit=50", "/admin/ledger?limit=50", "/admin/ledger?limit=50&key=key-7", "/admin/ledger?limit=50&user=user-3",
		"/admin/ledger?limit=50&model=model-4", "/admin/ledger?limit=50&model=none", "/admin/ledger?limit=50&user=user-3&model=none&end_reason=timeout", "/admin/ledger?limit=50&request_id=req-5", "/admin/ledger?key=nobody&limit=1", "/admin/ledger?open=true",
		"/admin/ledger?limit=50&end_reason=client_abort", "/admin/ledger?limit=50&end_reason=quota", "/admin/ledger?limit=50&end_reason=complete&key=key-7",
		"/admin/ledger?limit=200&end_reason=timeout&since=" + ago(90*day), "/admin/ledger?limit=200&end_reason=envoy_crash&since=" + ago(90*day),
		"/admin/usage?by=hour,user&since=" + ago(day), "/admin/usage?by=hour,end_user&since=" + ago(day),
		"/v1/key", "/v1/usage", "/v1/usage?by=end_user", "/v1/requests?limit=20",
	}
	for _, by := range []string{"key", "user", "model", "requested_model", "end_user"} {
		for _, length := range []time.Duration{7 * day, 30 * day, 90 * day} {
			paths = append(paths, "/admin/usage?by=day,"+by+"&since="+ago(length))
		}
	}
	slowest, worst := time.Duration(0), ""
	for _, path := range paths {
		begin := time.Now()
		a := s.Admin(http.MethodGet, path, "")
		took := time.Since(begin)
		if a.StatusCode != http.StatusOK || took > page {
			t.Errorf("%s: %d after %v, want 200 in %v", path, a.StatusCode, took.Round(time.Millisecond), page)
		}
		if took > slowest {
			slowest, worst = took, path
		}
	}
	cmd := exec.Command(stack.Binary(t, "tollgate"), "--config", s.Path("config.yaml"), "usage", "--by", "day,model")
	begin := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(begin)
	used, _ := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if err != nil || used == nil || took > report || used.Maxrss > 100<<10 {
		t.Errorf("usage by day and model: %v after %v with %v\n%.300s", err, took, used, out)
	}
	if used != nil {
		t.Logf("%d rows: slowest page %v (%s); usage by day and model %v, %d MB", rows, slowest.Round(time.Millisecond), worst, took.Round(time.Millisecond), used.Maxrss>>10)
	}
	if total := fmt.Sprintf(" %d ", rows); !strings.Contains(string(out), total) {
		t.Errorf("usage does not count %s requests", total)
	}
}
