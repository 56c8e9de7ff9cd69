package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"tollgate/internal/ledger"
)

// op is one caller's work inside a group.
type op struct {
	// do runs in the transaction of a group, with the writer's context: a caller
	// that leaves must not break the others' transaction. What it returns as a refusal goes
	// to the caller alone; any other error ends the transaction, after which do
	// is called once more, in a transaction of its own.
	do func(context.Context, *tx) error
	// gone, when closed before do starts, makes the writer skip the op: its
	// caller does not wait any more and wants nothing written. Nil: always done.
	gone <-chan struct{}
	err  error
	done chan error // buffered, written once
}

// refusal is an answer of the ledger's rules, not of the storage.
type refusal struct{ err error }

func (r refusal) Error() string { return r.err.Error() }
func (r refusal) Unwrap() error { return r.err }

var errGone = refusal{errors.New("the caller left before the write began")}

// writer owns the only connection that writes. Its goroutine takes whatever is
// queued, up to batch, and commits it as one transaction: the busier, the
// larger the groups, with no delay when it is quiet.
type writer struct {
	db      *sql.DB
	conn    *sql.Conn
	st      *statements
	live    *liveRows // of run
	change  int64     // the last change number in the file; of run
	queue   chan *op
	batch   int
	log     hclog.Logger
	metrics *Metrics
	failing atomic.Bool // the last transaction could not be written

	changed chan struct{} // holds at most one
	stop    chan struct{} // closed by close: nothing new is taken
	stopped chan struct{} // closed by run at its end
}

// submit hands work to the writer and waits for its commit.
//
// An error of the context comes back as such where the op was queued already:
// it may still be written. Where it was not, the error is also
// [ledger.ErrUnavailable].
func (w *writer) submit(ctx context.Context, o *op) error {
	o.done = make(chan error, 1)
	select {
	case <-w.stop: // a select takes a random ready case: closed goes first
		return fmt.Errorf("%w: closed", ledger.ErrUnavailable)
	default:
	}
	w.metrics.backlog.Inc()
	select {
	case w.queue <- o:
	case <-ctx.Done():
		w.metrics.backlog.Dec()
		return fmt.Errorf("%w: queue is full: %w", ledger.ErrUnavailable, ctx.Err())
	case <-w.stop:
		w.metrics.backlog.Dec()
		return fmt.Errorf("%w: closed", ledger.ErrUnavailable)
	}
	select {
	case err := <-o.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-w.stopped:
	}
	select {
	case err := <-o.done:
		return err
	default: // queued after the last drain
		w.metrics.backlog.Dec()
		return fmt.Errorf("%w: closed", ledger.ErrUnavailable)
	}
}

// run is the writer's goroutine; close, not the context, ends it, after what is
// queued is written.
func (w *writer) run(ctx context.Context) {
	defer close(w.stopped)
	group := make([]*op, 0, w.batch)
	for {
		select {
		case o := <-w.queue:
			// Let other goroutines queue their writes first. On one processor each write
			// of a burst would otherwise be a transaction of its own.
			runtime.Gosched()
			w.commit(ctx, w.gather(append(group[:0], o)))
			continue
		case <-w.stop:
		}
		select {
		case o := <-w.queue:
			w.commit(ctx, w.gather(append(group[:0], o)))
		default:
			return
		}
	}
}

// gather adds what is queued now.
func (w *writer) gather(group []*op) []*op {
	for len(group) < w.batch {
		select {
		case o := <-w.queue:
			group = append(group, o)
		default:
			return group
		}
	}
	return group
}

// commit writes a group and answers its callers. Where the group fails, each
// member is tried alone, so that one bad row costs nobody else, and with a full
// disk the settlements that need no new page still pass.
func (w *writer) commit(ctx context.Context, group []*op) {
	err := w.transact(ctx, group)
	if err != nil {
		// Folding the WAL in lets its space be used again: on a full disk a
		// reserve for what was promised, as long as the file itself need not
		// grow. It waits for nobody, and where it fails too, the retries say so.
		_, _ = w.st.fold.ExecContext(ctx)
		for _, o := range group {
			if err = w.transact(ctx, []*op{o}); err != nil {
				o.err = unavailable(err)
			}
		}
	}
	w.note(err)
	for _, o := range group {
		w.metrics.backlog.Dec()
		o.done <- o.err
	}
}

// note logs when writing begins to fail and when it works again.
func (w *writer) note(err error) {
	switch {
	case err != nil && !w.failing.Swap(true):
		w.log.Error("ledger cannot be written", "error", err)
	case err == nil && w.failing.Swap(false):
		w.log.Info("ledger is written again")
	}
}

// transact runs ops in one transaction. Each op's own answer is left in op.err;
// the error is of the storage, and then nothing of the group was written.
func (w *writer) transact(ctx context.Context, group []*op) error {
	if _, err := w.st.begin.ExecContext(ctx); err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	w.live.begin()
	t := &tx{st: w.st, conn: w.conn, deltas: make(map[rollupKey]ledger.Sums, len(group)), live: w.live, change: w.change}
	if err := w.apply(ctx, t, group); err != nil {
		// SQLite has rolled back by itself after some errors; then this fails
		// and means the same.
		_, _ = w.st.rollback.ExecContext(ctx)
		return err
	}
	w.live.commit()
	if t.change != w.change {
		w.change = t.change
		select {
		case w.changed <- struct{}{}:
		default: // nobody has looked since the last one
		}
	}
	return nil
}

func (w *writer) apply(ctx context.Context, t *tx, group []*op) error {
	for _, o := range group {
		o.err = nil
		select {
		case <-o.gone:
			o.err = errGone
			continue
		default:
		}
		err := o.do(ctx, t)
		if errors.As(err, new(refusal)) {
			o.err = err
			continue
		}
		if err != nil {
			return err
		}
	}
	if err := t.flush(ctx); err != nil {
		return err
	}
	if _, err := w.st.commit.ExecContext(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// close writes what is queued and gives the connection back.
func (w *writer) close() error {
	close(w.stop)
	<-w.stopped
	return errors.Join(w.st.close(), w.conn.Close(), w.db.Close())
}

// unavailable marks an error of the storage.
func unavailable(err error) error { return fmt.Errorf("%w: %w", ledger.ErrUnavailable, err) }
