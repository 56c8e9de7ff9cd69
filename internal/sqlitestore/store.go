// Package sqlitestore keeps the ledger in one SQLite file.
//
// One goroutine writes: it commits what is queued as one transaction, so a
// write costs a share of a commit however many callers there are. Readers have
// connections of their own and never wait for it (WAL). A second process may
// read the same file at any time through [OpenReadOnly].
package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	_ "modernc.org/sqlite" // the driver

	"tollgate/internal/ledger"
	"tollgate/internal/usage"
)

var (
	// ErrSchema means that the file is no ledger, or one of a newer program.
	ErrSchema = errors.New("not a ledger of this program")
	// ErrLocked means that another process has the ledger open for writing.
	ErrLocked = errors.New("ledger is in use by another process")
)

// The values of Options.Sync.
const (
	// SyncProcess: what is acknowledged survives a crash of this process, not
	// of the machine.
	SyncProcess = "process"
	// SyncPower: what is acknowledged survives a loss of power; one fsync per
	// group.
	SyncPower = "power"
)

// Options say where and how the ledger is kept.
type Options struct {
	// Path of the file; it and its folder are made where missing.
	Path string
	// Sync is [SyncProcess] or [SyncPower]; empty means process.
	Sync string
	// Gateway is the name that is written into rows whose intent names none.
	Gateway string
	// Outbox keeps rows from retention until [MarkShipped] has passed them.
	Outbox bool
	// MaxBatch is the most writes in one transaction; 0 means 512.
	MaxBatch int
	// MaxQueue is how many writes may wait; 0 means 4096. Callers beyond it
	// wait until their context ends.
	MaxQueue int
	// Log hears when writing begins to fail and when it works again; nil: nobody.
	Log hclog.Logger
	// Metrics; nil: none are shown.
	Metrics *Metrics
}

// Store is the ledger of the service: a [ledger.Store] with reports.
//
// Every write is bounded by its context. A context that ends while a write
// waits gives the context's error, and then the write may still happen: an
// intent is dropped if its turn has not come, anything else is written. Callers
// treat such an intent as written and settle it ([ledger.ErrUnknown] says that
// it was not).
type Store struct {
	*Reader
	w      *writer
	name   string // of the gateway
	outbox bool
	lock   *os.File
	closed sync.Once
}

var _ ledger.Store = (*Store)(nil)

// chunk bounds how much one write may do at a time, so that long work
// (checkpoints of thousands of streams, recovery) lets settlements in between.
const chunk = 256

// Open opens the ledger for writing, brings its schema up to date and starts
// the writer; [Store.Close] ends it. Errors: [ErrLocked], [ErrSchema].
func Open(ctx context.Context, o Options) (*Store, error) {
	pragma, err := o.defaults()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(o.Path), 0o750); err != nil {
		return nil, fmt.Errorf("make ledger folder: %w", err)
	}
	lock, err := lockFile(o.Path + ".lock")
	if err != nil {
		return nil, err
	}
	w, err := openWriter(ctx, o, pragma)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	r, err := OpenReadOnly(ctx, o.Path)
	if err != nil {
		return nil, errors.Join(err, w.st.close(), w.conn.Close(), w.db.Close(), lock.Close())
	}
	go w.run(context.WithoutCancel(ctx)) // ended by Close
	return &Store{Reader: r, w: w, name: o.Gateway, outbox: o.Outbox, lock: lock}, nil
}

// defaults fills what is not said and returns SQLite's word for Sync.
func (o *Options) defaults() (synchronous string, err error) {
	if o.Log == nil {
		o.Log = hclog.NewNullLogger()
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	if o.MaxBatch <= 0 {
		o.MaxBatch = 512
	}
	if o.MaxQueue <= 0 {
		o.MaxQueue = 4096
	}
	switch o.Sync {
	case "", SyncProcess:
		return "NORMAL", nil
	case SyncPower:
		return "FULL", nil
	}
	return "", fmt.Errorf("open ledger: sync is %q, want process or power", o.Sync)
}

func openWriter(ctx context.Context, o Options, synchronous string) (*writer, error) {
	// SQLite would make it readable by everyone; its WAL takes the same mode.
	f, err := os.OpenFile(o.Path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	// The WAL is folded in after 16 MiB rather than SQLite's 4: the commit that folds it
	// waits for two fsyncs, which was one request in a hundred. A WAL that grew beside a
	// long reader is truncated when it starts again.
	db, err := sql.Open("sqlite", dsn(o.Path, "mode=rw", "busy_timeout(5000)", "journal_mode(WAL)", "synchronous("+synchronous+")",
		"cache_size(-4000)", "wal_autocheckpoint(4096)", "journal_size_limit(67108864)"))
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open ledger: %w", err), db.Close())
	}
	if err := migrate(ctx, conn); err != nil {
		return nil, errors.Join(fmt.Errorf("open ledger: %w", err), conn.Close(), db.Close())
	}
	st, err := prepare(ctx, conn)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open ledger: %w", err), conn.Close(), db.Close())
	}
	var change int64
	if err := conn.QueryRowContext(ctx, lastChange).Scan(&change); err != nil {
		return nil, errors.Join(fmt.Errorf("open ledger: read change number: %w", err), st.close(), conn.Close(), db.Close())
	}
	return &writer{
		db: db, conn: conn, st: st, change: change, live: newLiveRows(), batch: o.MaxBatch, log: o.Log, metrics: o.Metrics,
		changed: make(chan struct{}, 1), queue: make(chan *op, o.MaxQueue), stop: make(chan struct{}), stopped: make(chan struct{}),
	}, nil
}

