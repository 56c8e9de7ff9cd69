package central_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/central"
	"tollgate/internal/ledger"
	"tollgate/internal/pgtest"
)

func position(change int64) central.Position {
	return central.Position{Ledger: "l1", Name: "gate-1", Change: change}
}

func TestRowsAndRollups(t *testing.T) {
	pg := pgtest.Shared(t)
	for _, c := range []struct {
		name string
		run  func(*testing.T, *pgtest.Server, *central.Ledger)
	}{
		{"every column is stored", storesColumns},
		{"a batch may be sent again", sendsAgain},
		{"a later change replaces, an earlier one does not", replaces},
		{"a worse quality replaces nothing", keepsQuality},
		{"two senders of the same rows move the rollups once", sendersAtOnce},
		{"what PostgreSQL cannot hold stops nothing", storesNonsense},
		{"retention drops days and keeps sums", retains},
		{"gateways start on an empty database at once", startsAtOnce},
		{"a newer database is refused", refusesNewer},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := dial(t, pg.DatabaseFile())
			c.run(t, pg, l)
		})
	}
}

func put(t *testing.T, l *central.Ledger, rows ...ledger.Record) {
	t.Helper()
	if err := l.Put(context.Background(), rows, position(rows[len(rows)-1].Change)); err != nil {
		t.Fatal(err)
	}
}

// sums are the requests and tokens of the rollups of everything.
func sums(t *testing.T, l *central.Ledger) [3]int64 {
	t.Helper()
	groups, err := l.Usage(context.Background(), ledger.Query{By: ledger.ByKey})
	if err != nil {
		t.Fatal(err)
	}
	g := ledger.Total(groups)
	return [3]int64{g.Requests, g.PromptTokens, g.CompletionTokens}
}

func wantSums(t *testing.T, l *central.Ledger, what string, want ...int64) {
	t.Helper()
	if got := sums(t, l); got != [3]int64(want) {
		t.Errorf("%s: rollups are %v, want %v", what, got, want)
	}
	wantSound(t, l)
}

func storesColumns(t *testing.T, _ *pgtest.Server, l *central.Ledger) {
	t.Helper()
	whole := settled("whole", 7, ledger.Exact, 10, 5)
	whole.Meter, whole.Counts.Cached = "envoy-1", 3
	bare := ledger.Record{
		Intent: ledger.Intent{LeaseID: "bare", StartedAt: noon.Add(time.Microsecond)}, Reason: ledger.Refused,
		Quality: ledger.Exact, EndedAt: noon.Add(time.Second), Counts: whole.Counts, Change: 8,
	}
	put(t, l, whole, bare)
	if found, err := l.Compare(t.Context(), []ledger.Record{whole, bare}); err != nil || len(found) > 0 {
		t.Fatalf("compare: %+v, %v", found, err)
	}
	for _, want := range []ledger.Record{whole, bare} {
		got, err := l.Get(t.Context(), want.LeaseID)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-sent +stored):\n%s", want.LeaseID, diff)
		}
	}
	whole.Counts.Completion++
	if found, err := l.Compare(t.Context(), []ledger.Record{whole}); err != nil || len(found) != 1 || found[0].LeaseID != "whole" {
		t.Errorf("another count: got %+v, %v", found, err)
	}
	if found, err := l.Compare(t.Context(), []ledger.Record{settled("missing", 9, ledger.Exact, 1, 1)}); err != nil || len(found) != 1 {
		t.Errorf("a missing row: got %+v, %v", found, err)
	}
}

func sendsAgain(t *testing.T, _ *pgtest.Server, l *central.Ledger) {
	t.Helper()
	var rows []ledger.Record
	for i := range 1000 {
		r := settled(fmt.Sprint("a", i), int64(i+1), ledger.Exact, 10, int64(i))
		r.StartedAt = r.StartedAt.Add(time.Duration(i) * time.Hour)
		r.KeyID = fmt.Sprint("key-", i%7)
		rows = append(rows, r)
	}
	put(t, l, rows...)
	put(t, l, rows...)
	put(t, l, rows[500:]...)
	wantSums(t, l, "after three batches", 1000, 10_000, 499_500)
}

func replaces(t *testing.T, _ *pgtest.Server, l *central.Ledger) {
	t.Helper()
	put(t, l, settled("a", 5, ledger.Partial, 10, 5), settled("b", 6, ledger.Partial, 1, 1))
	put(t, l, settled("a", 9, ledger.Exact, 12, 3))
	wantSums(t, l, "corrected up and down", 2, 13, 4)
	put(t, l, settled("a", 5, ledger.Exact, 99, 99))
	put(t, l, settled("a", 9, ledger.Exact, 99, 99))
	wantSums(t, l, "sent late", 2, 13, 4)
	put(t, l, settled("a", 12, ledger.Exact, 12, 8))
	wantSums(t, l, "corrected again", 2, 13, 9)
	put(t, l, settled("a", 12, ledger.Exact, 12, 8))
	wantSums(t, l, "sent again", 2, 13, 9)
}

