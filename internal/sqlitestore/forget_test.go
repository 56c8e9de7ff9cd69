package sqlitestore_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"tollgate/internal/audit"
	"tollgate/internal/ledger"
	"tollgate/internal/sqlitestore"
)

// TestAForgottenUserIsNowhereInTheFile: rows, sums and audit lose the name and the id
// of the key, keep their counts, and still hold together; no byte of a name is left.
func TestAForgottenUserIsNowhereInTheFile(t *testing.T) { //nolint:gocyclo // one story, told step by step
	ctx, path := context.Background(), filepath.Join(t.TempDir(), "ledger.db")
	s := open(t, sqlitestore.Options{Path: path, Gateway: "one"})
	fill(t, s, 40)
	for i, lease := range []string{"a", "b", "c"} {
		in := intent("lease-" + lease)
		in.User, in.KeyID, in.ClientAddr = "zebedee", "zebedee-laptop", "192.0.2.77"
		if i == 2 {
			in.User, in.KeyID, in.ClientAddr, in.EndUser = "shared", "webui", "10.0.0.9", "zebedee"
		}
		if err := s.Begin(ctx, in); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Settle(ctx, complete("lease-"+lease, 10, 5)); err != nil {
			t.Fatal(err)
		}
	}
	states := map[string]json.RawMessage{"zebedee-laptop": json.RawMessage(`{"user":"zebedee","note":"for Zebedee Z."}`), "webui": json.RawMessage(`{"user":"shared"}`)}
	by := audit.Editor{Who: "admin", From: "10.0.0.1"}
	if _, err := s.RecordStates(ctx, "key", states, by); err != nil {
		t.Fatal(err)
	}
	if err := s.Record(ctx, audit.Entry{Editor: audit.Editor{Who: "zebedee-laptop", From: "192.0.2.77"}, Action: "request.cancel", Target: "x"}); err != nil {
		t.Fatal(err)
	}
	known, err := s.Known(ctx, "zebedee", "forgotten-1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if known.Requests != 2 || known.Named != 1 || known.Sums != 1 || known.Audit != 2 {
		t.Errorf("known %+v", known)
	}
	if err := s.Forget(ctx, "zebedee", &known, by); err != nil {
		t.Fatal(err)
	}
	// The key is gone from the file of keys by now: that is no news to the audit.
	delete(states, "zebedee-laptop")
	if n, err := s.RecordStates(ctx, "key", states, by); err != nil || n != 0 {
		t.Errorf("%d changes of keys are told, %v", n, err)
	}
	if n, err := s.VerifyAudit(ctx); err != nil || n != 4 {
		t.Errorf("the audit: %d entries, %v", n, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantSound(t, path)
	nowhere(t, path, "zebedee", "Zebedee", "192.0.2.77")

	r, err := sqlitestore.OpenReadOnly(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	var tokens int64
	for _, rec := range rows(t, r, ledger.Filter{}) {
		if rec.User == "forgotten-1" {
			tokens += rec.Counts.Prompt + rec.Counts.Completion
		}
	}
	if tokens != 30 {
		t.Errorf("%d tokens of the pseudonym, want 30", tokens)
	}
}

// TestAForgottenEntryIsNotAlteredFurther: the entry that vouches for changed ones does
// so for what they say now, and for nothing else.
func TestAForgottenEntryIsNotAlteredFurther(t *testing.T) {
	ctx, path := context.Background(), filepath.Join(t.TempDir(), "ledger.db")
	audited(t, path, 5)
	s := open(t, sqlitestore.Options{Path: path, Gateway: "one"})
	known, err := s.Known(ctx, "request-2", "forgotten-2", nil)
	if err != nil || known.Audit != 1 {
		t.Fatalf("%+v, %v", known, err)
	}
	if err := s.Forget(ctx, "request-2", &known, audit.Editor{Who: "local:root"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.VerifyAudit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Exec("UPDATE audit SET target = 'forgotten-3' WHERE seq = 3")
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	r, err := sqlitestore.OpenReadOnly(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if _, err := r.VerifyAudit(ctx); !errors.Is(err, audit.ErrBroken) {
		t.Errorf("a changed entry that was vouched for: %v", err)
	}
}

// nowhere looks for bytes in all files of a ledger.
func nowhere(t *testing.T, path string, words ...string) {
	t.Helper()
	files, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range words {
			if at := bytes.Index(data, []byte(word)); at >= 0 {
				t.Errorf("%s has %q at %d", file, data[at:min(at+40, len(data))], at)
			}
		}
	}
}
