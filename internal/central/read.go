package central

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"tollgate/internal/ledger"
)

// Usage reports usage of settled requests by q, ordered by the name of the
// group, as the gateways' own ledgers do.
func (l *Ledger) Usage(ctx context.Context, q ledger.Query) ([]ledger.Group, error) {
	if err := q.Validate(); err != nil {
		return nil, fmt.Errorf("report usage: %w", err)
	}
	if err := l.migrate(ctx); err != nil {
		return nil, err
	}
	s := &selection{}
	for _, c := range []struct{ column, value string }{{"key_id", q.KeyID}, {`"user"`, q.User}, {"model", q.Model}} {
		if c.value != "" {
			s.only += " AND " + c.column + " = " + s.arg(c.value)
		}
	}
	if q.By.RolledUp() && q.Then.RolledUp() {
		s.pieces(q.Since, q.Until)
	} else {
		s.rows(ledger.Span{From: q.Since, To: q.Until})
	}
	by, then := groupColumns[q.By], groupColumns[q.Then]
	rows, err := l.pool.Query(ctx, "SELECT "+by+", "+then+`, sum(requests)::bigint, sum(prompt)::bigint, sum(completion)::bigint, sum(cached)::bigint, sum(errors)::bigint
		FROM (`+s.String()+") u GROUP BY 1, 2 HAVING sum(requests) > 0 ORDER BY ("+by+`) COLLATE "C", (`+then+`) COLLATE "C"`, s.args...)
	if err != nil {
		return nil, failed(ctx, "report usage", err)
	}
	groups, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (ledger.Group, error) {
		g := ledger.Group{By: q.By, Then: q.Then}
		var s ledger.Sums
		err := row.Scan(&g.Group, &g.Part, &s.Requests, &s.Prompt, &s.Completion, &s.Cached, &s.Errors)
		g.Add(s)
		return g, err
	})
	if err != nil {
		return nil, failed(ctx, "report usage", err)
	}
	return groups, nil
}

// groupColumns are what a report is grouped by, as a selection has them.
var groupColumns = map[ledger.By]string{
	"": "''::text", ledger.ByKey: "key_id", ledger.ByUser: `"user"`, ledger.ByModel: "model", ledger.ByDay: "day",
	ledger.ByHour: "hour", ledger.ByRequestedModel: "requested_model", ledger.ByEndUser: "end_user",
}

// Used sums the tokens of a key's settled requests that started in
// [since, until), and returns the last change of one gateway's ledger that is
// part of the sum.
func (l *Ledger) Used(ctx context.Context, keyID string, since, until time.Time, of string) (tokens, change int64, err error) {
	if err := l.migrate(ctx); err != nil {
		return 0, 0, err
	}
	s := &selection{}
	s.only = " AND key_id = " + s.arg(keyID)
	s.pieces(since, until)
	err = l.pool.QueryRow(ctx, `SELECT coalesce(sum(prompt + completion), 0)::bigint,
		coalesce((SELECT last_change FROM tollgate.gateways WHERE ledger = `+s.arg(of)+`), 0) FROM (`+s.String()+") u", s.args...).
		Scan(&tokens, &change)
	if err != nil {
		return 0, 0, failed(ctx, "sum usage", err)
	}
	return tokens, change, nil
}

// selection builds a query of usage from rollups and rows.
type selection struct {
	only  string // condition of every part
	parts []string
	args  []any
}

func (s *selection) String() string { return strings.Join(s.parts, " UNION ALL ") }

func (s *selection) arg(v any) string {
	s.args = append(s.args, v)
	return fmt.Sprint("$", len(s.args))
}

// rowSums are one row as a part of a sum.
const rowSums = `requested_model, end_user, 1 AS requests, coalesce(prompt_tokens, 0) AS prompt, coalesce(completion_tokens, 0) AS completion,
	coalesce(cached_tokens, 0) AS cached, ` + failedIs + ` AS errors`

