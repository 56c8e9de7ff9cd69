package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/go-hclog"
)

// When the WAL is folded in, in pages of 4 KiB.
const (
	foldAfter = 2048  // written since the last time: fold beside the writer
	restAfter = 4096  // of WAL: the writer folds what is left, if that is little
	restMost  = 16384 // of WAL (64 MiB): the writer folds what is left
	little    = 128
)

// folder folds the WAL into the file beside the writer: a fold waits for two
// fsyncs, and no commit has to wait with it.
//
// SQLite writes a WAL again from its beginning only when all of it is folded
// in, which beside a busy writer never happens. So now and then the writer
// folds the rest itself, between two commits.
type folder struct {
	conn    *sql.Conn
	stmt    *sql.Stmt
	log     hclog.Logger
	wake    chan struct{} // buffered: there is enough to fold
	rest    chan struct{} // buffered: the writer is to fold what is left
	stopped chan struct{} // closed by run at its end
	written int           // pages since the last wake, about; of the writer's goroutine

	mu sync.Mutex // held by whoever folds
}

func newFolder(ctx context.Context, db *sql.DB, log hclog.Logger) (*folder, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	stmt, err := conn.PrepareContext(ctx, foldQuery)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &folder{
		conn: conn, stmt: stmt, log: log,
		wake: make(chan struct{}, 1), rest: make(chan struct{}, 1), stopped: make(chan struct{}),
	}, nil
}

// foldQuery waits for nobody: what a reader still needs stays in the WAL.
const foldQuery = "PRAGMA wal_checkpoint(PASSIVE)"

// run is the folder's goroutine; stop ends it.
func (f *folder) run(ctx context.Context, stop <-chan struct{}) {
	defer close(f.stopped)
	failing := false
	for {
		select {
		case <-f.wake:
		case <-stop:
			return
		}
		pages, folded, err := f.fold(ctx, f.stmt)
		switch {
		case err != nil && !failing:
			f.log.Warn("cannot fold the ledger's WAL into its file; it grows", "error", err)
		case pages >= restMost, pages >= restAfter && pages-folded <= little:
			signal(f.rest)
		}
		failing = err != nil
	}
}

// fold folds in what can be and returns the pages of the WAL and how many of
// them are in the file now.
func (f *folder) fold(ctx context.Context, stmt *sql.Stmt) (pages, folded int, err error) {
	f.mu.Lock() // the other one's fold would make this one a no-op
	defer f.mu.Unlock()
	var busy bool
	if err := stmt.QueryRowContext(ctx).Scan(&busy, &pages, &folded); err != nil {
		return 0, 0, fmt.Errorf("fold WAL: %w", err)
	}
	return pages, folded, nil
}

// wrote counts what the writer has written.
func (f *folder) wrote(pages int) {
	f.written += pages
	if f.written >= foldAfter {
		f.written = 0
		signal(f.wake)
	}
}

func (f *folder) close() error { return errors.Join(f.stmt.Close(), f.conn.Close()) }

// signal sends to a buffered channel what may be there already.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
