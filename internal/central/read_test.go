package central_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"tollgate/internal/central"
	"tollgate/internal/ledger"
	"tollgate/internal/pgtest"
)

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestUsageIsThatOfTheReference asks the central ledger and the ledger in memory
// the same questions about the same rows.
func TestUsageIsThatOfTheReference(t *testing.T) {
	l, book := dial(t, pgtest.Shared(t).DatabaseFile()), ledger.NewBook()
	ctx := context.Background()
	var rows []ledger.Record
	for i := range 400 {
		in := intent(fmt.Sprint("a", i))
		in.KeyID, in.User, in.Model = fmt.Sprint("k", i%3), fmt.Sprint("u", i%2), fmt.Sprint("m", i%5)
		in.EndUser, in.RequestedModel = []string{"", "é", "Z", "a"}[i%4], []string{"", "alias"}[i%2]
		in.StartedAt = noon.Add(time.Duration(i) * 17 * time.Minute)
		if err := book.Begin(ctx, in); err != nil {
			t.Fatal(err)
		}
		r, _, err := book.Settle(ctx, settlement(&in, ledger.Exact, int64(i), 5))
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, r)
	}
	put(t, l, rows...)
	rapid.Check(t, func(t *rapid.T) {
		when := func(name string) time.Time {
			if rapid.Bool().Draw(t, name+"?") {
				return noon.Add(time.Duration(rapid.IntRange(-4, 20).Draw(t, name)) * 6 * time.Hour).Add(time.Duration(rapid.IntRange(0, 1500).Draw(t, "ns")))
			}
			return time.Time{}
		}
		q := ledger.Query{By: rapid.SampledFrom(ledger.Groupings()).Draw(t, "by"), Since: when("since"), Until: when("until")}
		if rapid.Bool().Draw(t, "then?") {
			q.Then = rapid.SampledFrom(ledger.Groupings()).Draw(t, "then")
		}
		q.KeyID = rapid.SampledFrom([]string{"", "k1"}).Draw(t, "key")
		q.User = rapid.SampledFrom([]string{"", "u1"}).Draw(t, "user")
		q.Model = rapid.SampledFrom([]string{"", "m2"}).Draw(t, "model")
		got, gotErr := l.Usage(ctx, q)
		want, wantErr := book.Usage(ctx, q)
		if (gotErr == nil) != (wantErr == nil) {
			t.Fatalf("%+v: got %v, want %v", q, gotErr, wantErr)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("%+v (-want +got):\n%s", q, diff)
		}
		used, change, err := l.Used(ctx, "k1", q.Since, q.Until, "l1")
		wantUsed, _ := book.Used(ctx, "k1", q.Since, q.Until)
		if err != nil || used != wantUsed || change != 400 {
			t.Fatalf("used: got %d up to %d, %v, want %d up to 400", used, change, err, wantUsed)
		}
	})
}

// TestRollupsAnswerForManyRows makes rows inside PostgreSQL and asks for their
// sums by day and model, and asks again when the rows are gone: whole days are
// answered without reading one of them. The long form goes on to the sums of
// 100,000,000 rows, which are added up without being stored.
func TestRollupsAnswerForManyRows(t *testing.T) {
	pg := pgtest.Shared(t)
	file := pg.DatabaseFile()
	l := dial(t, file)
	put(t, l, settled("first", 1, ledger.Exact, 0, 0))
	days, perDay := 10, 1_000
	if os.Getenv("PROOF") == "1" {
		days, perDay = 100, 50_000
	}
	generate(t, pg, l, file, days, perDay)
	rows := days * perDay
	ask := func() {
		t.Helper()
		for _, by := range []ledger.By{ledger.ByDay, ledger.ByModel} {
			began := time.Now()
			first := noon.Truncate(24 * time.Hour)
			groups, err := l.Usage(t.Context(), ledger.Query{By: by, Since: first, Until: first.AddDate(0, 0, days)})
			if err != nil {
				t.Fatal(err)
			}
			if total := ledger.Total(groups); total.Requests != int64(rows)+1 || total.PromptTokens != int64(rows)*7 {
				t.Errorf("by %s: got %+v, want %d requests", by, total, rows+1)
			}
			t.Logf("%d rows by %s: %v", rows, by, time.Since(began))
		}
	}
	ask()
	pg.ExecFile(file, "TRUNCATE tollgate.requests")
	ask()
	if os.Getenv("PROOF") == "1" {
		for d := range days {
			fold(t, pg, file, noon.AddDate(0, 0, d), 1_000_000-perDay)
		}
		rows = days * 1_000_000
		ask()
	}
}

// fold adds a day's rows to the sums: of 1,000 keys, each with five models.
func fold(t *testing.T, pg *pgtest.Server, file string, day time.Time, rows int) {
	t.Helper()
	pg.ExecFile(file, fmt.Sprintf(`INSERT INTO tollgate.rollups AS r (key_id, day, "user", model, requests, prompt_tokens, completion_tokens)
		SELECT 'many-' || i %% 1000, '%[1]s'::date, 'user-' || i %% 1000 / 10, 'model-' || i / 1000 %% 5, count(*), 7 * count(*), 11 * count(*)
		FROM generate_series(1, %[2]d) i GROUP BY 1, 3, 4`, day.Format(time.DateOnly), rows))
}

// generate makes rows and their rollups, day by day.
func generate(t *testing.T, pg *pgtest.Server, l *central.Ledger, file string, days, perDay int) {
	t.Helper()
	for d := range days {
		day := noon.AddDate(0, 0, d)
		r := settled(fmt.Sprint("day-", d), 1, ledger.Exact, 0, 0)
		r.StartedAt = day
		if err := l.MakeDays(context.Background(), []ledger.Record{r}); err != nil {
			t.Fatal(err)
		}
		pg.ExecFile(file, fmt.Sprintf(`WITH made AS (
			INSERT INTO tollgate.requests (lease_id, request_id, key_id, "user", model, endpoint, engine, stream, n, prompts, status, started_at,
				ended_at, end_reason, quality, prompt_tokens, completion_tokens, reserved_tokens, client_addr, requested_model, meter, change, gateway, end_user, secret)
			SELECT 'gen-%[1]d-' || i, 'r', 'key-' || i %% 100, 'user', 'model-' || i %% 20, '/v1/completions', 'e', true, 1, 1, 200,
				'%[2]s'::timestamptz + i * interval '1 millisecond', '%[2]s', 'complete', 'exact', 7, 11, 0, '', '', '', i, 'gate', '', ''
			FROM generate_series(1, %[3]d) i RETURNING key_id, started_at, "user", model, prompt_tokens, completion_tokens
		) INSERT INTO tollgate.rollups SELECT key_id, (started_at AT TIME ZONE 'UTC')::date, "user", model, count(*), sum(prompt_tokens), sum(completion_tokens)
			FROM made GROUP BY 1, 2, 3, 4`, d, day.Truncate(24*time.Hour).Format(time.RFC3339), perDay))
	}
}
