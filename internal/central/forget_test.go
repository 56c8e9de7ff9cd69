package central_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate/internal/audit"
	"tollgate/internal/pgtest"
)

// TestAForgottenUserIsInNoTable: rows and sums of all gateways lose the name, sums still
// equal rows, and the chain of the audit holds after the entry that tells of it came.
func TestAForgottenUserIsInNoTable(t *testing.T) {
	ctx, pg := context.Background(), pgtest.Shared(t)
	file := pg.DatabaseFile()
	l, s := dial(t, file), open(t, filepath.Join(t.TempDir(), "gate-a"))
	for i, user := range []string{"zebedee", "zebedee", "shared"} {
		in := intent("lease-" + string(rune('a'+i)))
		in.User, in.KeyID, in.ClientAddr = user, user+"-laptop", "192.0.2.77"
		if user == "shared" {
			in.EndUser, in.ClientAddr = "zebedee", "10.0.0.9"
		}
		use(t, s, in, 10, 5)
	}
	by := audit.Editor{Who: "root", From: "local"}
	if err := s.Record(ctx, audit.Entry{Editor: by, Action: "key.add", Target: "zebedee-laptop", After: []byte(`{"user":"zebedee"}`)}); err != nil {
		t.Fatal(err)
	}
	shipped := func(entries int64) {
		t.Helper()
		stop := ship(t, l, s, "gate-a", prometheus.NewRegistry()) //nolint:contextcheck // it ends by stop
		defer stop()
		eventually(t, 20*time.Second, "all entries and rows", func() bool {
			found, n, err := l.VerifyAudit(ctx)
			at, merr := s.Mark(ctx, "shipped")
			return err == nil && merr == nil && len(found) == 0 && n == entries && at >= 3
		})
	}
	shipped(1)
	id, err := s.ID(ctx)
	if err != nil {
		t.Fatal(err)
	}
	known, err := s.Known(ctx, "zebedee", "forgotten-1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Forget(ctx, "zebedee", known.Names, id, known.Entries); err != nil {
		t.Fatal(err)
	}
	if err := s.Forget(ctx, "zebedee", &known, by); err != nil {
		t.Fatal(err)
	}
	shipped(2)
	wantSound(t, l)
	pg.ExecFile(file, `DO $$ BEGIN
		IF EXISTS (SELECT 1 FROM tollgate.requests r WHERE r::text ~ 'zebedee|192.0.2.77') OR EXISTS (SELECT 1 FROM tollgate.rollups r WHERE r::text ~ 'zebedee')
			OR EXISTS (SELECT 1 FROM tollgate.audit r WHERE r::text ~ 'zebedee') THEN RAISE EXCEPTION 'a name is left'; END IF;
		IF (SELECT sum(prompt_tokens) FROM tollgate.rollups WHERE "user" = 'forgotten-1' AND key_id = 'forgotten-1-1') <> 20 THEN RAISE EXCEPTION 'sums are others'; END IF;
	END $$`)
	pg.ExecFile(file, "UPDATE tollgate.audit SET target = 'somebody' WHERE seq = 1")
	if found, _, err := l.VerifyAudit(ctx); err != nil || len(found) != 1 {
		t.Errorf("an entry that was altered afterwards: %+v, %v", found, err)
	}
}
