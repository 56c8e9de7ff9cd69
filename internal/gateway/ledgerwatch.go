package gateway

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	// lookEvery is between two looks at a ledger that can be written, lookAgain
	// at one that cannot.
	lookEvery = 5 * time.Second
	lookAgain = time.Second
	// lookTimeout bounds one look.
	lookTimeout = time.Second
)

// ledgerWatch knows whether the ledger can be written. It asks on its own time,
// so that a page that tells it does not write, however often it is read.
type ledgerWatch struct {
	ping   func(context.Context) error
	broken atomic.Bool
}

// newLedgerWatch watches a ledger that has just been opened, which wrote to it.
func newLedgerWatch(ping func(context.Context) error) *ledgerWatch {
	return &ledgerWatch{ping: ping}
}

// OK reports whether the last look found that the ledger can be written.
func (l *ledgerWatch) OK() bool { return !l.broken.Load() }

// Run looks until ctx ends.
func (l *ledgerWatch) Run(ctx context.Context) error {
	t := time.NewTimer(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		look, cancel := context.WithTimeout(ctx, lookTimeout)
		err := l.ping(look)
		cancel()
		if ctx.Err() != nil {
			return nil // the look was ended, and says nothing of the ledger
		}
		l.broken.Store(err != nil)
		if err != nil {
			t.Reset(lookAgain)
			continue
		}
		t.Reset(lookEvery)
	}
}
