package sqlitestore

import (
	"fmt"
	"strings"
	"time"

	"tollgate/internal/ledger"
	"tollgate/internal/usage"
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
type rollupKey struct{ key, day, user, model string }

func rollupOf(r *ledger.Record) rollupKey {
	return rollupKey{key: r.KeyID, day: ledger.Day(r.StartedAt), user: r.User, model: r.Model}
}

// sums are what a rollup counts.
type sums struct{ requests, prompt, completion int64 }

func (s *sums) add(requests int64, c usage.Counts) {
	s.requests += requests
	s.prompt += max(c.Prompt, 0)
	s.completion += max(c.Completion, 0)
}
