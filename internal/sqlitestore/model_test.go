package sqlitestore_test

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"tollgate/internal/ledger"
	"tollgate/internal/sqlitestore"
	"tollgate/internal/usage"
)

// pair does everything to the store and to the reference, and compares.
type pair struct {
	store *sqlitestore.Store
	book  *ledger.Book
	path  string
}

func drawTime(t *rapid.T, name string) time.Time {
	return noon.Add(time.Duration(rapid.Int64Range(-60, 60).Draw(t, name)) * 55 * time.Minute)
}

func drawLease(t *rapid.T) string { return fmt.Sprint("a", rapid.IntRange(0, 7).Draw(t, "lease")) }

func drawCounts(t *rapid.T) usage.Counts {
	n := rapid.Int64Range(-1, 50)
	return usage.Counts{Prompt: n.Draw(t, "p"), Completion: n.Draw(t, "c"), Cached: n.Draw(t, "cached"), Reasoning: n.Draw(t, "r")}
}

func same(t *rapid.T, what string, got, want any, gotErr, wantErr error) {
	if fmt.Sprint(gotErr) != fmt.Sprint(wantErr) {
		t.Fatalf("%s: got error %v, want %v", what, gotErr, wantErr)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("%s (-book +store):\n%s", what, diff)
	}
}

func (p *pair) begin(t *rapid.T) {
	in := intent(drawLease(t))
	in.StartedAt = drawTime(t, "start")
	in.KeyID = rapid.SampledFrom([]string{"k1", "k2"}).Draw(t, "key")
	in.EndUser = rapid.SampledFrom([]string{"", "u1", "u2"}).Draw(t, "end user")
	in.Model = rapid.SampledFrom([]string{"m1", "m2"}).Draw(t, "model")
	same(t, "Begin", nil, nil, p.store.Begin(context.Background(), in), p.book.Begin(context.Background(), in))
}

func (p *pair) checkpoint(t *rapid.T) {
	batch := []ledger.Checkpoint{
		{LeaseID: drawLease(t), Counts: drawCounts(t)}, {LeaseID: drawLease(t), Counts: drawCounts(t)},
	}
	same(t, "Checkpoint", nil, nil, p.store.Checkpoint(context.Background(), batch), p.book.Checkpoint(context.Background(), batch))
}

func (p *pair) settle(t *rapid.T) {
	s := ledger.Settlement{
		LeaseID: drawLease(t), Status: rapid.SampledFrom([]int{0, 200}).Draw(t, "status"), EndedAt: drawTime(t, "end"),
		Reason:  rapid.SampledFrom(ledger.EndReasons()).Draw(t, "reason"),
		Quality: rapid.SampledFrom([]ledger.Quality{ledger.Exact, ledger.Partial, ledger.Estimated}).Draw(t, "quality"),
		Counts:  drawCounts(t), Engine: rapid.SampledFrom([]string{"", "e2"}).Draw(t, "engine"),
	}
	got, gotDelta, gotErr := p.store.Settle(context.Background(), s)
	want, wantDelta, wantErr := p.book.Settle(context.Background(), s)
	same(t, "Settle", got, want, gotErr, wantErr)
	same(t, "delta", gotDelta, wantDelta, nil, nil)
}

func (p *pair) recover(t *rapid.T) {
	at := drawTime(t, "at")
	open, openErr := p.store.Open(context.Background())
	wantOpen, wantErr := p.book.Open(context.Background())
	same(t, "Open", open, wantOpen, openErr, wantErr)
	var leases []string
	for _, r := range open {
		if rapid.Bool().Draw(t, "recover "+r.LeaseID) {
			leases = append(leases, r.LeaseID)
		}
	}
	got, gotErr := p.store.Recover(context.Background(), leases, ledger.GatewayCrash, at)
	want, wantErr := p.book.Recover(context.Background(), leases, ledger.GatewayCrash, at)
	same(t, "Recover", got, want, gotErr, wantErr)
}

func (p *pair) reopen(t *rapid.T) {
	if err := p.store.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := sqlitestore.Open(context.Background(), sqlitestore.Options{Path: p.path})
	if err != nil {
		t.Fatal(err)
	}
	p.store = s
}

func (p *pair) report(t *rapid.T) {
	ctx := context.Background()
	var since, until time.Time
	if rapid.Bool().Draw(t, "since?") {
		since = drawTime(t, "since")
	}
	if rapid.Bool().Draw(t, "until?") {
		until = drawTime(t, "until")
	}
	q := ledger.Query{By: rapid.SampledFrom(ledger.Groupings()).Draw(t, "by"), Since: since, Until: until}
	q.KeyID, q.Model = rapid.SampledFrom([]string{"", "k1"}).Draw(t, "of key"), rapid.SampledFrom([]string{"", "m2"}).Draw(t, "of model")
	got, gotErr := p.store.Usage(ctx, q)
	want, wantErr := p.book.Usage(ctx, q)
	same(t, "Usage", got, want, gotErr, wantErr)
	used, usedErr := p.store.Used(ctx, "k1", since, until)
	wantUsed, wantErr := p.book.Used(ctx, "k1", since, until)
	same(t, "Used", used, wantUsed, usedErr, wantErr)
	seconds, secondsErr := p.store.Minute(ctx, since)
	wantSeconds, wantErr := p.book.Minute(ctx, since)
	same(t, "Minute", seconds, wantSeconds, secondsErr, wantErr)
}

// check holds after every step: equal rows, sound invariants.
func (p *pair) check(t *rapid.T) {
	for i := range 8 {
		lease := fmt.Sprint("a", i)
		got, gotErr := p.store.Get(context.Background(), lease)
		want, wantErr := p.book.Get(context.Background(), lease)
		same(t, "Get "+lease, got, want, gotErr, wantErr)
	}
	if found, err := p.store.Verify(context.Background()); err != nil || len(found) > 0 {
		t.Fatalf("Verify: %+v, %v", found, err)
	}
}

func TestStoreAnswersLikeTheBook(t *testing.T) {
	fewerChecks(t)
	dir, n := t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		p := &pair{book: ledger.NewBook(), path: filepath.Join(dir, fmt.Sprint(n), "ledger.db")}
		s, err := sqlitestore.Open(context.Background(), sqlitestore.Options{Path: p.path})
		if err != nil {
			t.Fatal(err)
		}
		p.store = s
		defer func() { p.store.Close() }()
		t.Repeat(map[string]func(*rapid.T){
			"begin": p.begin, "begin too": p.begin, "checkpoint": p.checkpoint, "settle": p.settle, "settle too": p.settle,
			"recover": p.recover, "reopen": p.reopen, "report": p.report, "": p.check,
		})
	})
}

// fewerChecks divides what -rapid.checks says by thin. Checks must not be left
// out one by one: rapid calls the same one again to see that it fails.
func fewerChecks(t *testing.T) {
	t.Helper()
	checks := flag.Lookup("rapid.checks")
	before := checks.Value.String()
	n, err := strconv.Atoi(before)
	if err != nil {
		t.Fatal(err)
	}
	if err := flag.Set(checks.Name, strconv.Itoa(max(1, n/thin))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = flag.Set(checks.Name, before) })
}
