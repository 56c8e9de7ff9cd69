package central

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"tollgate/internal/ledger"
)

// lockWait is how long a change of partitions waits for those who read or write
// them. They wait behind it meanwhile, so it is short, and the change is tried
// again later.
const lockWait = "3s"

// partition names the partition of a UTC day.
func partition(day time.Time) string { return "requests_" + day.Format("20060102") }

// makeDays makes the partitions of the rows' days where they are missing, and
// those of the days after them, so that nobody waits for one at midnight.
func (l *Ledger) makeDays(ctx context.Context, rows []ledger.Record) error {
	missing := map[string]time.Time{}
	l.mu.Lock()
	for i := range rows {
		for _, at := range []time.Time{rows[i].StartedAt, rows[i].StartedAt.AddDate(0, 0, 1)} {
			if name := partition(at.UTC()); !l.days[name] {
				missing[name] = at.UTC()
			}
		}
	}
	l.mu.Unlock()
	if len(missing) == 0 {
		return nil
	}
	err := pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(lockDays)); err != nil {
			return err
		}
		var script strings.Builder
		fmt.Fprintf(&script, "SET LOCAL lock_timeout = '%s';", lockWait)
		for name, at := range missing {
			var there bool
			if err := tx.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", "tollgate."+name).Scan(&there); err != nil {
				return err
			}
			if !there { // CREATE IF NOT EXISTS would lock the table for nothing
				fmt.Fprintf(&script, "CREATE TABLE tollgate.%s PARTITION OF tollgate.requests FOR VALUES FROM ('%s 00:00:00+00') TO ('%s 00:00:00+00');",
					name, at.Format(time.DateOnly), at.AddDate(0, 0, 1).Format(time.DateOnly))
			}
		}
		_, err := tx.Exec(ctx, script.String())
		return err
	})
	if err != nil {
		return fmt.Errorf("make partitions: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for name := range missing {
		l.days[name] = true
	}
	return nil
}

func (l *Ledger) forgetDays() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.days)
}

// Retain drops the partitions of days that ended before the time, and returns
// how many rows were in them. Their sums stay in the rollups. Gateways may call
// it at the same time: one of them does it.
func (l *Ledger) Retain(ctx context.Context, before time.Time) (rows int64, err error) {
	if err := l.migrate(ctx); err != nil {
		return 0, err
	}
	y, m, d := before.UTC().Date()
	first := time.Date(y, m, d, 0, 0, 0, 0, time.UTC) // the first day that stays
	for {
		n, more, err := l.dropOldest(ctx, first)
		rows += n
		if err != nil {
			return rows, failed(ctx, "drop old partitions", err)
		}
		if !more {
			return rows, nil
		}
	}
}

// dropOldest drops the oldest partition that lies before the day, in one
// transaction.
func (l *Ledger) dropOldest(ctx context.Context, first time.Time) (rows int64, more bool, err error) {
	err = pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		var mine bool
		if err := tx.QueryRow(ctx, "SELECT pg_try_advisory_xact_lock($1)", int64(lockRetain)).Scan(&mine); err != nil || !mine {
			return err
		}
		var name string
		err := tx.QueryRow(ctx, `SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
			WHERE i.inhparent = 'tollgate.requests'::regclass AND c.relname < $1 ORDER BY 1 LIMIT 1`, partition(first)).Scan(&name)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		day, err := time.Parse("20060102", strings.TrimPrefix(name, "requests_"))
		if err != nil {
			return fmt.Errorf("partition %s: %w", name, err)
		}
		rows, err = drop(ctx, tx, name, day.AddDate(0, 0, 1))
		more = err == nil
		return err
	})
	return rows, more, err
}

// drop keeps the sums of a partition in the rollups and removes it. It locks
// first, so that no row comes between the two.
func drop(ctx context.Context, tx pgx.Tx, name string, end time.Time) (rows int64, err error) {
	table := pgx.Identifier{"tollgate", name}.Sanitize()
	if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '"+lockWait+"'; LOCK TABLE tollgate.requests, "+table+" IN ACCESS EXCLUSIVE MODE"); err != nil {
		return 0, err
	}
	if _, err := tx.Exec(ctx, "UPDATE tollgate.horizon SET dropped_before = greatest(dropped_before, $1)", end); err != nil {
		return 0, err
	}
	if err := tx.QueryRow(ctx, `WITH gone AS (
			SELECT key_id, (started_at AT TIME ZONE 'UTC')::date AS day, "user", model, requested_model, end_user, count(*) AS requests,
				sum(coalesce(prompt_tokens, 0)) AS prompt, sum(coalesce(completion_tokens, 0)) AS completion,
				sum(coalesce(cached_tokens, 0)) AS cached, sum(`+failedIs+`) AS errors
			FROM `+table+` GROUP BY 1, 2, 3, 4, 5, 6
		), kept AS (
			UPDATE tollgate.rollups s SET dropped_requests = s.dropped_requests + gone.requests,
				dropped_prompt_tokens = s.dropped_prompt_tokens + gone.prompt,
				dropped_completion_tokens = s.dropped_completion_tokens + gone.completion,
				dropped_cached_tokens = s.dropped_cached_tokens + gone.cached, dropped_errors = s.dropped_errors + gone.errors
			FROM gone WHERE (s.key_id, s.day, s."user", s.model, s.requested_model, s.end_user)
				= (gone.key_id, gone.day, gone."user", gone.model, gone.requested_model, gone.end_user)
		) SELECT coalesce(sum(requests), 0)::bigint FROM gone`).Scan(&rows); err != nil {
		return 0, err
	}
	_, err = tx.Exec(ctx, "DROP TABLE "+table)
	return rows, err
}