// failedIs is [ledger.EndReason.Failed] in SQL, as a number.
const failedIs = "CASE WHEN end_reason IS NULL OR end_reason IN ('complete', 'client_abort') THEN 0 ELSE 1 END"

// pieces takes whole days from the rollups and the edges from the rows.
func (s *selection) pieces(since, until time.Time) {
	first, last, edges := ledger.WholeDays(since, until)
	part := `SELECT key_id, "user", model, to_char(day, 'YYYY-MM-DD') AS day, requested_model, end_user, requests, prompt_tokens AS prompt,
		completion_tokens AS completion, cached_tokens AS cached, errors FROM tollgate.rollups WHERE true` + s.only
	if !first.IsZero() {
		part += " AND day >= " + s.arg(ledger.Day(first)) + "::text::date"
	}
	if !last.IsZero() {
		part += " AND day < " + s.arg(ledger.Day(last)) + "::text::date"
	}
	s.parts = append(s.parts, part)
	for _, e := range edges {
		s.parts = append(s.parts, `SELECT key_id, "user", model, to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day, `+rowSums+
			` FROM tollgate.requests WHERE true`+s.only+s.within(e))
	}
}

// rows takes everything from the rows, for columns that the rollups do not have.
func (s *selection) rows(span ledger.Span) {
	s.parts = append(s.parts, `SELECT key_id, "user", model, to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day,
		to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24') AS hour, `+rowSums+` FROM tollgate.requests WHERE true`+s.only+s.within(span))
}

func (s *selection) within(span ledger.Span) (condition string) {
	if !span.From.IsZero() {
		condition += " AND started_at >= " + s.arg(ledger.CeilMicro(span.From))
	}
	if !span.To.IsZero() {
		condition += " AND started_at < " + s.arg(ledger.CeilMicro(span.To))
	}
	return condition
}

// Gateway is one ledger file that was shipped from.
type Gateway struct {
	Ledger string        `json:"ledger"` // identity of the file
	Name   string        `json:"gateway"`
	Change int64         `json:"change"`      // last change that is here
	Rows   int64         `json:"behind_rows"` // what it had not shipped when it was last heard of
	Silent time.Duration `json:"-"`           // since it was last heard of
	Behind time.Duration `json:"-"`           // age of what may be missing here: 0 rows behind and just heard of is about 0
}

// Gateways lists the ledgers that were ever shipped from, by name.
func (l *Ledger) Gateways(ctx context.Context) ([]Gateway, error) {
	if err := l.migrate(ctx); err != nil {
		return nil, err
	}
	rows, err := l.pool.Query(ctx, `SELECT ledger, name, last_change, behind_rows, behind_seconds, extract(epoch FROM now() - seen_at)::double precision
		FROM tollgate.gateways ORDER BY name COLLATE "C", ledger`)
	if err != nil {
		return nil, failed(ctx, "list gateways", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Gateway, error) {
		var g Gateway
		var behind, silent float64
		err := row.Scan(&g.Ledger, &g.Name, &g.Change, &g.Rows, &behind, &silent)
		g.Silent = time.Duration(max(0, silent) * float64(time.Second))
		g.Behind = g.Silent + time.Duration(behind*float64(time.Second))
		return g, err
	})
	if err != nil {
		return nil, failed(ctx, "list gateways", err)
	}
	return all, nil
}

// quiet is how long a gateway may say nothing before it counts as gone: a
// living one says something every few seconds.
const quiet = time.Minute

// Gone reports whether the gateway has not been heard of for a minute.
func (g *Gateway) Gone() bool { return g.Silent > quiet }

// Behind is how far the living gateways are behind, and which are gone.
func Behind(all []Gateway) (behind time.Duration, gone []Gateway) {
	for _, g := range all {
		if g.Gone() {
			gone = append(gone, g)
		} else {
			behind = max(behind, g.Behind)
		}
	}
	return behind, gone
}
