package sqlitestore

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Exec runs SQL on the writing connection, inside a transaction of the writer.
func (s *Store) Exec(ctx context.Context, query string, args ...any) error {
	return s.w.submit(ctx, &op{do: func(ctx context.Context, t *tx) error {
		_, err := t.conn.ExecContext(ctx, query, args...)
		return err
	}})
}

// Fail submits a write that calls before and then fails.
func (s *Store) Fail(ctx context.Context, before func()) error {
	return s.w.submit(ctx, &op{do: func(context.Context, *tx) error {
		before()
		return errors.New("no such table")
	}})
}

// Transaction submits a write of nothing and returns what is the same for all
// writes of its group.
func (s *Store) Transaction(ctx context.Context) (group any, err error) {
	err = s.w.submit(ctx, &op{do: func(_ context.Context, t *tx) error {
		group = t
		return nil
	}})
	return group, err
}

// Remembered is how many rows the writer knows without reading them.
func (s *Store) Remembered(ctx context.Context) (n int, err error) {
	err = s.w.submit(ctx, &op{do: func(context.Context, *tx) error {
		n = len(s.w.live.rows)
		return nil
	}})
	return n, err
}

// Stall holds the writer inside an op until release is called, so that what is
// submitted meanwhile becomes one group.
func (s *Store) Stall() (release func()) {
	held, free := make(chan struct{}), make(chan struct{})
	go func() {
		_ = s.w.submit(context.Background(), &op{do: func(context.Context, *tx) error {
			close(held)
			<-free
			return nil
		}})
	}()
	<-held
	return func() { close(free) }
}

// Queued is how many writes wait.
func (s *Store) Queued() int { return len(s.w.queue) }

// Poison submits a write that breaks a constraint.
func (s *Store) Poison(ctx context.Context) error {
	return s.Exec(ctx, "INSERT INTO probe (id, at) VALUES (2, 0)")
}

// SetMigrations replaces the migrations until restore is called.
func SetMigrations(m []string) (restore func()) {
	old := migrations
	migrations = m
	return func() { migrations = old }
}

// Migrations are the real ones.
func Migrations() []string { return migrations }

// Queries are those that the service asks while it works, by name.
func Queries() map[string]string {
	return map[string]string{"open": openQuery, "minute": minuteQuery, "changes": fmt.Sprintf(changesQuery, columns)}
}

// Plan is how SQLite would answer a query.
func (s *Store) Plan(ctx context.Context, query string) (plan string, err error) {
	args := make([]any, strings.Count(query, "?")) // more than it takes where one is named twice
	for i := range args {
		args[i] = 1
	}
	if strings.Contains(query, "?1") {
		args = args[:1]
	}
	rows, err := s.db.QueryContext(ctx, "EXPLAIN QUERY PLAN "+query, args...)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			return "", err
		}
		plan += detail + "; "
	}
	return plan, rows.Err()
}
