package sqlitestore

import "context"

// Exec runs SQL on the writing connection, inside a transaction of the writer.
func (s *Store) Exec(ctx context.Context, query string, args ...any) error {
	return s.w.submit(ctx, &op{do: func(ctx context.Context, t *tx) error {
		_, err := t.conn.ExecContext(ctx, query, args...)
		return err
	}})
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
