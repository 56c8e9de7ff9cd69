package central

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"tollgate/internal/audit"
	"tollgate/internal/ledger"
)

// Source is the outbox of one gateway's ledger.
type Source interface {
	ID(ctx context.Context) (string, error)
	// Changes returns rows by change number, from after the given one.
	Changes(ctx context.Context, after int64, limit int) ([]ledger.Record, error)
	Backlog(ctx context.Context, after int64) (ledger.Backlog, error)
	// Changed receives after new changes.
	Changed() <-chan struct{}
	Mark(ctx context.Context, name string) (int64, error)
	SetMark(ctx context.Context, name string, value int64) error
	RaiseChange(ctx context.Context, above int64) error
	NumberOld(ctx context.Context, limit int) (int, error)
	// AuditAfter returns entries of the audit from after the given number.
	AuditAfter(ctx context.Context, seq int64, limit int) ([]audit.Entry, error)
}

const (
	// batchRows is the most rows in one statement: 17 ms of a quiet server.
	batchRows = 1000
	// gather is how long a change waits for others to share its statement, when the last batch is older than pace.
	gather = 50 * time.Millisecond
	// pace is between two batches of a gateway that is not behind. A statement costs a gateway half of what a short
	// answer does: a lone one is shipped at once, and steady load once a second.
	pace = time.Second
	// beat is how often a gateway with nothing to ship says so.
	beat = 2 * time.Second
	// putTimeout bounds one statement. A server that hangs is asked again after.
	putTimeout = 30 * time.Second
	// retryMin and retryMax bound the wait after a failure.
	retryMin = 100 * time.Millisecond
	retryMax = 5 * time.Second
	// lastWait is what the rows of the last second get at the end. What does not arrive waits in the ledger.
	lastWait = time.Second
	// oldRows is how many rows of an older program are numbered at a time.
	oldRows = 256
)

// Shipper carries the settled rows of one gateway's ledger to the central one.
type Shipper struct {
	to      *Ledger
	from    Source
	name    string
	mark    string
	log     hclog.Logger
	metrics *Metrics
	audited int64 // last entry of the audit that is stored there; below 0: unknown
}

// NewShipper ships from a gateway of the given name. The mark is where the
// gateway's ledger keeps the last change that is confirmed.
func NewShipper(to *Ledger, from Source, name, mark string, log hclog.Logger, m *Metrics) *Shipper {
	m.watch(from, mark)
	return &Shipper{to: to, from: from, name: name, mark: mark, log: log, metrics: m}
}

// Run ships until ctx ends, and then what is left, unless that fails already.
// Failures are logged when they begin and when they end, and tried again.
func (s *Shipper) Run(ctx context.Context) error {
	wait, failing := retryMin, false
	defer func() {
		if !failing {
			s.last(ctx)
		}
	}()
	for ctx.Err() == nil {
		err := s.ship(ctx, func() {
			s.metrics.up.Set(1)
			s.to.away.Store(false)
			if failing {
				s.log.Info("rows are shipped again")
			}
			wait, failing = retryMin, false
		})
		if ctx.Err() != nil {
			return nil // the stop was asked for
		}
		s.metrics.up.Set(0)
		s.to.away.Store(true)
		if !failing {
			s.log.Warn("rows are not shipped, they wait in the ledger", "error", err)
			failing = true
		}
		if !pause(ctx, wait) {
			return nil
		}
		wait = min(2*wait, retryMax)
	}
	return nil
}

// last ships what was settled since the last batch. Another gateway may be
// asked next, and this one may not come back.
func (s *Shipper) last(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWait)
	defer cancel()
	at, err := s.begin(ctx)
	for err == nil {
		var rows []ledger.Record
		if rows, err = s.from.Changes(ctx, at.Change, batchRows); len(rows) == 0 {
			break
		}
		err = s.put(ctx, rows, &at)
	}
	if err != nil {
		s.log.Info("the last rows wait in the ledger", "error", err)
	}
}