// readerCache bounds what a reading connection holds, in KiB, and what it sorts in
// memory: the sums of a year are a few megabytes, which SQLite's own 2 would write to a
// temporary file and read again.
const readerCache = "cache_size(-16000)"

func dsn(path, mode string, pragmas ...string) string {
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + mode + "&" + url.Values{"_pragma": pragmas}.Encode()
}

// Begin implements [ledger.Store].
func (s *Store) Begin(ctx context.Context, in ledger.Intent) error {
	if err := in.Validate(); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	if in.Gateway == "" {
		in.Gateway = s.name
	}
	err := s.w.submit(ctx, &op{
		gone: ctx.Done(),
		do:   func(ctx context.Context, t *tx) error { return t.begin(ctx, in) },
	})
	if errors.Is(err, errGone) {
		err = fmt.Errorf("%w: %w", ledger.ErrUnavailable, ctx.Err())
	}
	return wrap("begin", err)
}

// Checkpoint implements [ledger.Store]. A large batch is written in parts.
func (s *Store) Checkpoint(ctx context.Context, batch []ledger.Checkpoint) error {
	for len(batch) > 0 {
		part := batch[:min(len(batch), chunk)]
		batch = batch[len(part):]
		own := append([]ledger.Checkpoint(nil), part...) // the caller may leave and reuse its slice
		err := s.w.submit(ctx, &op{do: func(ctx context.Context, t *tx) error {
			for _, c := range own {
				if err := t.checkpoint(ctx, c); err != nil {
					return err
				}
			}
			return nil
		}})
		if err != nil {
			return wrap("checkpoint", err)
		}
	}
	return nil
}

// Settle implements [ledger.Store].
func (s *Store) Settle(ctx context.Context, st ledger.Settlement) (ledger.Record, usage.Counts, error) {
	if err := st.Validate(); err != nil {
		return ledger.Record{}, usage.Counts{}, fmt.Errorf("settle: %w", err)
	}
	start := time.Now()
	// On the heap and read only after the answer: the caller may leave before.
	var answer struct {
		row   ledger.Record
		delta usage.Counts
	}
	out := &answer
	err := s.w.submit(ctx, &op{do: func(ctx context.Context, t *tx) (err error) {
		out.row, out.delta, err = t.settle(ctx, st)
		return err
	}})
	if err != nil {
		return ledger.Record{}, usage.Counts{}, wrap("settle", err)
	}
	s.w.metrics.settle.Observe(time.Since(start).Seconds())
	return out.row, out.delta, nil
}

// Recover implements [ledger.Store].
func (s *Store) Recover(ctx context.Context, leases []string, reason ledger.EndReason, at time.Time) (int, error) {
	check := ledger.Settlement{LeaseID: "-", Reason: reason, Quality: ledger.Partial}
	if err := check.Validate(); err != nil {
		return 0, fmt.Errorf("recover: %w", err)
	}
	total := 0
	for part := range slices.Chunk(leases, chunk) {
		own, n := slices.Clone(part), new(int) // the caller may leave and reuse its slice
		err := s.w.submit(ctx, &op{do: func(ctx context.Context, t *tx) error {
			*n = 0
			for _, lease := range own {
				ended, err := t.recover(ctx, lease, reason, at)
				if err != nil {
					return err
				}
				if ended {
					*n++
				}
			}
			return nil
		}})
		if err != nil {
			return total, wrap("recover", err)
		}
		total += *n
	}
	return total, nil
}

// Retain deletes settled rows that started before the time, in transactions of
// at most batch rows (0: 256), and returns how many. Their sums stay in the
// rollups, so quotas and reports by whole days do not change. It ends early,
// with what it did, when the context ends.
func (s *Store) Retain(ctx context.Context, before time.Time, batch int) (int, error) {
	if batch <= 0 {
		batch = chunk
	}
	return s.inParts(ctx, "delete old requests", batch, func(ctx context.Context, t *tx) (int, error) {
		return t.prune(ctx, before.UnixMicro(), batch, s.outbox)
	})
}

// inParts repeats a write that handles up to size rows until one handles fewer.
func (s *Store) inParts(ctx context.Context, what string, size int, do func(context.Context, *tx) (int, error)) (int, error) {
	total := 0
	for {
		n := new(int)
		err := s.w.submit(ctx, &op{do: func(ctx context.Context, t *tx) (err error) {
			*n, err = do(ctx, t)
			return err
		}})
		if err != nil {
			return total, wrap(what, err)
		}
		total += *n
		if *n < size {
			return total, nil
		}
	}
}

// Ping writes a mark and returns nil when it is on disk: the ledger can be
// used. Otherwise [ledger.ErrUnavailable], or the context's error.
func (s *Store) Ping(ctx context.Context) error {
	now := time.Now().UnixMicro()
	return wrap("ping ledger", s.w.submit(ctx, &op{do: func(ctx context.Context, t *tx) error {
		_, err := t.st.ping.ExecContext(ctx, now)
		return err
	}}))
}

// Close writes what is queued and closes the file. Calls after the first do
// nothing; writes after it are [ledger.ErrUnavailable].
func (s *Store) Close() error {
	var err error
	s.closed.Do(func() {
		// The writer goes last of the connections: SQLite then folds the WAL
		// into the file and removes it.
		err = errors.Join(s.Reader.Close(), s.w.close(), s.lock.Close())
	})
	if err != nil {
		return fmt.Errorf("close ledger: %w", err)
	}
	return nil
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
