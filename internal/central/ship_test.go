package central_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"tollgate/internal/central"
	"tollgate/internal/ledger"
	"tollgate/internal/pgtest"
	"tollgate/internal/sqlitestore"
)

func TestShipping(t *testing.T) {
	pg := pgtest.Shared(t)
	for _, c := range []struct {
		name string
		run  func(*testing.T, *pgtest.Server, string)
	}{
		{"a long request arrives behind those that began after it", shipsLate},
		{"rows of an older program are shipped too", shipsOld},
		{"nothing waits while PostgreSQL is away, and the lag is told", queues},
		{"a database put back from a backup is filled again", refills},
		{"a ledger put back from a backup goes on above its old numbers", goesOn},
		{"two gateways with one database", shipsTwo},
		{"steady load shares statements", shipsSteadily},
		{"what was settled last is shipped at the end", shipsLast},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, pg, pg.DatabaseFile()) })
	}
}

// arrived waits until the central ledger has so many requests.
func arrived(t *testing.T, l *central.Ledger, requests int64) {
	t.Helper()
	eventually(t, 20*time.Second, fmt.Sprint(requests, " requests"), func() bool {
		groups, err := l.Usage(context.Background(), ledger.Query{By: ledger.ByKey})
		return err == nil && ledger.Total(groups).Requests == requests
	})
}

// wantSame fails with what the central ledger does not have of a gateway's.
func wantSame(t *testing.T, l *central.Ledger, s *sqlitestore.Store) {
	t.Helper()
	var last int64
	for {
		rows, err := s.Changes(context.Background(), last, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) == 0 {
			return
		}
		last = rows[len(rows)-1].Change
		found, err := l.Compare(context.Background(), rows)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range found {
			t.Errorf("central ledger: %+v", v)
		}
	}
}

// gauge is the value of one of the outbox's metrics.
func gauge(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	return metric(t, reg, name).GetGauge().GetValue()
}

// metric is the only one of its name.
func metric(t *testing.T, reg *prometheus.Registry, name string) *dto.Metric {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0]
		}
	}
	t.Fatalf("no metric %s", name)
	return nil
}

func shipsLate(t *testing.T, _ *pgtest.Server, file string) {
	t.Helper()
	l, s := dial(t, file), open(t, filepath.Join(t.TempDir(), "gate-1"))
	long := intent("long")
	long.StartedAt = noon.Add(-10 * time.Minute)
	if err := s.Begin(t.Context(), long); err != nil {
		t.Fatal(err)
	}
	ship(t, l, s, "gate-1", prometheus.NewRegistry())
	later := 3000
	if os.Getenv("PROOF") == "1" {
		later = 100_000
	}
	for i := range later {
		in := intent(fmt.Sprint("a", i))
		in.StartedAt = noon.Add(time.Duration(i) * time.Millisecond)
		use(t, s, in, 10, 5)
	}
	arrived(t, l, int64(later))
	if _, _, err := s.Settle(t.Context(), settlement(&long, ledger.Partial, 7, 70)); err != nil {
		t.Fatal(err)
	}
	arrived(t, l, int64(later)+1)
	// A witness that comes late corrects what is shipped.
	if _, _, err := s.Settle(t.Context(), settlement(&long, ledger.Exact, 7, 77)); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the correction", func() bool {
		r, err := l.Get(context.Background(), "long")
		return err == nil && r.Counts.Completion == 77
	})
	wantSame(t, l, s)
	wantSums(t, l, "all", int64(later)+1, int64(later)*10+7, int64(later)*5+77)
}

// shipsSteadily settles a row every 10 ms. With a statement for each of them a
// short answer would cost half as much again.
func shipsSteadily(t *testing.T, _ *pgtest.Server, file string) {
	t.Helper()
	l, s, reg := dial(t, file), open(t, filepath.Join(t.TempDir(), "gate-1")), prometheus.NewRegistry()
	ship(t, l, s, "gate-1", reg)
	began := time.Now()
	const rows = 200
	for i := range rows {
		use(t, s, intent(fmt.Sprint("a", i)), 10, 5)
		time.Sleep(10 * time.Millisecond)
	}
	arrived(t, l, rows)
	most := 3 + int(time.Since(began)/time.Second)
	if n := statements(t, reg); n > most {
		t.Errorf("%d statements for %d rows in %v, want %d at most", n, rows, time.Since(began), most)
	}
	wantSums(t, l, "all", rows, rows*10, rows*5)
}

func shipsLast(t *testing.T, _ *pgtest.Server, file string) {
	t.Helper()
	l, s := dial(t, file), open(t, filepath.Join(t.TempDir(), "gate-1"))
	stop := ship(t, l, s, "gate-1", prometheus.NewRegistry())
	use(t, s, intent("first"), 10, 5)
	arrived(t, l, 1)
	for i := range 1500 { // more than one batch, within the second after the first
		use(t, s, intent(fmt.Sprint("a", i)), 10, 5)
	}
	stop()
	wantSums(t, l, "all", 1501, 15010, 7505)
	wantSame(t, l, s)
}

// statements is how many batches of rows were sent.
func statements(t *testing.T, reg *prometheus.Registry) int {
	t.Helper()
	return int(metric(t, reg, "central_ship_seconds").GetHistogram().GetSampleCount())
}

func shipsOld(t *testing.T, _ *pgtest.Server, file string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "old.db")
	copyFile(t, "../sqlitestore/testdata/schema2.db", path)
	l, s := dial(t, file), open(t, path)
	ship(t, l, s, "gate-1", prometheus.NewRegistry())
	arrived(t, l, 30)
	use(t, s, intent("new"), 1, 1)
	arrived(t, l, 31)
	wantSame(t, l, s)
}

