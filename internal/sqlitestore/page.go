package sqlitestore

import (
	"context"
	"fmt"
	"time"

	"tollgate/internal/ledger"
)

// Newest returns one page of rows, newest first, and the cursor of the next one:
// "" after the last.
func (r *Reader) Newest(ctx context.Context, p ledger.Page) (rows []ledger.Record, next string, err error) {
	if err := p.Validate(); err != nil {
		return nil, "", fmt.Errorf("read newest requests: %w", err)
	}
	limit := p.Limit
	p.Limit++ // one row more tells whether there is a next page
	if len(named(p)) > 0 && p.RequestID == "" {
		rows, err = r.newestOfDays(ctx, p)
	} else {
		rows, err = r.newest(ctx, p, p.Since, p.Until)
	}
	if err != nil {
		return nil, "", failed(ctx, "read newest requests", err)
	}
	if len(rows) > limit {
		rows = rows[:limit]
		next = ledger.Cursor(&rows[limit-1])
	}
	return rows, next, nil
}

// named are the columns by which p chooses rows and which rollups have too, with their
// values.
func named(p ledger.Page) (of []choice) {
	for _, c := range []choice{
		{"key_id", p.KeyID}, {"user", p.User}, {"model", p.Model}, {"requested_model", p.RequestedModel}, {"end_user", p.EndUser},
	} {
		if c.value != "" {
			of = append(of, c)
		}
	}
	return of
}

type choice struct{ column, value string }

// newestOfDays reads the days of which the rollups know the key, user or model, newest
// first: a key that was used last month must not cost a walk over everybody's rows since.
func (r *Reader) newestOfDays(ctx context.Context, p ledger.Page) (rows []ledger.Record, err error) {
	days, err := r.days(ctx, p)
	if err != nil {
		return nil, err
	}
	limit := p.Limit
	for _, day := range days {
		since, until := latest(p.Since, day), day.AddDate(0, 0, 1)
		if !p.Until.IsZero() && p.Until.Before(until) {
			until = p.Until
		}
		p.Limit = limit - len(rows)
		more, err := r.newest(ctx, p, since, until)
		rows = append(rows, more...)
		if err != nil || len(rows) == limit {
			return rows, err
		}
	}
	return rows, nil
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// days lists the UTC days on which there are requests of the key, user or model, newest
// first.
func (r *Reader) days(ctx context.Context, p ledger.Page) (days []time.Time, err error) {
	query, args := "SELECT DISTINCT day FROM rollups WHERE true", []any(nil)
	for _, c := range named(p) {
		query, args = query+" AND "+c.column+" = ?", append(args, c.value)
	}
	if !p.Since.IsZero() {
		query, args = query+" AND day >= ?", append(args, ledger.Day(p.Since))
	}
	if !p.Until.IsZero() {
		query, args = query+" AND day <= ?", append(args, ledger.Day(p.Until))
	}
	rows, err := r.db.QueryContext(ctx, query+" ORDER BY day DESC", args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var day string
		if err := rows.Scan(&day); err != nil {
			return nil, err
		}
		at, err := time.Parse(time.DateOnly, day)
		if err != nil {
			return nil, fmt.Errorf("day %q of a rollup: %w", day, err)
		}
		days = append(days, at)
	}
	return days, rows.Err()
}

// newest reads at most p.Limit rows that started in [since, until).
func (r *Reader) newest(ctx context.Context, p ledger.Page, since, until time.Time) ([]ledger.Record, error) {
	query, args := "SELECT "+columns+", rowid FROM requests WHERE true", []any(nil)
	where := func(condition string, value any) {
		query, args = query+" AND "+condition, append(args, value)
	}
	if !since.IsZero() {
		where("started_at >= ?", ceilMicros(since))
	}
	if !until.IsZero() {
		where("started_at < ?", ceilMicros(until))
	}
	if started, lease, _ := p.Position(); lease != "" {
		query, args = query+" AND (started_at, lease_id) < (?, ?)", append(args, started.UnixMicro(), lease)
	}
	for _, c := range append(named(p), choice{"end_reason", string(p.Reason)}, choice{"request_id", p.RequestID}) {
		if c.value != "" {
			where(c.column+" = ?", c.value)
		}
	}
	if p.Open {
		query += " AND " + isOpen
	}
	if p.Reason != "" && p.Reason != ledger.Complete {
		query += " AND end_reason <> 'complete'" // in these words, or the index of these ends does not serve it
	}
	order := " ORDER BY started_at DESC, lease_id DESC LIMIT "
	if p.RequestID != "" || p.Open {
		order = " ORDER BY +started_at DESC, lease_id DESC LIMIT " // few rows: by the index of the condition, not of the order
	}
	rows, _, err := r.page(ctx, query+order+fmt.Sprint(p.Limit), args)
	return rows, err
}
