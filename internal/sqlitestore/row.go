package sqlitestore

import (
	"fmt"
	"strings"
	"time"

	"tollgate/internal/ledger"
)

// The columns of a record, and those that each write sets, in the order of
// [ledger.Columns].
var (
	all     = ledger.Columns()
	columns = names(all)
	begun   = with(ledger.Begun)
	counted = with(ledger.Counted)
	settled = with(ledger.Settled)
)

func with(p ledger.Part) []ledger.Column {
	var some []ledger.Column
	for _, c := range all {
		if c.Parts&p != 0 {
			some = append(some, c)
		}
	}
	return some
}

// names lists columns as SQL does, each followed by the suffix.
func names(cols []ledger.Column, suffix ...string) string {
	list := make([]string, len(cols))
	for i, c := range cols {
		list[i] = c.Name + strings.Join(suffix, "")
	}
	return strings.Join(list, ", ")
}

// values are what the file holds of r in these columns, with room for one more.
func values(r *ledger.Record, cols []ledger.Column) []any {
	v := make([]any, len(cols), len(cols)+1)
	for i, c := range cols {
		v[i] = c.Value(r)
		if at, ok := v[i].(time.Time); ok {
			v[i] = at.UnixMicro()
		}
	}
	return v
}

type scanner interface{ Scan(dest ...any) error }

// cell reads one column of a row.
type cell struct {
	to     *ledger.Record
	column ledger.Column
}

// Scan implements the interface of database/sql.
func (c *cell) Scan(value any) error { return c.column.Set(c.to, value) }

// scanRecord reads one row of columns; extra are further columns after them.
func scanRecord(s scanner, extra ...any) (ledger.Record, error) {
	var r ledger.Record
	cells := make([]cell, len(all))
	dest := make([]any, len(all), len(all)+len(extra))
	for i, c := range all {
		cells[i] = cell{&r, c}
		dest[i] = &cells[i]
	}
	if err := s.Scan(append(dest, extra...)...); err != nil {
		return ledger.Record{}, fmt.Errorf("read row: %w", err)
	}
	return r, nil
}

// rollupKey names one rollup.
type rollupKey struct{ key, day, user, model, requested, endUser string }

func rollupOf(r *ledger.Record) rollupKey {
	return rollupKey{
		key: r.KeyID, day: ledger.Day(r.StartedAt), user: r.User, model: r.Model, requested: r.RequestedModel, endUser: r.EndUser,
	}
}

// args are the columns of the key, and what a rollup counts, in the order of rollupColumns.
func (k rollupKey) args(s ledger.Sums) []any {
	return []any{k.key, k.day, k.user, k.model, k.requested, k.endUser, s.Requests, s.Prompt, s.Completion, s.Cached, s.Errors}
}

const rollupColumns = "key_id, day, user, model, requested_model, end_user, requests, prompt_tokens, completion_tokens, cached_tokens, errors"

// failedIs is [ledger.EndReason.Failed] in SQL.
const failedIs = "(end_reason IS NOT NULL AND end_reason NOT IN ('complete', 'client_abort'))"