func queues(t *testing.T, _ *pgtest.Server, _ string) {
	t.Helper()
	pg := pgtest.Start(t) // one of its own, to be killed
	l, s, reg := dial(t, pg.DatabaseFile()), open(t, filepath.Join(t.TempDir(), "gate-1")), prometheus.NewRegistry()
	ship(t, l, s, "gate-1", reg)
	now := time.Now()
	at := func(lease string) ledger.Intent {
		in := intent(lease)
		in.StartedAt = now.Add(-time.Minute) // settled two seconds after
		return in
	}
	use(t, s, at("a"), 10, 5)
	arrived(t, l, 1)
	eventually(t, 10*time.Second, "an empty outbox", func() bool { return gauge(t, reg, "outbox_rows") == 0 })
	if got := gauge(t, reg, "outbox_oldest_seconds"); got != 0 {
		t.Errorf("age of nothing: got %v", got)
	}
	pg.Kill()
	slowest := time.Duration(0)
	for i := range 500 {
		began := time.Now()
		use(t, s, at(fmt.Sprint("b", i)), 10, 5)
		slowest = max(slowest, time.Since(began))
	}
	if slowest > 2*time.Second {
		t.Errorf("a request took %v while PostgreSQL was away", slowest)
	}
	eventually(t, 10*time.Second, "500 rows in the outbox", func() bool {
		return gauge(t, reg, "outbox_rows") == 500 && gauge(t, reg, "central_up") == 0
	})
	if got := gauge(t, reg, "outbox_oldest_seconds"); got < 58 || got > 58+time.Since(now).Seconds() {
		t.Errorf("age of the oldest row: got %v, want 58 s and what has passed since", got)
	}
	if n, err := s.Retain(context.Background(), now, 0); n != 1 || err != nil {
		t.Errorf("retention: got %d, %v, want the one row that was shipped", n, err)
	}
	pg.Start()
	arrived(t, l, 501)
	eventually(t, 10*time.Second, "an empty outbox", func() bool {
		return gauge(t, reg, "outbox_rows") == 0 && gauge(t, reg, "outbox_oldest_seconds") == 0 && gauge(t, reg, "central_up") == 1
	})
	wantSame(t, l, s)
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
}

func refills(t *testing.T, pg *pgtest.Server, file string) {
	t.Helper()
	l, s := dial(t, file), open(t, filepath.Join(t.TempDir(), "gate-1"))
	stop := ship(t, l, s, "gate-1", prometheus.NewRegistry())
	for i := range 200 {
		use(t, s, intent(fmt.Sprint("a", i)), 10, 5)
	}
	arrived(t, l, 200)
	stop()
	// As a backup from before the last hundred would be.
	pg.ExecFile(file, `UPDATE tollgate.gateways SET last_change = 100; UPDATE tollgate.rollups SET requests = 100,
		prompt_tokens = 1000, completion_tokens = 500; DELETE FROM tollgate.requests WHERE change > 100`)
	ship(t, l, s, "gate-1", prometheus.NewRegistry())
	arrived(t, l, 200)
	wantSame(t, l, s)
	wantSums(t, l, "all", 200, 2000, 1000)
}

func goesOn(t *testing.T, _ *pgtest.Server, file string) {
	t.Helper()
	dir := t.TempDir()
	l, s := dial(t, file), open(t, filepath.Join(dir, "gate-1"))
	stop := ship(t, l, s, "gate-1", prometheus.NewRegistry())
	for i := range 50 {
		use(t, s, intent(fmt.Sprint("a", i)), 10, 5)
	}
	arrived(t, l, 50)
	if err := sqlitestore.Backup(context.Background(), filepath.Join(dir, "gate-1"), filepath.Join(dir, "copy")); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		use(t, s, intent(fmt.Sprint("b", i)), 10, 5)
	}
	arrived(t, l, 100)
	stop()
	copied := open(t, filepath.Join(dir, "copy"))
	use(t, copied, intent("before"), 10, 5) // has a number that is known already
	ship(t, l, copied, "gate-1", prometheus.NewRegistry())
	arrived(t, l, 101)
	use(t, copied, intent("after"), 10, 5)
	arrived(t, l, 102)
	if r, err := copied.Get(context.Background(), "after"); err != nil || r.Change <= 100 {
		t.Errorf("got change %d, %v, want one above 100", r.Change, err)
	}
	wantSame(t, l, copied)
	wantSums(t, l, "all", 102, 1020, 510)
}

func shipsTwo(t *testing.T, _ *pgtest.Server, file string) {
	t.Helper()
	l, dir := dial(t, file), t.TempDir()
	var stores []*sqlitestore.Store
	for _, name := range []string{"gate-a", "gate-b"} {
		s := open(t, filepath.Join(dir, name))
		ship(t, dial(t, file), s, name, prometheus.NewRegistry())
		stores = append(stores, s)
	}
	for i := range 100 {
		in := intent(fmt.Sprint("a", i))
		in.StartedAt = noon.Add(time.Duration(i%2) * 30 * time.Hour) // clocks apart
		use(t, stores[i%2], in, 10, 5)
	}
	arrived(t, l, 100)
	all, err := l.Gateways(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for _, g := range all {
		got[g.Name] = g.Change
	}
	if diff := cmp.Diff(map[string]int64{"gate-a": 50, "gate-b": 50}, got); diff != "" {
		t.Errorf("changes by gateway (-want +got):\n%s", diff)
	}
	eventually(t, 10*time.Second, "no more than a beat of lag", func() bool {
		all, err := l.Gateways(context.Background())
		behind, gone := central.Behind(all)
		return err == nil && behind < 5*time.Second && len(gone) == 0
	})
	wantSums(t, l, "all", 100, 1000, 500)
}
