package sqlitestore_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"tollgate/internal/audit"
	"tollgate/internal/sqlitestore"
)

func audited(t *testing.T, path string, n int) {
	t.Helper()
	s := open(t, sqlitestore.Options{Path: path, Gateway: "one"})
	for i := range n {
		if err := s.Record(context.Background(), audit.Entry{
			Editor: audit.Editor{Who: "admin", From: "10.0.0.1"}, Action: "request.cancel", Target: fmt.Sprint("request-", i), After: json.RawMessage(`{"cancelled":1}`),
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// One byte of any column of any entry, an entry that is gone and an end that is gone
// are all found, by a reader beside the service too.
func TestAnAlteredAuditIsFound(t *testing.T) {
	for name, spoil := range map[string]string{
		"nothing": "SELECT 1",
		"who":     "UPDATE audit SET who = 'bdmin' WHERE seq = 3",
		"when":    "UPDATE audit SET at = at + 1 WHERE seq = 3",
		"where":   "UPDATE audit SET origin = '10.0.0.2' WHERE seq = 5",
		"what":    "UPDATE audit SET after = '{\"cancelled\":2}' WHERE seq = 1",
		"hash":    "UPDATE audit SET hash = replace(hash, substr(hash, 1, 1), 'x') WHERE seq = 5",
		"gone":    "DELETE FROM audit WHERE seq = 2",
		"the end": "DELETE FROM audit WHERE seq = 5",
		"all":     "DELETE FROM audit",
	} {
		path := filepath.Join(t.TempDir(), "ledger.db")
		audited(t, path, 5)
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec(spoil); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		r, err := sqlitestore.OpenReadOnly(context.Background(), path)
		if err != nil {
			t.Fatal(err)
		}
		n, err := r.VerifyAudit(context.Background())
		if name == "nothing" {
			if n != 5 || err != nil {
				t.Errorf("a good chain: %d entries, %v", n, err)
			}
		} else if !errors.Is(err, audit.ErrBroken) {
			t.Errorf("%s was altered: %v", name, err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A change of a thing is told once: not again by the next call, nor after a restart.
func TestAStateIsToldOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	ctx := context.Background()
	states := map[string]json.RawMessage{"ann": json.RawMessage(`{"quota":1}`), "bob": json.RawMessage(`{"quota":1}`)}
	tell := func(s *sqlitestore.Store, want int) {
		t.Helper()
		n, err := s.RecordStates(ctx, "key", states, audit.Editor{Who: "admin"})
		if n != want || err != nil {
			t.Errorf("%d changes, %v; want %d", n, err, want)
		}
	}
	s := open(t, sqlitestore.Options{Path: path})
	tell(s, 2)
	tell(s, 0)
	states["ann"] = json.RawMessage(`{"quota":2}`)
	delete(states, "bob")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, sqlitestore.Options{Path: path})
	tell(s, 2)
	tell(s, 0)
	entries, err := s.Audit(ctx, 0, 10)
	if err != nil || len(entries) != 4 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	newest := entries[0]
	if newest.Action != "key.remove" || newest.Target != "bob" || newest.After != nil || string(entries[1].After) != `{"quota":2}` {
		t.Errorf("entries: %+v", entries[:2])
	}
	if older, err := s.Audit(ctx, newest.Seq, 2); err != nil || len(older) != 2 || older[0].Seq != newest.Seq-1 {
		t.Errorf("the page before %d: %+v, %v", newest.Seq, older, err)
	}
	if n, err := s.VerifyAudit(ctx); n != 4 || err != nil {
		t.Errorf("verify: %d, %v", n, err)
	}
}
