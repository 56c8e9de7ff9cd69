package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"tollgate/internal/ledger"
)

// maxViolations bounds what Verify reports of a ledger that is thoroughly broken.
const maxViolations = 1000

var errEnough = errors.New("enough violations")

// Verify checks every invariant of [ledger.Rules] on one snapshot and returns
// what does not hold, at most 1000 of it. It is safe while the service writes,
// whose WAL grows until it is done. An error means that it could not be checked
// to the end.
func (r *Reader) Verify(ctx context.Context) ([]ledger.Violation, error) {
	snapshot, err := r.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, failed(ctx, "verify", err)
	}
	defer snapshot.Rollback() //nolint:errcheck // a read has nothing to undo
	c := &checker{tx: snapshot, sums: map[rollupKey]ledger.Sums{}}
	for _, step := range []func(context.Context) error{c.storage, c.rows, c.rollups} {
		if err := step(ctx); errors.Is(err, errEnough) {
			break
		} else if err != nil {
			return c.found, failed(ctx, "verify", err)
		}
	}
	return c.found, nil
}

// checker collects what one Verify finds.
type checker struct {
	tx    *sql.Tx
	sums  map[rollupKey]ledger.Sums // of the rows
	found []ledger.Violation
}

func (c *checker) add(v ...ledger.Violation) error {
	c.found = append(c.found, v...)
	if len(c.found) >= maxViolations {
		c.found = c.found[:maxViolations]
		return errEnough
	}
	return nil
}

// each runs fn for every row of a query.
func (c *checker) each(ctx context.Context, query string, fn func(*sql.Rows) error) (err error) {
	rows, err := c.tx.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := fn(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// storage asks SQLite whether the file is sound, its indexes included.
func (c *checker) storage(ctx context.Context) error {
	return c.each(ctx, "PRAGMA integrity_check(100)", func(rows *sql.Rows) error {
		var what string
		if err := rows.Scan(&what); err != nil {
			return err
		}
		if what == "ok" {
			return nil
		}
		return c.add(ledger.Violation{Rule: ledger.RuleStorage, Detail: what})
	})
}

// rows checks each row by itself and sums them.
func (c *checker) rows(ctx context.Context) error {
	return c.each(ctx, "SELECT "+columns+" FROM requests ORDER BY rowid", func(rows *sql.Rows) error {
		r, err := scanRecord(rows)
		if err != nil {
			return err
		}
		k := rollupOf(&r)
		c.sums[k] = c.sums[k].Plus(ledger.SumsOf(&r))
		return c.add(ledger.Check(&r)...)
	})
}

// rollups compares every rollup with its rows and finds rows without one.
func (c *checker) rollups(ctx context.Context) error {
	const query = "SELECT " + rollupColumns + `, dropped_requests, dropped_prompt_tokens, dropped_completion_tokens,
		dropped_cached_tokens, dropped_errors FROM rollups`
	err := c.each(ctx, query, func(rows *sql.Rows) error {
		var k rollupKey
		var total, dropped ledger.Sums
		if err := rows.Scan(&k.key, &k.day, &k.user, &k.model, &k.requested, &k.endUser,
			&total.Requests, &total.Prompt, &total.Completion, &total.Cached, &total.Errors,
			&dropped.Requests, &dropped.Prompt, &dropped.Completion, &dropped.Cached, &dropped.Errors); err != nil {
			return err
		}
		want := c.sums[k].Plus(dropped)
		delete(c.sums, k)
		if total == want {
			return nil
		}
		return c.add(mismatch(k, total, want))
	})
	if err != nil {
		return err
	}
	for k, own := range c.sums {
		if err := c.add(mismatch(k, ledger.Sums{}, own)); err != nil {
			return err
		}
	}
	return nil
}

func mismatch(k rollupKey, got, want ledger.Sums) ledger.Violation {
	return ledger.Violation{Rule: ledger.RuleRollup, Detail: fmt.Sprintf(
		"key %q, day %s, user %q, model %q, asked for as %q, end user %q: %s; the rows say %s",
		k.key, k.day, k.user, k.model, k.requested, k.endUser, got, want)}
}
