package admission_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"tollgate/internal/admission"
	"tollgate/internal/limit"
)

// forgetful is a store that has lost its quota counters until they are seeded again.
type forgetful struct {
	limit.Store
	lost error
}

func (f *forgetful) Extend(ctx context.Context, leaseID string, caps limit.Caps, total int64) (int64, error) {
	if f.lost != nil {
		return 0, f.lost
	}
	return f.Store.Extend(ctx, leaseID, caps, total)
}

func (f *forgetful) Seed(ctx context.Context, keyID, period string, used int64) error {
	if errors.Is(f.lost, limit.ErrUnseeded) {
		f.lost = nil
	}
	return f.Store.Seed(ctx, keyID, period, used)
}

func TestWhatExtendsAQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &forgetful{}
		b := newBench(t, unlimited, func(o *admission.Options) {
			o.Keys = fixedKeys{ring(t, `[{"key": "`+keyA+`", "id": "a", "user": "ann", "quota": 1000}]`)}
			store.Store = o.Limits
			o.Limits = store
		})
		s := b.live(keyA)
		covers := func(tokens int64) (bool, error) { return s.Covers(t.Context(), said(10, tokens, false), 0) }
		store.lost = limit.ErrUnseeded
		if ok, err := covers(300); !ok || err != nil {
			t.Errorf("a counter that was lost: %v, %v; want it seeded again", ok, err)
		}
		store.lost = limit.ErrLease
		if ok, err := covers(900); ok || !errors.Is(err, limit.ErrLease) {
			t.Errorf("a lease that was lost: %v, %v; want the error", ok, err)
		}
		store.lost = nil
		if ok, err := covers(1200); ok || err != nil {
			t.Errorf("a quota that is spent: %v, %v; want no and no error", ok, err)
		}
	})
}
