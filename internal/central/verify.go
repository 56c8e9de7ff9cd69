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
			SELECT key_id, (started_at AT TIME ZONE 'UTC')::date AS day, "user", model, count(*) AS requests,
				sum(coalesce(prompt_tokens, 0)) AS prompt, sum(coalesce(completion_tokens, 0)) AS completion
			FROM tollgate.requests GROUP BY 1, 2, 3, 4
		), both_sides AS (
			SELECT key_id, day, "user", model,
				coalesce(s.requests - s.dropped_requests, 0) AS got_requests, coalesce(own.requests, 0) AS requests,
				coalesce(s.prompt_tokens - s.dropped_prompt_tokens, 0) AS got_prompt, coalesce(own.prompt, 0) AS prompt,
				coalesce(s.completion_tokens - s.dropped_completion_tokens, 0) AS got_completion, coalesce(own.completion, 0) AS completion
			FROM tollgate.rollups s FULL JOIN own USING (key_id, day, "user", model)
		)
		SELECT key_id, to_char(day, 'YYYY-MM-DD'), "user", model, got_requests, got_prompt, got_completion,
			requests::bigint, prompt::bigint, completion::bigint FROM both_sides
		WHERE (got_requests, got_prompt, got_completion) <> (requests, prompt, completion) ORDER BY 1, 2, 3, 4 LIMIT $1`, maxViolations)
	if err != nil {
		return nil, failed(ctx, "verify", err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (ledger.Violation, error) {
		var key, day, user, model string
		var got, want [3]int64
		err := row.Scan(&key, &day, &user, &model, &got[0], &got[1], &got[2], &want[0], &want[1], &want[2])
		return ledger.Violation{Rule: ledger.RuleRollup, Detail: fmt.Sprintf(
			"key %q, day %s, user %q, model %q: %d requests, %d prompt, %d completion tokens; the rows say %d, %d, %d",
			key, day, user, model, got[0], got[1], got[2], want[0], want[1], want[2])}, err
	})
	if err != nil {
		return nil, failed(ctx, "verify", err)
	}
	return found, nil
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