// pause waits, and reports false when the context ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// ship carries rows until something fails, and calls ok after each success.
func (s *Shipper) ship(ctx context.Context, ok func()) error {
	s.audited = -1
	at, err := s.begin(ctx)
	if err != nil {
		return err
	}
	numbered, spoke, sent := false, time.Time{}, time.Time{}
	for {
		rows, err := s.from.Changes(ctx, at.Change, batchRows)
		if err != nil {
			return fmt.Errorf("read outbox: %w", err)
		}
		if len(rows) > 0 || time.Since(spoke) >= beat {
			began := time.Now()
			if err := s.put(ctx, rows, &at); err != nil {
				return err
			}
			ok()
			spoke = time.Now()
			if len(rows) > 0 {
				sent = spoke
			}
			if len(rows) == batchRows {
				// Behind: half of the time at most, so that requests have the rest.
				if !pause(ctx, time.Since(began)) {
					return ctx.Err()
				}
				continue
			}
		}
		if err := s.shipAudit(ctx, at.Ledger); err != nil {
			return err
		}
		if !numbered {
			if numbered, err = s.number(ctx); err != nil {
				return err
			}
			if !numbered {
				continue
			}
		}
		if err := s.wait(ctx, sent); err != nil {
			return err
		}
	}
}

// number gives change numbers to some rows of an older program, and reports
// whether all have one.
func (s *Shipper) number(ctx context.Context) (all bool, err error) {
	n, err := s.from.NumberOld(ctx, oldRows)
	if err != nil {
		return false, fmt.Errorf("number old rows: %w", err)
	}
	return n == 0, nil
}

// wait returns shortly after the next change, and not before the pace allows
// another batch of rows after the last one; or when it is time to say that there is no
// change.
func (s *Shipper) wait(ctx context.Context, last time.Time) error {
	t := time.NewTimer(beat)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
	case <-s.from.Changed():
		if !pause(ctx, max(gather, pace-time.Since(last))) {
			return ctx.Err()
		}
	}
	return nil
}

// begin finds where to go on. The two sides may disagree after one of them was
// put back from a backup: rows are sent from the lower number on, which stores
// nothing twice, and new changes get numbers above the higher one.
func (s *Shipper) begin(ctx context.Context) (at Position, err error) {
	at = Position{Name: s.name}
	if at.Ledger, err = s.from.ID(ctx); err != nil {
		return at, err
	}
	here, err := s.from.Mark(ctx, s.mark)
	if err != nil {
		return at, err
	}
	there, err := s.to.lastChange(ctx, at.Ledger)
	if err != nil {
		return at, err
	}
	if err := s.from.RaiseChange(ctx, there); err != nil {
		return at, err
	}
	at.Change = min(here, there)
	if here > there {
		s.log.Warn("the central ledger knows less than it has confirmed: was it restored? Rows are shipped again", "confirmed", here, "known", there)
		if err := s.from.SetMark(ctx, s.mark, at.Change); err != nil {
			return at, err
		}
	}
	return at, nil
}

// put sends one batch and notes it here when it is confirmed.
func (s *Shipper) put(ctx context.Context, rows []ledger.Record, at *Position) error {
	if len(rows) > 0 {
		at.Change = rows[len(rows)-1].Change
	}
	left, err := s.from.Backlog(ctx, at.Change)
	if err != nil {
		return err
	}
	at.Rows, at.Age = left.Rows, age(left)
	began := time.Now()
	sending, cancel := context.WithTimeout(ctx, putTimeout)
	defer cancel()
	if err := s.to.Put(sending, rows, *at); err != nil {
		return err
	}
	if len(rows) == 0 {
		return nil
	}
	s.metrics.shipped.Add(float64(len(rows)))
	s.metrics.seconds.Observe(time.Since(began).Seconds())
	return s.from.SetMark(ctx, s.mark, at.Change)
}

func age(b ledger.Backlog) time.Duration {
	if b.Oldest.IsZero() {
		return 0
	}
	return max(0, time.Since(b.Oldest))
}

// lastChange is the last change of a ledger that is stored, 0 for a new one.
func (l *Ledger) lastChange(ctx context.Context, id string) (n int64, err error) {
	if err := l.migrate(ctx); err != nil {
		return 0, err
	}
	err = l.pool.QueryRow(ctx, "SELECT coalesce(max(last_change), 0) FROM tollgate.gateways WHERE ledger = $1", id).Scan(&n)
	if err != nil {
		return 0, failed(ctx, "read position", err)
	}
	return n, nil
}
