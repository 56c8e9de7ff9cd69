package sqlitestore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"tollgate/internal/ledger"
)

// The outbox is the ledger read in the order of its change numbers. A reader that
// carries rows elsewhere keeps the last number that it has delivered, as a mark
// in the file, and asks for the changes after it. Numbers become visible in
// order, because one writer gives them out and commits them.

// Names of the marks.
const (
	// MarkShipped is the last change that the central ledger has confirmed.
	MarkShipped = "shipped"

	markChange   = "change"   // the last change number that was given out when rows were deleted
	markNumbered = "numbered" // the rowid up to which rows of an older program have their number
	markLedger   = "ledger"   // what tells this file from every other
)

const changesQuery = "SELECT %s FROM requests WHERE change > ? ORDER BY change LIMIT ?"

// Changes returns up to limit rows whose last change is after the given number,
// in the order of their numbers. A row that changes again comes again.
func (r *Reader) Changes(ctx context.Context, after int64, limit int) (changed []ledger.Record, err error) {
	rows, err := r.db.QueryContext(ctx, fmt.Sprintf(changesQuery, columns), after, limit)
	if err != nil {
		return nil, failed(ctx, "read changes", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		rec, err := scanRecord(rows)
		if err != nil {
			return nil, failed(ctx, "read changes", err)
		}
		changed = append(changed, rec)
	}
	if err := rows.Err(); err != nil {
		return nil, failed(ctx, "read changes", err)
	}
	return changed, nil
}

// Backlog counts the rows whose last change is after the given number.
func (r *Reader) Backlog(ctx context.Context, after int64) (ledger.Backlog, error) {
	var b ledger.Backlog
	var oldest sql.NullInt64
	err := r.db.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM (SELECT 1 FROM requests WHERE change > ?1 LIMIT ?2)),
		(SELECT ended_at FROM requests WHERE change > ?1 ORDER BY change LIMIT 1)`, after, ledger.MostBacklog).Scan(&b.Rows, &oldest)
	if err != nil {
		return ledger.Backlog{}, failed(ctx, "count changes", err)
	}
	if oldest.Valid {
		b.Oldest = time.UnixMicro(oldest.Int64).UTC()
	}
	return b, nil
}

// Mark reads a number that outlives rows; 0 where it was never set.
func (r *Reader) Mark(ctx context.Context, name string) (int64, error) {
	var n int64
	err := r.db.QueryRowContext(ctx, "SELECT value FROM marks WHERE name = ?", name).Scan(&n)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, failed(ctx, "read mark "+name, err)
	}
	return n, nil
}

// UsedAfter sums the tokens of a key that a reader of changes which has come to
// the given number has not seen: of open rows, and of rows that changed since.
func (r *Reader) UsedAfter(ctx context.Context, keyID string, since, until time.Time, after int64) (int64, error) {
	query, args := `SELECT coalesce(sum(coalesce(prompt_tokens, 0) + coalesce(completion_tokens, 0)), 0) FROM (
		SELECT key_id, started_at, prompt_tokens, completion_tokens FROM requests WHERE change > ?
		UNION ALL
		SELECT key_id, started_at, prompt_tokens, completion_tokens FROM requests WHERE `+isOpen+`
	) WHERE key_id = ?`, []any{after, keyID}
	if !since.IsZero() {
		query, args = query+" AND started_at >= ?", append(args, ceilMicros(since))
	}
	if !until.IsZero() {
		query, args = query+" AND started_at < ?", append(args, ceilMicros(until))
	}
	var sum int64
	if err := r.db.QueryRowContext(ctx, query, args...).Scan(&sum); err != nil {
		return 0, failed(ctx, "sum changes", err)
	}
	return sum, nil
}

// SetMark writes a number that outlives rows.
func (s *Store) SetMark(ctx context.Context, name string, value int64) error {
	return wrap("set mark "+name, s.w.submit(ctx, &op{do: func(ctx context.Context, t *tx) error {
		_, err := t.st.mark.ExecContext(ctx, name, value)
		return err
	}}))
}

// ID tells this file from every other. A copy has the same one.
func (s *Store) ID(ctx context.Context) (string, error) {
	fresh := make([]byte, 16)
	_, _ = rand.Read(fresh) // never fails
	err := s.w.submit(ctx, &op{do: func(ctx context.Context, t *tx) error {
		_, err := t.conn.ExecContext(ctx, "INSERT INTO marks (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING", markLedger, hex.EncodeToString(fresh))
		return err
	}})
	if err != nil {
		return "", wrap("name the ledger", err)
	}
	var id string
	if err := s.db.QueryRowContext(ctx, "SELECT value FROM marks WHERE name = ?", markLedger).Scan(&id); err != nil {
		return "", failed(ctx, "name the ledger", err)
	}
	return id, nil
}

// Changed receives after a commit that gave out change numbers; one receive may
// stand for many commits.
func (s *Store) Changed() <-chan struct{} { return s.w.changed }

// RaiseChange makes every change number from now on higher than the given one:
// what a ledger needs that was put back from a backup, whose numbers after it
// are known elsewhere.
func (s *Store) RaiseChange(ctx context.Context, above int64) error {
	return wrap("raise change number", s.w.submit(ctx, &op{do: func(ctx context.Context, t *tx) error {
		t.change = max(t.change, above)
		_, err := t.st.mark.ExecContext(ctx, markChange, t.change)
		return err
	}}))
}

// NumberOld gives change numbers to up to limit rows that an older program has
// settled, and reports how many it gave; 0 means that none are left.
func (s *Store) NumberOld(ctx context.Context, limit int) (int, error) {
	n := new(int)
	err := s.w.submit(ctx, &op{do: func(ctx context.Context, t *tx) (err error) {
		*n, err = t.numberOld(ctx, limit)
		return err
	}})
	if err != nil {
		return 0, wrap("number old requests", err)
	}
	return *n, nil
}

// numberOld walks the table once in the life of the file; a mark says how far.
func (t *tx) numberOld(ctx context.Context, limit int) (n int, err error) {
	var from int64
	err = t.conn.QueryRowContext(ctx, "SELECT value FROM marks WHERE name = ?", markNumbered).Scan(&from)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("read mark: %w", err)
	}
	old, err := t.oldRows(ctx, from, limit)
	if err != nil {
		return 0, err
	}
	for _, rowid := range old {
		t.change++
		if _, err := t.conn.ExecContext(ctx, "UPDATE requests SET change = ? WHERE rowid = ?", t.change, rowid); err != nil {
			return 0, fmt.Errorf("number row: %w", err)
		}
		from = rowid
	}
	if len(old) == 0 {
		from = 1 << 62 // no later row is old
	}
	_, err = t.st.mark.ExecContext(ctx, markNumbered, from)
	return len(old), err
}

func (t *tx) oldRows(ctx context.Context, after int64, limit int) (rowids []int64, err error) {
	rows, err := t.conn.QueryContext(ctx, `SELECT rowid FROM requests WHERE rowid > ? AND change IS NULL AND end_reason IS NOT NULL
		ORDER BY rowid LIMIT ?`, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read old rows: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var rowid int64
		if err := rows.Scan(&rowid); err != nil {
			return nil, fmt.Errorf("read old rows: %w", err)
		}
		rowids = append(rowids, rowid)
	}
	return rowids, rows.Err()
}
