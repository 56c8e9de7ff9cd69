package central

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"tollgate/internal/ledger"
)

// Position is how far a gateway's ledger has been shipped, as it is told along
// with a batch.
type Position struct {
	Ledger string // identity of the file
	Name   string // of the gateway
	Change int64  // the last change that is part of this batch or of one before it
	// Rows and Age are what is left after this batch: how many, and the age of the
	// oldest. By the gateway's own clock, so that clocks apart do not matter.
	Rows int64
	Age  time.Duration
}

// columns are those of the ledger, quoted where SQL needs it.
var (
	columns = ledger.Columns()
	names   = quoted(func(ledger.Column) bool { return true }, "%s")
	putRows = strings.NewReplacer(
		"{columns}", names,
		"{arrays}", arrays(),
		"{settled}", quoted(func(c ledger.Column) bool { return c.Parts&ledger.Settled != 0 }, "%[1]s = excluded.%[1]s"),
		"{position}", position(len(columns)),
		"{failed}", failedIs,
		"{failed r}", strings.ReplaceAll(failedIs, "end_reason", "r.end_reason"),
	).Replace(putShape + noteShape)
	note = strings.Replace(noteShape, "{position}", position(0), 1)
)

// putShape writes rows that are new, corrects those that have changed, moves the
// rollups by exactly that, and notes how far the gateway has come: one statement,
// so one transaction. What was replaced is read from the row under its lock, so
// two senders of one row cannot both move its rollup.
const putShape = `WITH batch AS (
	SELECT * FROM unnest({arrays}) AS b ({columns})
	WHERE started_at >= (SELECT dropped_before FROM tollgate.horizon)
), put AS (
	INSERT INTO tollgate.requests AS r ({columns})
	SELECT {columns} FROM batch
	ON CONFLICT (lease_id, started_at) DO UPDATE SET {settled},
		replaced_prompt_tokens = coalesce(r.prompt_tokens, 0), replaced_completion_tokens = coalesce(r.completion_tokens, 0),
		replaced_cached_tokens = coalesce(r.cached_tokens, 0), replaced_errors = {failed r}
	WHERE coalesce(excluded.change, 0) > coalesce(r.change, 0)
		AND array_position(ARRAY['estimated', 'partial', 'exact'], excluded.quality)
			>= array_position(ARRAY['estimated', 'partial', 'exact'], r.quality)
	RETURNING key_id, (started_at AT TIME ZONE 'UTC')::date AS day, "user", model, requested_model, end_user,
		CASE WHEN replaced_prompt_tokens IS NULL THEN 1 ELSE 0 END AS requests,
		coalesce(prompt_tokens, 0) - coalesce(replaced_prompt_tokens, 0) AS prompt,
		coalesce(completion_tokens, 0) - coalesce(replaced_completion_tokens, 0) AS completion,
		coalesce(cached_tokens, 0) - coalesce(replaced_cached_tokens, 0) AS cached,
		{failed} - coalesce(replaced_errors, 0) AS errors
), moved AS (
	INSERT INTO tollgate.rollups AS s (key_id, day, "user", model, requested_model, end_user, requests, prompt_tokens, completion_tokens, cached_tokens, errors)
	SELECT key_id, day, "user", model, requested_model, end_user, sum(requests), sum(prompt), sum(completion), sum(cached), sum(errors)
	FROM put GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6
	ON CONFLICT (key_id, day, "user", model, requested_model, end_user) DO UPDATE SET requests = s.requests + excluded.requests,
		prompt_tokens = s.prompt_tokens + excluded.prompt_tokens, completion_tokens = s.completion_tokens + excluded.completion_tokens,
		cached_tokens = s.cached_tokens + excluded.cached_tokens, errors = s.errors + excluded.errors
)
`

