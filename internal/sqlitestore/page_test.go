package sqlitestore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"tollgate/internal/ledger"
	"tollgate/internal/sqlitestore"
)

// The pages of any size, put together, are the selected rows, newest first, each
// once, also while new rows come.
func TestPagesAreTheRowsNewestFirst(t *testing.T) { //nolint:gocyclo // one story, told in order
	s := open(t, sqlitestore.Options{Path: filepath.Join(t.TempDir(), "ledger.db")})
	ctx := context.Background()
	var all []ledger.Record
	for i := range 300 {
		in := intent(fmt.Sprintf("%032x", rand.Uint64()))
		in.KeyID, in.Model = []string{"ann", "bob"}[i%2], []string{"m", "n", "o"}[i%3]
		in.RequestID = fmt.Sprintf("request-%d", i)
		in.StartedAt = noon.Add(time.Duration(i/3) * 20 * time.Minute) // three start at once; over five days
		if err := s.Begin(ctx, in); err != nil {
			t.Fatal(err)
		}
		if i%4 != 0 {
			end := complete(in.LeaseID, 3, 4)
			end.EndedAt, end.FirstByteAt = in.StartedAt.Add(time.Second), in.StartedAt.Add(time.Second)
			if _, _, err := s.Settle(ctx, end); err != nil {
				t.Fatal(err)
			}
		}
		rec, err := s.Get(ctx, in.LeaseID)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rec)
	}
	slices.SortFunc(all, func(a, b ledger.Record) int {
		return -slices.Compare([]string{a.StartedAt.Format(time.RFC3339Nano), a.LeaseID}, []string{b.StartedAt.Format(time.RFC3339Nano), b.LeaseID})
	})
	for name, p := range map[string]ledger.Page{
		"all":          {},
		"a key":        {Filter: ledger.Filter{KeyID: "ann"}},
		"a key's days": {Filter: ledger.Filter{KeyID: "bob", Since: noon.Add(10 * time.Hour), Until: noon.Add(31 * time.Hour)}},
		"a time":       {Filter: ledger.Filter{Since: noon.Add(time.Hour), Until: noon.Add(20 * time.Hour)}},
		"open":         {Filter: ledger.Filter{Open: true}},
		"a model":      {Model: "o"},
		"an end":       {Reason: ledger.Complete},
		"a request":    {RequestID: "request-77"},
		"nobody":       {Filter: ledger.Filter{KeyID: "eve"}},
	} {
		var want []string
		for _, r := range all {
			if p.Selects(&r) {
				want = append(want, r.LeaseID)
			}
		}
		for _, limit := range []int{1, 7, 1000} {
			p.Limit, p.After = limit, ""
			var got []string
			for {
				rows, next, err := s.Newest(ctx, p)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				for _, r := range rows {
					got = append(got, r.LeaseID)
				}
				if next == "" {
					break
				}
				if len(rows) != limit {
					t.Fatalf("%s: a page of %d rows with a next one, want %d", name, len(rows), limit)
				}
				p.After = next
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s, pages of %d: %d rows, want %d", name, limit, len(got), len(want))
			}
		}
	}
	for _, p := range []ledger.Page{{}, {Limit: 1001}, {Limit: 1, After: "x"}, {Limit: 1, Reason: "none"}} {
		if _, _, err := s.Newest(ctx, p); !errors.Is(err, ledger.ErrQuery) {
			t.Errorf("%+v: %v, want an invalid query", p, err)
		}
	}
}
