package sqlitestore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"tollgate/internal/audit"
	"tollgate/internal/ledger"
)

// markAudit holds the number and the hash of the last entry of the audit, so that
// the end of the chain cannot go missing unseen.
const markAudit = "audit_head"

const auditColumns = "seq, at, gateway, who, origin, action, target, before, after, prev, hash"

// Record writes entries behind the last one. Their numbers, hashes, gateway and,
// where it is zero, time are filled in. Nothing of them is written where it fails.
func (s *Store) Record(ctx context.Context, entries ...audit.Entry) error {
	return wrap("write audit", s.w.submit(ctx, &op{do: func(ctx context.Context, t *tx) error {
		return t.audit(ctx, s.name, entries)
	}}))
}

// RecordStates writes what has changed of the things of one kind since it was called
// last, and keeps their states. Who calls it again after a failure, or after a
// restart, loses no change and tells none twice. It returns the number of changes.
func (s *Store) RecordStates(ctx context.Context, kind string, states map[string]json.RawMessage, by audit.Editor) (int, error) {
	n := new(int)
	err := s.w.submit(ctx, &op{do: func(ctx context.Context, t *tx) error {
		known, err := t.auditStates(ctx, kind)
		if err != nil {
			return err
		}
		changes := audit.Changes(kind, known, states)
		for i := range changes {
			changes[i].Editor = by
			if err := t.keepState(ctx, kind, changes[i].Target, states); err != nil {
				return err
			}
		}
		*n = len(changes)
		return t.audit(ctx, s.name, changes)
	}})
	return *n, wrap("write audit", err)
}

// audit appends entries to the chain.
func (t *tx) audit(ctx context.Context, gateway string, entries []audit.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	var seq int64
	var hash string
	err := t.conn.QueryRowContext(ctx, "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").Scan(&seq, &hash)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("read the last entry: %w", err)
	}
	for _, e := range entries {
		if e.At.IsZero() {
			e.At = time.Now()
		}
		e.Gateway = gateway
		e.Seal(seq, hash)
		seq, hash = e.Seq, e.Hash
		if _, err := t.conn.ExecContext(ctx, "INSERT INTO audit ("+auditColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			e.Seq, e.At.UnixMicro(), e.Gateway, e.Who, e.From, e.Action, e.Target, textOrNull(e.Before), textOrNull(e.After), e.Prev, e.Hash); err != nil {
			return fmt.Errorf("write entry: %w", err)
		}
	}
	if _, err := t.st.mark.ExecContext(ctx, markAudit, headOf(seq, hash)); err != nil {
		return fmt.Errorf("mark the last entry: %w", err)
	}
	return nil
}

func headOf(seq int64, hash string) string { return fmt.Sprintf("%d %s", seq, hash) }

func textOrNull(raw json.RawMessage) any {
	if raw == nil {
		return nil
	}
	return string(raw)
}

// auditStates are the states of a kind as they were told last.
func (t *tx) auditStates(ctx context.Context, kind string) (states map[string]json.RawMessage, err error) {
	rows, err := t.conn.QueryContext(ctx, "SELECT name, state FROM audit_states WHERE kind = ?", kind)
	if err != nil {
		return nil, fmt.Errorf("read states: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	states = map[string]json.RawMessage{}
	for rows.Next() {
		var name, state string
		if err := rows.Scan(&name, &state); err != nil {
			return nil, fmt.Errorf("read states: %w", err)
		}
		states[name] = json.RawMessage(state)
	}
	return states, rows.Err()
}

func (t *tx) keepState(ctx context.Context, kind, name string, states map[string]json.RawMessage) error {
	query, args := "DELETE FROM audit_states WHERE kind = ? AND name = ?", []any{kind, name}
	if state, ok := states[name]; ok {
		query, args = "INSERT INTO audit_states (kind, name, state) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET state = ?3", append(args, string(state))
	}
	if _, err := t.conn.ExecContext(ctx, query, args...); err != nil {
		return fmt.Errorf("keep state: %w", err)
	}
	return nil
}

// Audit returns at most limit entries with a number below before (0: the newest),
// newest first.
func (r *Reader) Audit(ctx context.Context, before int64, limit int) (entries []audit.Entry, err error) {
	if limit < 1 || limit > ledger.MaxPage {
		return nil, fmt.Errorf("read audit: %w: limit is a whole number from 1 to %d", ledger.ErrQuery, ledger.MaxPage)
	}
	if before <= 0 {
		before = 1<<63 - 1
	}
	return r.auditEntries(ctx, "seq < ? ORDER BY seq DESC LIMIT ?", before, limit)
}

// AuditAfter returns at most limit entries with a number above seq, oldest first.
func (r *Reader) AuditAfter(ctx context.Context, seq int64, limit int) ([]audit.Entry, error) {
	return r.auditEntries(ctx, "seq > ? ORDER BY seq LIMIT ?", seq, limit)
}

func (r *Reader) auditEntries(ctx context.Context, where string, args ...any) (entries []audit.Entry, err error) {
	rows, err := r.db.QueryContext(ctx, "SELECT "+auditColumns+" FROM audit WHERE "+where, args...) //nolint:gosec // where is one of two constants
	if err != nil {
		return nil, failed(ctx, "read audit", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var e audit.Entry
		var at int64
		var was, is sql.NullString
		if err := rows.Scan(&e.Seq, &at, &e.Gateway, &e.Who, &e.From, &e.Action, &e.Target, &was, &is, &e.Prev, &e.Hash); err != nil {
			return nil, failed(ctx, "read audit", err)
		}
		e.At = time.UnixMicro(at).UTC()
		if was.Valid {
			e.Before = json.RawMessage(was.String)
		}
		if is.Valid {
			e.After = json.RawMessage(is.String)
		}
		entries = append(entries, e)
	}
	if err := rows.Err(); err != nil {
		return nil, failed(ctx, "read audit", err)
	}
	return entries, nil
}

// VerifyAudit checks the whole chain and returns how many entries it has. An entry
// that was altered, removed or put in is an [audit.ErrBroken], and so is a chain
// whose end is missing.
func (r *Reader) VerifyAudit(ctx context.Context) (int64, error) {
	redacted, err := r.redactions(ctx)
	if err != nil {
		return 0, err
	}
	chain := audit.Chain{Redacted: redacted}
	var last audit.Entry
	for {
		entries, err := r.auditEntries(ctx, "seq > ? ORDER BY seq LIMIT ?", chain.Len(), page)
		if err != nil {
			return chain.Len(), err
		}
		for i := range entries {
			if err := chain.Check(&entries[i]); err != nil {
				return chain.Len(), err
			}
		}
		if len(entries) < page {
			if len(entries) > 0 {
				last = entries[len(entries)-1]
			}
			break
		}
		last = entries[page-1]
	}
	var head string
	err = r.db.QueryRowContext(ctx, "SELECT value FROM marks WHERE name = ?", markAudit).Scan(&head)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return chain.Len(), failed(ctx, "read audit", err)
	}
	if head != "" && head != headOf(chain.Len(), last.Hash) {
		return chain.Len(), fmt.Errorf("%w: its end is missing", audit.ErrBroken)
	}
	return chain.Len(), nil
}