// noteShape notes how far a gateway has come; its parameters are the last five.
const noteShape = `INSERT INTO tollgate.gateways AS g (ledger, name, last_change, behind_rows, behind_seconds, seen_at)
SELECT p.*, now() FROM (VALUES ({position})) p WHERE p.column1 <> ''
ON CONFLICT (ledger) DO UPDATE SET name = excluded.name, last_change = greatest(g.last_change, excluded.last_change),
	behind_rows = excluded.behind_rows, behind_seconds = excluded.behind_seconds, seen_at = excluded.seen_at`

// position names the parameters of a position after n others.
func position(n int) string {
	return fmt.Sprintf("$%d::text, $%d::text, $%d::bigint, $%d::bigint, $%d::double precision", n+1, n+2, n+3, n+4, n+5)
}

func (p *Position) args() []any {
	return []any{p.Ledger, p.Name, p.Change, p.Rows, p.Age.Seconds()}
}

func quoted(choose func(ledger.Column) bool, format string) string {
	var list []string
	for _, c := range columns {
		if choose(c) {
			list = append(list, fmt.Sprintf(format, pgx.Identifier{c.Name}.Sanitize()))
		}
	}
	return strings.Join(list, ", ")
}

func arrays() string {
	types := map[ledger.Kind]string{ledger.Text: "text", ledger.Flag: "boolean", ledger.Number: "bigint", ledger.Moment: "timestamptz"}
	list := make([]string, len(columns))
	for i, c := range columns {
		list[i] = fmt.Sprintf("$%d::%s[]", i+1, types[c.Kind()])
	}
	return strings.Join(list, ", ")
}

// array is one column of many rows as PostgreSQL takes it.
func array(rows []ledger.Record, c ledger.Column) any {
	switch c.Kind() {
	case ledger.Flag:
		return collect(rows, c, func(v bool, _ bool) bool { return v })
	case ledger.Number:
		return collect(rows, c, func(v int64, known bool) pgtype.Int8 { return pgtype.Int8{Int64: v, Valid: known} })
	case ledger.Moment:
		return collect(rows, c, func(v time.Time, known bool) pgtype.Timestamptz { return pgtype.Timestamptz{Time: v, Valid: known} })
	case ledger.Text:
	}
	return collect(rows, c, func(v string, known bool) pgtype.Text { return pgtype.Text{String: storable(v), Valid: known} })
}

func collect[V, P any](rows []ledger.Record, c ledger.Column, as func(V, bool) P) []P {
	list := make([]P, len(rows))
	for i := range rows {
		v, known := c.Value(&rows[i]).(V)
		list[i] = as(v, known)
	}
	return list
}

// storable is text without what PostgreSQL refuses to hold: a row that it
// refuses would stop all that come after it.
func storable(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "\uFFFD"), "\uFFFD")
}

// Put stores settled rows of one ledger, each lease at most once in a call, and
// notes the position. Rows that are stored already, or in a later state, change
// nothing. Rows that started before what retention has dropped are left out.
func (l *Ledger) Put(ctx context.Context, rows []ledger.Record, at Position) error {
	if err := l.migrate(ctx); err != nil {
		return err
	}
	err := l.put(ctx, rows, at)
	if noPartition(err) { // another gateway's retention has dropped it
		l.forgetDays()
		err = l.put(ctx, rows, at)
	}
	if err != nil {
		return failed(ctx, "store rows", err)
	}
	return nil
}

// Fill stores settled rows as Put does, without a word on how far their gateway
// has shipped.
func (l *Ledger) Fill(ctx context.Context, rows []ledger.Record) error {
	if len(rows) == 0 {
		return nil
	}
	return l.Put(ctx, rows, Position{})
}

func (l *Ledger) put(ctx context.Context, rows []ledger.Record, at Position) error {
	if len(rows) == 0 {
		_, err := l.pool.Exec(ctx, note, at.args()...)
		return err
	}
	if err := l.makeDays(ctx, rows); err != nil {
		return err
	}
	args := make([]any, 0, len(columns)+5)
	for _, c := range columns {
		args = append(args, array(rows, c))
	}
	_, err := l.pool.Exec(ctx, putRows, append(args, at.args()...)...)
	return err
}

func noPartition(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23514" && strings.Contains(pg.Message, "no partition")
}
