package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"tollgate/internal/ledger"
	"tollgate/internal/usage"
)

// lastChange is the highest change number that was given out.
const lastChange = `SELECT max(coalesce((SELECT max(change) FROM requests), 0),
	coalesce((SELECT value FROM marks WHERE name = '` + markChange + `'), 0))`

// statements are prepared once on the writing connection.
type statements struct {
	begin, commit, rollback, fold   *sql.Stmt
	insert, find, grow, settle      *sql.Stmt
	rollup, drop, prune, mark, ping *sql.Stmt
}

func prepare(ctx context.Context, c *sql.Conn) (*statements, error) {
	st := &statements{}
	for _, p := range []struct {
		to  **sql.Stmt
		sql string
	}{
		{&st.begin, "BEGIN IMMEDIATE"},
		{&st.commit, "COMMIT"},
		{&st.rollback, "ROLLBACK"},
		{&st.fold, "PRAGMA wal_checkpoint(PASSIVE)"},
		{&st.insert, "INSERT INTO requests (" + names(begun) + ") VALUES (?" + strings.Repeat(", ?", len(begun)-1) +
			") ON CONFLICT (lease_id) DO NOTHING"},
		{&st.find, "SELECT " + columns + ", rowid FROM requests WHERE lease_id = ?"},
		{&st.grow, "UPDATE requests SET " + names(counted, " = ?") + " WHERE rowid = ?"},
		{&st.settle, "UPDATE requests SET " + names(settled, " = ?") + " WHERE rowid = ?"},
		{&st.rollup, "INSERT INTO rollups (" + rollupColumns + `) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)
			ON CONFLICT DO UPDATE SET requests=requests+?7, prompt_tokens=prompt_tokens+?8, completion_tokens=completion_tokens+?9,
			cached_tokens=cached_tokens+?10, errors=errors+?11`},
		{&st.drop, `UPDATE rollups SET dropped_requests=dropped_requests+?7, dropped_prompt_tokens=dropped_prompt_tokens+?8,
			dropped_completion_tokens=dropped_completion_tokens+?9, dropped_cached_tokens=dropped_cached_tokens+?10,
			dropped_errors=dropped_errors+?11
			WHERE key_id=?1 AND day=?2 AND user=?3 AND model=?4 AND requested_model=?5 AND end_user=?6`},
		{&st.prune, `DELETE FROM requests WHERE rowid IN (SELECT rowid FROM requests
			WHERE started_at < ?1 AND end_reason IS NOT NULL AND (NOT ?3 OR change <= (SELECT value FROM marks WHERE name = '` +
			MarkShipped + `')) ORDER BY started_at LIMIT ?2) RETURNING ` + columns},
		{&st.mark, "INSERT INTO marks (name, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2"},
		{&st.ping, "INSERT INTO probe (id, at) VALUES (1, ?1) ON CONFLICT DO UPDATE SET at=?1"},
	} {
		var err error
		if *p.to, err = c.PrepareContext(ctx, p.sql); err != nil {
			return nil, errors.Join(fmt.Errorf("prepare %.20q: %w", p.sql, err), st.close())
		}
	}
	return st, nil
}

func (st *statements) close() error {
	var errs []error
	for _, s := range []*sql.Stmt{
		st.begin, st.commit, st.rollback, st.fold, st.insert, st.find, st.grow, st.settle,
		st.rollup, st.drop, st.prune, st.mark, st.ping,
	} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}

// tx is the transaction of one group. Rollups move once per group, at its end.
type tx struct {
	st     *statements
	conn   *sql.Conn
	deltas map[rollupKey]ledger.Sums
	live   *liveRows
	change int64 // the last change number given out
}

// count moves the rollup of a row, from what the row said before to what it says now.
func (t *tx) count(r *ledger.Record, before ledger.Sums) {
	k := rollupOf(r)
	t.deltas[k] = t.deltas[k].Plus(ledger.SumsOf(r).Minus(before))
}

// flush writes the rollups.
func (t *tx) flush(ctx context.Context) error {
	for k, s := range t.deltas {
		if s == (ledger.Sums{}) {
			continue
		}
		if _, err := t.st.rollup.ExecContext(ctx, k.args(s)...); err != nil {
			return fmt.Errorf("write rollup: %w", err)
		}
	}
	return nil
}

