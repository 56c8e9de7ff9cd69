package central_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate/internal/audit"
	"tollgate/internal/pgtest"
)

// TestTheAuditIsOneChainForEachGateway: entries arrive whole and in order, also
// those that were written while nobody shipped, and one that is altered is found.
func TestTheAuditIsOneChainForEachGateway(t *testing.T) {
	pg := pgtest.Shared(t)
	file, dir := pg.DatabaseFile(), t.TempDir()
	l := dial(t, file)
	const entries = 20
	for _, name := range []string{"gate-a", "gate-b"} {
		s := open(t, filepath.Join(dir, name))
		record := func(n int) {
			t.Helper()
			for i := range n {
				if err := s.Record(context.Background(), audit.Entry{
					Editor: audit.Editor{Who: "root", From: "192.0.2.1"}, Action: "key.add", Target: fmt.Sprint("k", i),
					After: []byte(`{"b":1,  "a":"é"}`),
				}); err != nil {
					t.Fatal(err)
				}
			}
		}
		record(entries / 2)
		stop := ship(t, l, s, name, prometheus.NewRegistry())
		record(entries / 4)
		stop()
		ship(t, l, s, name, prometheus.NewRegistry())
		record(entries / 4)
	}
	eventually(t, 20*time.Second, "all entries", func() bool {
		found, n, err := l.VerifyAudit(context.Background())
		return err == nil && len(found) == 0 && n == 2*entries
	})
	pg.ExecFile(file, "UPDATE tollgate.audit SET who = 'nobody' WHERE gateway = 'gate-a' AND seq = 7; DELETE FROM tollgate.audit WHERE gateway = 'gate-b' AND seq = 9")
	found, _, err := l.VerifyAudit(context.Background())
	if err != nil || len(found) != 2 {
		t.Errorf("an altered and a missing entry: got %+v, %v", found, err)
	}
}