func keepsQuality(t *testing.T, _ *pgtest.Server, l *central.Ledger) {
	t.Helper()
	put(t, l, settled("a", 5, ledger.Exact, 10, 5))
	put(t, l, settled("a", 9, ledger.Partial, 10, 1)) // a power cut has taken the settlement from the gateway
	wantSums(t, l, "after a crash", 1, 10, 5)
}

func sendersAtOnce(t *testing.T, _ *pgtest.Server, l *central.Ledger) {
	t.Helper()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 20 {
				var rows []ledger.Record
				for j := range 50 {
					r := settled(fmt.Sprint("a", j), int64(i+1), ledger.Partial, 10, int64(i))
					r.KeyID = fmt.Sprint("key-", (j*(w+1))%50) // every sender in another order
					rows = append(rows, r)
				}
				if w%2 == 0 { // rows in another order too
					for a, b := 0, len(rows)-1; a < b; a, b = a+1, b-1 {
						rows[a], rows[b] = rows[b], rows[a]
					}
				}
				for {
					err := l.Put(context.Background(), rows, position(int64(i+1)))
					if err == nil {
						break
					}
					if !errors.Is(err, central.ErrUnavailable) { // a deadlock is tried again, as the shipper does
						t.Errorf("put: %v", err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	wantSums(t, l, "after eight senders", 50, 500, 50*19)
}

func storesNonsense(t *testing.T, _ *pgtest.Server, l *central.Ledger) {
	t.Helper()
	r := settled("a", 1, ledger.Exact, 1, 2)
	r.User, r.Model, r.EndUser = "nul\x00", "\xff\xfe", `"'; DROP TABLE x; --\`
	old := settled("old", 2, ledger.Exact, 1, 2)
	old.StartedAt = time.Unix(0, 0).UTC() // a clock that was never set
	far := settled("far", 3, ledger.Exact, 1, 2)
	far.StartedAt = time.Date(2999, 12, 31, 23, 59, 59, 0, time.UTC)
	put(t, l, r, old, far)
	wantSums(t, l, "nonsense", 3, 3, 6)
}

func retains(t *testing.T, pg *pgtest.Server, l *central.Ledger) {
	t.Helper()
	day := func(n int) time.Time { return noon.AddDate(0, 0, n) }
	var rows []ledger.Record
	for i := range 10 {
		r := settled(fmt.Sprint("a", i), int64(i+1), ledger.Exact, 10, 5)
		r.StartedAt = day(i)
		rows = append(rows, r)
	}
	put(t, l, rows...)
	if n, err := l.Retain(t.Context(), day(4)); n != 4 || err != nil { // noon of the fifth day: four whole days are older
		t.Errorf("retain: got %d, %v, want 4", n, err)
	}
	if n, err := l.Retain(t.Context(), day(4)); n != 0 || err != nil {
		t.Errorf("again: got %d, %v, want 0", n, err)
	}
	wantSums(t, l, "after retention", 10, 100, 50)
	// What was dropped does not come back as new, neither as a copy nor corrected.
	late := settled("a0", 99, ledger.Exact, 10, 500)
	late.StartedAt = day(0)
	put(t, l, append([]ledger.Record{late}, rows...)...)
	wantSums(t, l, "after an old batch", 10, 100, 50)
	if found, err := l.Compare(t.Context(), rows); err != nil || len(found) > 0 {
		t.Errorf("compare: %+v, %v", found, err)
	}
	// Another gateway drops days that this one has just used.
	other := dial(t, pg.DatabaseFile())
	put(t, other, rows[0])
	if n, err := l.Retain(t.Context(), day(20)); n != 6 || err != nil {
		t.Errorf("retain: got %d, %v, want 6", n, err)
	}
	next := settled("next", 100, ledger.Exact, 1, 1)
	next.StartedAt = day(20)
	put(t, l, next, rows[9])
	wantSums(t, l, "after all was dropped", 11, 101, 51)
}

func startsAtOnce(t *testing.T, pg *pgtest.Server, _ *central.Ledger) {
	t.Helper()
	file := pg.DatabaseFile()
	var wg sync.WaitGroup
	for i := range 12 {
		l := dial(t, file)
		wg.Go(func() {
			r := settled(fmt.Sprint("a", i), 1, ledger.Exact, 10, 5)
			if err := l.Put(context.Background(), []ledger.Record{r}, central.Position{Ledger: fmt.Sprint(i), Name: "g", Change: 1}); err != nil {
				t.Errorf("put: %v", err)
			}
		})
	}
	wg.Wait()
	l := dial(t, file)
	wantSums(t, l, "all", 12, 120, 60)
	if all, err := l.Gateways(t.Context()); err != nil || len(all) != 12 {
		t.Errorf("gateways: got %d, %v, want 12", len(all), err)
	}
}

func refusesNewer(t *testing.T, pg *pgtest.Server, _ *central.Ledger) {
	t.Helper()
	file := pg.DatabaseFile()
	first := dial(t, file)
	put(t, first, settled("a", 1, ledger.Exact, 1, 1))
	pg.ExecFile(file, "UPDATE tollgate.schema_version SET version = 999")
	err := dial(t, file).Put(t.Context(), []ledger.Record{settled("b", 2, ledger.Exact, 1, 1)}, position(2))
	if !errors.Is(err, central.ErrSchema) {
		t.Errorf("got %v, want ErrSchema", err)
	}
}