// begin inserts an intent.
func (t *tx) begin(ctx context.Context, in ledger.Intent) error {
	r := ledger.Opened(in)
	res, err := t.st.insert.ExecContext(ctx, values(&r, begun)...)
	if err != nil {
		return fmt.Errorf("insert intent: %w", err)
	}
	n, err := res.RowsAffected()
	if err != nil {
		return fmt.Errorf("insert intent: %w", err)
	}
	if n == 0 {
		return refusal{ledger.ErrDuplicate}
	}
	rowid, err := res.LastInsertId()
	if err != nil {
		return fmt.Errorf("insert intent: %w", err)
	}
	t.count(&r, ledger.Sums{})
	t.live.set(r, rowid)
	return nil
}

// find returns one row; ok is false where there is none.
func (t *tx) find(ctx context.Context, leaseID string) (r ledger.Record, rowid int64, ok bool, err error) {
	if r, rowid, ok = t.live.get(leaseID); ok {
		return r, rowid, true, nil
	}
	r, err = scanRecord(t.st.find.QueryRowContext(ctx, leaseID), &rowid)
	if errors.Is(err, sql.ErrNoRows) {
		return ledger.Record{}, 0, false, nil
	}
	if err != nil {
		return ledger.Record{}, 0, false, fmt.Errorf("find request: %w", err)
	}
	return r, rowid, true, nil
}

// checkpoint grows the counts of one live request.
func (t *tx) checkpoint(ctx context.Context, c ledger.Checkpoint) error {
	r, rowid, ok, err := t.find(ctx, c.LeaseID)
	if err != nil || !ok || !r.Open() {
		return err
	}
	grown, moved := ledger.Grow(r.Counts, c.Counts)
	if !moved {
		return nil
	}
	before := ledger.SumsOf(&r)
	r.Counts = grown
	if _, err := t.st.grow.ExecContext(ctx, append(values(&r, counted), rowid)...); err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	t.count(&r, before)
	t.live.set(r, rowid)
	return nil
}

// settle merges a settlement into its row.
func (t *tx) settle(ctx context.Context, s ledger.Settlement) (ledger.Record, usage.Counts, error) {
	old, rowid, ok, err := t.find(ctx, s.LeaseID)
	if err != nil {
		return ledger.Record{}, usage.Counts{}, err
	}
	if !ok {
		return ledger.Record{}, usage.Counts{}, refusal{ledger.ErrUnknown}
	}
	return t.merge(ctx, old, rowid, s)
}

func (t *tx) merge(ctx context.Context, old ledger.Record, rowid int64, s ledger.Settlement) (ledger.Record, usage.Counts, error) {
	next, delta, changed := ledger.Merge(old, s)
	if !changed {
		return next, delta, nil
	}
	t.change++
	next.Change = t.change
	if _, err := t.st.settle.ExecContext(ctx, append(values(&next, settled), rowid)...); err != nil {
		return ledger.Record{}, usage.Counts{}, fmt.Errorf("write settlement: %w", err)
	}
	t.count(&next, ledger.SumsOf(&old)) // the checkpoint is in the rollup already
	t.live.set(next, rowid)
	return next, delta, nil
}

// recover ends one request that nothing counts any more, and reports whether
// it was open.
func (t *tx) recover(ctx context.Context, leaseID string, reason ledger.EndReason, at time.Time) (bool, error) {
	r, rowid, ok, err := t.find(ctx, leaseID)
	if err != nil || !ok || !r.Open() {
		return false, err
	}
	_, _, err = t.merge(ctx, r, rowid, ledger.Recovery(&r, reason, at))
	return err == nil, err
}

// prune deletes up to limit settled rows that started before the time, where
// shipped only those that the central ledger has, and keeps their sums in the rollups.
func (t *tx) prune(ctx context.Context, beforeMicros int64, limit int, shipped bool) (n int, err error) {
	rows, err := t.st.prune.QueryContext(ctx, beforeMicros, limit, shipped)
	if err != nil {
		return 0, fmt.Errorf("delete old requests: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	dropped := map[rollupKey]ledger.Sums{}
	for rows.Next() {
		r, err := scanRecord(rows)
		if err != nil {
			return 0, fmt.Errorf("delete old requests: %w", err)
		}
		t.live.gone(r.LeaseID)
		k := rollupOf(&r)
		dropped[k] = dropped[k].Plus(ledger.SumsOf(&r))
		n++
	}
	if err := rows.Err(); err != nil {
		return 0, fmt.Errorf("delete old requests: %w", err)
	}
	// The counter must not fall back where the row of its last number is gone.
	if _, err := t.st.mark.ExecContext(ctx, markChange, t.change); err != nil {
		return 0, fmt.Errorf("keep change number: %w", err)
	}
	for k, s := range dropped {
		if _, err := t.st.drop.ExecContext(ctx, k.args(s)...); err != nil {
			return 0, fmt.Errorf("keep sums of old requests: %w", err)
		}
	}
	return n, nil
}
