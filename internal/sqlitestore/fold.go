package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
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
// SQLite syncs the file, and writes the WAL again from its beginning, only when
// all of it is folded in, which beside a busy writer never happens. So the
// folder syncs the file itself, and now and then the writer folds the rest,
// between two commits; then there is little left to sync.
type folder struct {
	file    *os.File // of the ledger; closed after SQLite's own, or its locks would go with it
	conn    *sql.Conn
	stmt    *sql.Stmt
	log     hclog.Logger
	wake    chan struct{} // buffered: there is enough to fold
	rest    chan struct{} // buffered: the writer is to fold what is left
	stopped chan struct{} // closed by run at its end
	written int           // pages since the last wake, about; of the writer's goroutine

	mu sync.Mutex // held by whoever folds
	// broken: a sync of the file has failed. The system reports such a failure
	// once and forgets the pages, so the WAL is now the only place that surely
	// has them: nothing is folded any more, and at the next start all of it is.
	broken atomic.Bool
}

var errBroken = errors.New("the ledger's file could not be synced: nothing is folded into it before the next start")

func newFolder(ctx context.Context, db *sql.DB, file *os.File, log hclog.Logger) (*folder, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	stmt, err := conn.PrepareContext(ctx, foldQuery)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &folder{
		file: file, conn: conn, stmt: stmt, log: log,
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
		f.mu.Lock()
		pages, folded, err := f.fold(ctx, f.stmt)
		if err == nil {
			err = f.sync()
		}
		f.mu.Unlock()
		switch {
		case err != nil && !failing:
			f.log.Error("cannot fold the ledger's WAL into its file; it grows", "error", err)
		case err == nil && (pages >= restMost || pages >= restAfter && pages-folded <= little):
			signal(f.rest)
		}
		failing = err != nil
	}
}

// sync syncs the file, so that whoever folds the rest has not to.
func (f *folder) sync() error {
	if err := f.file.Sync(); err != nil {
		f.broken.Store(true)
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	return nil
}

// foldRest is the writer's part. It does not wait for the folder, which will
// ask again.
func (f *folder) foldRest(ctx context.Context, stmt *sql.Stmt) {
	if !f.mu.TryLock() {
		return
	}
	defer f.mu.Unlock()
	// Where it fails the WAL grows, and the folder's next turn says so.
	_, _, _ = f.fold(ctx, stmt)
}

// foldNow is for a writer that cannot write: the WAL's space may be used again.
func (f *folder) foldNow(ctx context.Context, stmt *sql.Stmt) {
	f.mu.Lock()
	defer f.mu.Unlock()
	// Where it fails too, the writer's next try says so.
	_, _, _ = f.fold(ctx, stmt)
}

// fold folds in what can be and returns the pages of the WAL and how many of
// them are in the file now. The caller holds mu.
func (f *folder) fold(ctx context.Context, stmt *sql.Stmt) (pages, folded int, err error) {
	if f.broken.Load() {
		return 0, 0, errBroken
	}
	var busy bool
	err = stmt.QueryRowContext(ctx).Scan(&busy, &pages, &folded)
	var e *sqlite.Error
	switch {
	case errors.As(err, &e) && e.Code() == sqlite3.SQLITE_IOERR_FSYNC:
		f.broken.Store(true)
		return 0, 0, fmt.Errorf("%w: %w", errBroken, err)
	case err != nil:
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
