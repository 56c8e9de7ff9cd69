package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"tollgate/internal/ledger"
)

// Reader reads a ledger, also while a service writes it. Its methods are safe
// for concurrent use; where the file cannot be read they give
// [ledger.ErrUnavailable].
type Reader struct{ db *sql.DB }

// OpenReadOnly opens the ledger of another process, or of none, for reading.
// Errors: [os.ErrNotExist] where there is no file, [ErrSchema].
func OpenReadOnly(ctx context.Context, path string) (*Reader, error) {
	if _, err := os.Stat(path); err != nil { // SQLite's own error does not say which
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	// query_only rather than mode=ro: the first reader of a file that nobody has
	// open makes the shared index of the WAL, which a read-only open may not.
	db, err := sql.Open("sqlite", dsn(path, "mode=rw", "busy_timeout(5000)", "query_only(1)", readerCache))
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	db.SetMaxOpenConns(4)
	version, err := readVersion(ctx, db)
	if err == nil && version < SchemaVersion() {
		err = fmt.Errorf("%w: it has version %d, start the service once to bring it to %d", ErrSchema, version, SchemaVersion())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open ledger: %w", err), db.Close())
	}
	return &Reader{db: db}, nil
}

// Close ends the reading.
func (r *Reader) Close() error { return wrap("close ledger", r.db.Close()) }

// failed wraps an error of reading: the context's own as such, any other as
// unavailable.
func failed(ctx context.Context, what string, err error) error {
	if cause := ctx.Err(); cause != nil {
		return fmt.Errorf("%s: %w", what, cause)
	}
	return fmt.Errorf("%s: %w", what, unavailable(err))
}

// Get implements [ledger.Store].
func (r *Reader) Get(ctx context.Context, leaseID string) (ledger.Record, error) {
	row, err := scanRecord(r.db.QueryRowContext(ctx, "SELECT "+columns+" FROM requests WHERE lease_id = ?", leaseID))
	if errors.Is(err, sql.ErrNoRows) {
		return ledger.Record{}, fmt.Errorf("get: %w", ledger.ErrUnknown)
	}
	if err != nil {
		return ledger.Record{}, failed(ctx, "get", err)
	}
	return row, nil
}

// openQuery is the requests that are not settled.
var openQuery = "SELECT " + columns + " FROM requests WHERE " + isOpen + " ORDER BY started_at, lease_id"

// Open implements [ledger.Store].
func (r *Reader) Open(ctx context.Context) (open []ledger.Record, err error) {
	rows, err := r.db.QueryContext(ctx, openQuery)
	if err != nil {
		return nil, failed(ctx, "list open requests", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		rec, err := scanRecord(rows)
		if err != nil {
			return nil, failed(ctx, "list open requests", err)
		}
		open = append(open, rec)
	}
	if err := rows.Err(); err != nil {
		return nil, failed(ctx, "list open requests", err)
	}
	return open, nil
}

// Used implements [ledger.Store]. Whole UTC days come from the rollups, which
// retention keeps; parts of days from the rows.
func (r *Reader) Used(ctx context.Context, keyID string, since, until time.Time) (int64, error) {
	from, args := pieces(since, until, " AND key_id = ?", keyID)
	var sum int64
	err := r.db.QueryRowContext(ctx, "SELECT coalesce(sum(prompt + completion), 0) FROM ("+from+")", args...).Scan(&sum)
	if err != nil {
		return 0, failed(ctx, "sum usage", err)
	}
	return sum, nil
}

// groupColumns are the groupings as columns of the queries of pieces and rowsOf.
var groupColumns = map[ledger.By]string{
	ledger.ByKey: "key_id", ledger.ByUser: "user", ledger.ByModel: "model", ledger.ByDay: "day", ledger.ByHour: "hour",
	ledger.ByRequestedModel: "requested_model", ledger.ByEndUser: "end_user", "": "''",
}

// Usage reports usage by q, ordered by the names of the groups. Parts of days
// whose rows retention has deleted are not in it; whole days are.
func (r *Reader) Usage(ctx context.Context, q ledger.Query) (groups []ledger.Group, err error) {
	if err := q.Validate(); err != nil {
		return nil, fmt.Errorf("report usage: %w", err)
	}
	var only strings.Builder
	var values []any
	for _, c := range []struct{ column, value string }{{"key_id", q.KeyID}, {"user", q.User}, {"model", q.Model}} {
		if c.value != "" {
			only.WriteString(" AND " + c.column + " = ?")
			values = append(values, c.value)
		}
	}
	source := pieces
	if !q.By.RolledUp() || !q.Then.RolledUp() {
		source = rowsOf
	}
	from, args := source(q.Since, q.Until, only.String(), values...)
	//nolint:gosec // the columns are names from above, from comes from constants
	rows, err := r.db.QueryContext(ctx, "SELECT "+groupColumns[q.By]+", "+groupColumns[q.Then]+", sum(requests), sum(prompt), sum(completion), sum(cached), sum(errors) FROM ("+from+
		") GROUP BY 1, 2 HAVING sum(requests) > 0 ORDER BY 1, 2", args...)
	if err != nil {
		return nil, failed(ctx, "report usage", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		g := ledger.Group{By: q.By, Then: q.Then}
		var s ledger.Sums
		if err := rows.Scan(&g.Group, &g.Part, &s.Requests, &s.Prompt, &s.Completion, &s.Cached, &s.Errors); err != nil {
			return nil, failed(ctx, "report usage", err)
		}
		g.Add(s)
		groups = append(groups, g)
	}
	if err := rows.Err(); err != nil {
		return nil, failed(ctx, "report usage", err)
	}
	return groups, nil
}

// rowSums are one row as a part of a sum.
const rowSums = `coalesce(requested_model, '') AS requested_model, coalesce(end_user, '') AS end_user, 1 AS requests,
	coalesce(prompt_tokens, 0) AS prompt, coalesce(completion_tokens, 0) AS completion, coalesce(cached_tokens, 0) AS cached, ` + failedIs + ` AS errors`

// pieces is a query for everything that started in [since, until), as rows of the
// columns of rollups: whole days from the rollups, the days at the edges from the rows.
// The condition and its arguments are added to each piece.
func pieces(since, until time.Time, condition string, extra ...any) (query string, args []any) {
	const (
		rollups = `SELECT key_id, user, model, day, requested_model, end_user, requests, prompt_tokens AS prompt, completion_tokens AS completion,
			cached_tokens AS cached, errors FROM rollups WHERE true`
		rows = `SELECT key_id, user, model, date(started_at / 1000000, 'unixepoch') AS day, ` + rowSums + ` FROM requests
			WHERE started_at >= ? AND started_at < ?`
	)
	first, last, edges := ledger.WholeDays(since, until)
	query = rollups
	if !first.IsZero() {
		query += " AND day >= ?"
		args = append(args, ledger.Day(first))
	}
	if !last.IsZero() {
		query += " AND day < ?"
		args = append(args, ledger.Day(last))
	}
	query += condition
	args = append(args, extra...)
	for _, e := range edges {
		query += " UNION ALL " + rows + condition
		args = append(append(args, e.From.UnixMicro(), e.To.UnixMicro()), extra...)
	}
	return query, args
}

// rowsOf is a query like that of pieces, with the columns that the rollups do not
// have.
func rowsOf(since, until time.Time, condition string, extra ...any) (query string, args []any) {
	query = `SELECT key_id, user, model, date(started_at / 1000000, 'unixepoch') AS day,
		strftime('%Y-%m-%dT%H', started_at / 1000000, 'unixepoch') AS hour, ` + rowSums + ` FROM requests WHERE true` + condition
	args = extra
	if !since.IsZero() {
		query, args = query+" AND started_at >= ?", append(args, ceilMicros(since))
	}
	if !until.IsZero() {
		query, args = query+" AND started_at < ?", append(args, ceilMicros(until))
	}
	return query, args
}

// ceilMicros is the first whole microsecond at or after t.
func ceilMicros(t time.Time) int64 {
	n := t.UnixMicro()
	if time.UnixMicro(n).Before(t) {
		n++
	}
	return n
}

const minuteQuery = `SELECT key_id, at, sum(tokens), sum(requests) FROM (
		SELECT key_id, started_at / 1000000 AS at, 1 AS requests, CASE WHEN end_reason IS NULL
			THEN coalesce(prompt_tokens, 0) + coalesce(completion_tokens, 0) ELSE 0 END AS tokens
			FROM requests WHERE started_at >= ?1
		UNION ALL
		SELECT key_id, ended_at / 1000000, 0, coalesce(prompt_tokens, 0) + coalesce(completion_tokens, 0)
			FROM requests WHERE ` + ended + ` >= ?1 AND ended_at IS NOT NULL
	) GROUP BY at, key_id ORDER BY at, key_id`

// Minute implements [ledger.Store]; the seconds come ordered by time and key.
func (r *Reader) Minute(ctx context.Context, since time.Time) (seconds []ledger.Second, err error) {
	rows, err := r.db.QueryContext(ctx, minuteQuery, ceilMicros(since))
	if err != nil {
		return nil, failed(ctx, "read seconds", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var s ledger.Second
		var at int64
		if err := rows.Scan(&s.KeyID, &at, &s.Tokens, &s.Requests); err != nil {
			return nil, failed(ctx, "read seconds", err)
		}
		s.At = time.Unix(at, 0).UTC()
		seconds = append(seconds, s)
	}
	if err := rows.Err(); err != nil {
		return nil, failed(ctx, "read seconds", err)
	}
	return seconds, nil
}

// page is how many rows Each holds at a time.
const page = 500

// Each calls fn for every selected row in the order of their start, and ends
// with the first error of fn, unwrapped. It reads page by page, so it holds
// little memory and does not keep the WAL from being folded in, and fn may take
// its time; it is no snapshot: what changes meanwhile may be seen or not.
func (r *Reader) Each(ctx context.Context, f ledger.Filter, fn func(ledger.Record) error) error {
	query, args := "SELECT "+columns+", rowid FROM requests WHERE (started_at, rowid) > (?, ?)", []any{int64(0), int64(0)}
	if f.Since.IsZero() {
		args[0] = time.Time{}.UnixMicro() - 1
	} else {
		args[0] = ceilMicros(f.Since) - 1
		args[1] = int64(1) << 62 // beyond every row of the microsecond before
	}
	if !f.Until.IsZero() {
		query, args = query+" AND started_at < ?", append(args, ceilMicros(f.Until))
	}
	for column, want := range map[string]string{"key_id": f.KeyID, "requested_model": f.RequestedModel, "end_user": f.EndUser} {
		if want != "" {
			query, args = query+" AND "+column+" = ?", append(args, want)
		}
	}
	if f.Open {
		query += " AND " + isOpen
	}
	query += " ORDER BY started_at, rowid LIMIT " + fmt.Sprint(page)
	for {
		records, last, err := r.page(ctx, query, args)
		if err != nil {
			return failed(ctx, "read requests", err)
		}
		for _, rec := range records {
			if err := fn(rec); err != nil {
				return err
			}
		}
		if len(records) < page {
			return nil
		}
		args[0], args[1] = records[page-1].StartedAt.UnixMicro(), last
	}
}

func (r *Reader) page(ctx context.Context, query string, args []any) (records []ledger.Record, last int64, err error) {
	rows, err := r.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		rec, err := scanRecord(rows, &last)
		if err != nil {
			return nil, 0, err
		}
		records = append(records, rec)
	}
	return records, last, rows.Err()
}
