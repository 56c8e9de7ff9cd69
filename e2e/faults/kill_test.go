package faults_test

import (
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
	"tollgate/internal/sqlitestore"
)

func openLedger(t *testing.T, s *stack.Stack) *sqlitestore.Reader {
	t.Helper()
	r, err := sqlitestore.OpenReadOnly(t.Context(), s.Cfg.LedgerPath())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// checkpoint is what a stream may be ahead of its last checkpoint, in tokens:
// those that cause one, and those that come while it is being written.
const checkpoint = 64 + 16

// TestKilledTollgate: what is acknowledged is recorded. Streams that tollgate meters
// are cut and recorded from their last checkpoint; those that Envoy meters go on.
func TestKilledTollgate(t *testing.T) {
	s := stack.Start(t, stack.Options{})
	l := startLoad(t, s, 16)
	kills := times(5, 200)
	var acked, crashed int
	var gap int64
	var slowest time.Duration
	since := time.Now().Add(-time.Second)
	for range kills {
		time.Sleep(time.Duration(150+rand.IntN(700)) * time.Millisecond)
		before := running(s)
		s.Tollgate.Kill()
		took := restart(t, s)
		slowest = max(slowest, took)
		rows := rowsSince(t, s, since)
		for id, written := range before {
			r, ok := rows[id]
			switch {
			case !ok:
				t.Errorf("request %s was running and has no row", id)
			case s.Module:
				if r.Reason == ledger.GatewayCrash {
					t.Errorf("request %s: %s, although its meter lives", id, r.Reason)
				}
			case r.Reason == ledger.GatewayCrash:
				crashed++
				gap = max(gap, written-r.Counts.Completion)
				if written-r.Counts.Completion > checkpoint {
					t.Errorf("request %s: %d written when tollgate was killed, recorded %d %s", id, written, r.Counts.Completion, r.Quality)
				}
			case r.Open():
				t.Errorf("request %s is open after the restart", id)
			}
		}
		a := l.takeAcked()
		acked += len(a)
		lost(t, a, rowsSince(t, s, since)) // some ended since the last look
		notAbove(t, s, rows)
		since = time.Now().Add(-8 * time.Second)
	}
	if cut := l.cut(); s.Module && cut > 0 {
		t.Errorf("%d streams were cut", cut)
	}
	l.halt()
	stack.Eventually(t, 5*time.Second, "all leases to be back", func() bool { return s.Metric("tollgate_leases_live") == 0 })
	nameless(t, s)
	verify(t, s)
	t.Logf("%d kills: %d acknowledged requests, 0 lost; %d cut by a crash, at most %d tokens below what was written; settled at most %v after the start",
		kills, acked, crashed, gap, slowest.Round(time.Millisecond))
}

// restart starts tollgate and returns how long it took until nothing that was
// open before is open any more, or with the meter inside Envoy until it is ready.
func restart(t *testing.T, s *stack.Stack) time.Duration {
	t.Helper()
	before := time.Now()
	s.Tollgate.Start()
	if s.Module {
		s.Ready()
		return time.Since(before)
	}
	r := openLedger(t, s)
	defer func() { _ = r.Close() }()
	var took time.Duration
	stack.Eventually(t, 10*time.Second, "open requests to be settled", func() bool {
		open := 0
		err := r.Each(t.Context(), ledger.Filter{Since: before.Add(-time.Minute), Until: before}, func(rec ledger.Record) error {
			if rec.Open() {
				open++
			}
			return nil
		})
		took = time.Since(before)
		return err == nil && open == 0
	})
	if took > time.Second {
		t.Errorf("open requests were settled %v after the start, want 1s", took)
	}
	s.Ready()
	return took
}

func TestKilledEnvoy(t *testing.T) {
	s := stack.Start(t, stack.Options{})
	l := startLoad(t, s, 16)
	kills := times(3, 50)
	crashed := 0
	for range kills {
		since := time.Now().Add(-10 * time.Millisecond)
		time.Sleep(time.Duration(300+rand.IntN(500)) * time.Millisecond)
		before := running(s)
		s.Envoy.Kill()
		killed := time.Now()
		var rows map[string]ledger.Record
		stack.Eventually(t, 5*time.Second, "every row to be named", func() bool {
			rows = rowsSince(t, s, since)
			for _, r := range rows {
				if r.Open() || r.Reason == ledger.Aborted {
					return false
				}
			}
			return true
		})
		named := time.Since(killed)
		crashed += envoyCrashes(t, s, before, rows)
		if named > 3*time.Second {
			t.Errorf("rows were named %v after Envoy's death", named)
		}
		lost(t, l.takeAcked(), rowsSince(t, s, since.Add(-10*time.Second)))
		notAbove(t, s, rows)
		// A ticket that Envoy took with it lives for five seconds.
		stack.Eventually(t, 7*time.Second, "all leases to be back", func() bool { return s.Metric("tollgate_leases_live") == 0 })
		s.Envoy.Start()
		s.Ready()
	}
	l.halt()
	if crashed == 0 {
		t.Error("no row is named envoy_crash")
	}
	verify(t, s)
	t.Logf("%d kills: %d rows named envoy_crash", kills, crashed)
}

// envoyCrashes checks the rows of what was running when Envoy died, and counts
// those that are named after it.
func envoyCrashes(t *testing.T, s *stack.Stack, before map[string]int64, rows map[string]ledger.Record) (crashed int) {
	t.Helper()
	for id, written := range before {
		r, ok := rows[id]
		switch {
		case !ok: // it began before the rows do
		case r.Reason == ledger.EnvoyCrash:
			crashed++
			want := ledger.Exact // tollgate has seen the end of the stream
			if s.Module {
				want = ledger.Partial // the last beat of the meter
			}
			if r.Quality != want && written > 0 && r.Counts.Completion > 0 {
				t.Errorf("request %s: %s %s", id, r.Reason, r.Quality)
			}
		case r.Reason != ledger.Complete && r.Reason != ledger.ClientAbort:
			t.Errorf("request %s: %s %s when Envoy died", id, r.Reason, r.Quality)
		}
	}
	return crashed
}

func TestStoppedTollgate(t *testing.T) {
	s := stack.Start(t, stack.Options{})
	l := startLoad(t, s, 8)
	time.Sleep(300 * time.Millisecond)
	s.Tollgate.Signal(19)
	time.Sleep(200 * time.Millisecond)
	began := time.Now()
	a := s.Post(path, jobs[0])
	if a.StatusCode != http.StatusServiceUnavailable || a.ErrorCode() != "service_unavailable" || time.Since(began) > 2500*time.Millisecond {
		t.Errorf("a hung tollgate: %d %s after %v, want 503 service_unavailable", a.StatusCode, a.Bytes, time.Since(began))
	}
	time.Sleep(3*time.Second - time.Since(began))
	s.Tollgate.Signal(18)
	s.Ready()
	time.Sleep(300 * time.Millisecond)
	l.halt()
	stack.Eventually(t, 6*time.Second, "all leases to be back", func() bool { return s.Metric("tollgate_leases_live") == 0 })
	nameless(t, s)
	rows := rowsSince(t, s, time.Time{})
	lost(t, l.takeAcked(), rows)
	notAbove(t, s, rows)
	verify(t, s)
	t.Logf("3 s without tollgate: answers by status %v, rows %s", l.codes, describe(rows))
}
