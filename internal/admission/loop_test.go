package admission_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tollgate/internal/admission"
	"tollgate/internal/ledger"
	"tollgate/internal/limit"
	"tollgate/internal/usage"
)

// hanging is a ledger that does not answer, neither yes nor no.
type hanging struct{ ledger.Store }

func (hanging) Checkpoint(ctx context.Context, _ []ledger.Checkpoint) error {
	<-ctx.Done()
	return ctx.Err()
}

func (hanging) Settle(ctx context.Context, _ ledger.Settlement) (ledger.Record, usage.Counts, error) {
	<-ctx.Done()
	return ledger.Record{}, usage.Counts{}, ctx.Err()
}

// renewals is a store that notes when a lease was renewed last.
type renewals struct {
	limit.Store
	last atomic.Int64
}

func (r *renewals) Renew(ctx context.Context, leaseIDs []string) error {
	r.last.Store(time.Now().UnixNano())
	return r.Store.Renew(ctx, leaseIDs)
}

func TestLeasesLiveOnWhileTheLedgerHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &renewals{}
		b := newBench(t, unlimited, func(o *admission.Options) {
			o.Ledger = hanging{o.Ledger}
			store.Store = o.Limits
			o.Limits = store
		})
		s := b.live(keyA)
		s.Progress(usage.Counts{Prompt: 3, Completion: 1})
		time.Sleep(time.Minute)
		synctest.Wait()
		if ago := time.Since(time.Unix(0, store.last.Load())); ago > time.Second {
			t.Errorf("renewed last %v ago while the ledger hangs", ago)
		}
	})
}
