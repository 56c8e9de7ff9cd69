package central

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"tollgate/internal/ledger"
)

// maxViolations bounds what a verification reports.
const maxViolations = 1000

// Verify compares every rollup with its rows and what retention has dropped of
// them, on one snapshot, and returns what does not hold, at most 1000 of it.
func (l *Ledger) Verify(ctx context.Context) ([]ledger.Violation, error) {
	if err := l.migrate(ctx); err != nil {
		return nil, err
	}
	rows, err := l.pool.Query(ctx, `WITH own AS (
			SELECT key_id, (started_at AT TIME ZONE 'UTC')::date AS day, "user", model, requested_model, end_user, count(*) AS requests,
				sum(coalesce(prompt_tokens, 0))::bigint AS prompt, sum(coalesce(completion_tokens, 0))::bigint AS completion,
				sum(coalesce(cached_tokens, 0))::bigint AS cached, sum(`+failedIs+`)::bigint AS errors
			FROM tollgate.requests GROUP BY 1, 2, 3, 4, 5, 6
		), both_sides AS (
			SELECT key_id, day, "user", model, requested_model, end_user,
				ARRAY[coalesce(s.requests - s.dropped_requests, 0), coalesce(s.prompt_tokens - s.dropped_prompt_tokens, 0),
					coalesce(s.completion_tokens - s.dropped_completion_tokens, 0), coalesce(s.cached_tokens - s.dropped_cached_tokens, 0),
					coalesce(s.errors - s.dropped_errors, 0)] AS got,
				ARRAY[coalesce(own.requests, 0), coalesce(own.prompt, 0), coalesce(own.completion, 0), coalesce(own.cached, 0),
					coalesce(own.errors, 0)] AS want
			FROM tollgate.rollups s FULL JOIN own USING (key_id, day, "user", model, requested_model, end_user)
		)
		SELECT key_id, to_char(day, 'YYYY-MM-DD'), "user", model, requested_model, end_user, got, want FROM both_sides
		WHERE got <> want ORDER BY 1, 2, 3, 4, 5, 6 LIMIT $1`, maxViolations)
	if err != nil {
		return nil, failed(ctx, "verify", err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (ledger.Violation, error) {
		var key, day, user, model, requested, endUser string
		var got, want []int64
		err := row.Scan(&key, &day, &user, &model, &requested, &endUser, &got, &want)
		if err != nil {
			return ledger.Violation{}, err
		}
		return ledger.Violation{Rule: ledger.RuleRollup, Detail: fmt.Sprintf(
			"key %q, day %s, user %q, model %q, asked for as %q, end user %q: %s; the rows say %s",
			key, day, user, model, requested, endUser, sumsOf(got), sumsOf(want))}, nil
	})
	if err != nil {
		return nil, failed(ctx, "verify", err)
	}
	return found, nil
}

// sumsOf reads the five sums of an array.
func sumsOf(n []int64) ledger.Sums {
	return ledger.Sums{Requests: n[0], Prompt: n[1], Completion: n[2], Cached: n[3], Errors: n[4]}
}

// Get returns one row. [ledger.ErrUnknown] where there is none.
func (l *Ledger) Get(ctx context.Context, leaseID string) (r ledger.Record, err error) {
	if err := l.migrate(ctx); err != nil {
		return r, err
	}
	rows, err := l.pool.Query(ctx, "SELECT "+names+" FROM tollgate.requests WHERE lease_id = $1", leaseID)
	if err != nil {
		return r, failed(ctx, "get", err)
	}
	r, err = pgx.CollectExactlyOneRow(rows, scan)
	if errors.Is(err, pgx.ErrNoRows) {
		return r, fmt.Errorf("get: %w", ledger.ErrUnknown)
	}
	if err != nil {
		return r, failed(ctx, "get", err)
	}
	return r, nil
}

// scan reads one row of all columns.
func scan(row pgx.CollectableRow) (r ledger.Record, err error) {
	values, err := row.Values()
	if err != nil {
		return r, err
	}
	for i, c := range columns {
		if err := c.Set(&r, values[i]); err != nil {
			return r, err
		}
	}
	return r, nil
}

// Compare returns what is missing or different here of settled rows that a
// gateway's ledger has shipped. Rows older than what retention has dropped are
// not compared. A row that is known better or in a later state here is right.
func (l *Ledger) Compare(ctx context.Context, rows []ledger.Record) (found []ledger.Violation, err error) {
	if len(rows) == 0 {
		return nil, nil
	}
	if err := l.migrate(ctx); err != nil {
		return nil, err
	}
	here, horizon, err := l.find(ctx, rows)
	if err != nil {
		return nil, failed(ctx, "compare", err)
	}
	for i := range rows {
		r := &rows[i]
		other, ok := here[r.LeaseID]
		switch {
		case r.StartedAt.Before(horizon):
		case !ok:
			found = append(found, ledger.Violation{LeaseID: r.LeaseID, Rule: ledger.RuleShipped, Detail: "is not in the central ledger"})
		case other.Change < r.Change:
			found = append(found, ledger.Violation{LeaseID: r.LeaseID, Rule: ledger.RuleShipped, Detail: fmt.Sprintf(
				"has change %d, the central ledger %d", r.Change, other.Change)})
		case other.Change == r.Change && other.Counts != r.Counts:
			found = append(found, ledger.Violation{LeaseID: r.LeaseID, Rule: ledger.RuleShipped, Detail: fmt.Sprintf(
				"counts %+v, the central ledger %+v", r.Counts, other.Counts)})
		}
	}
	return found, nil
}

// find reads the rows with the leases of the given ones, and what retention has
// dropped.
func (l *Ledger) find(ctx context.Context, like []ledger.Record) (here map[string]ledger.Record, horizon time.Time, err error) {
	var dropped *time.Time
	if err := l.pool.QueryRow(ctx, "SELECT nullif(dropped_before, '-infinity') FROM tollgate.horizon").Scan(&dropped); err != nil {
		return nil, horizon, err
	}
	if dropped != nil {
		horizon = *dropped
	}
	leases := make([]string, len(like))
	from, to := like[0].StartedAt, like[0].StartedAt
	for i := range like {
		leases[i] = storable(like[i].LeaseID)
		if at := like[i].StartedAt; at.Before(from) {
			from = at
		} else if at.After(to) {
			to = at
		}
	}
	rows, err := l.pool.Query(ctx, "SELECT "+names+" FROM tollgate.requests WHERE lease_id = ANY($1) AND started_at BETWEEN $2 AND $3", leases, from, to)
	if err != nil {
		return nil, horizon, err
	}
	found, err := pgx.CollectRows(rows, scan)
	if err != nil {
		return nil, horizon, err
	}
	here = make(map[string]ledger.Record, len(found))
	for _, r := range found {
		here[r.LeaseID] = r
	}
	return here, horizon, nil
}
