package redisstore

import (
	"context"

	"tollgate/internal/limit"
)

// Key implements [limit.Store]. During an outage it shows what this replica
// knows: its own leases and use.
func (s *Store) Key(ctx context.Context, keyID string, caps limit.Caps) (limit.View, error) {
	view := limit.View{KeyID: keyID, QuotaUsed: -1, QuotaPeriod: caps.QuotaPeriod}
	err := s.do(ctx, "show key", func(ctx context.Context) error {
		r, err := s.conn.call(ctx, s.conn.scripts.view, keyID, caps.QuotaPeriod)
		if err != nil {
			return err
		}
		v, err := r.integers(8)
		if err != nil {
			return err
		}
		view.Slots, view.Leases, view.RequestsWindow, view.TokensWindow = v[0], v[1], v[2], v[3]
		view.Reserved, view.QuotaUsed, view.QuotaHeld, view.Debt = v[4], v[5], v[6], v[7]
		return nil
	}, func() error {
		var err error
		if view, err = s.local.memory.Key(ctx, keyID, caps); err != nil {
			return err
		}
		view.QuotaUsed = s.journal.quotaUsed(keyID, caps.QuotaPeriod)
		return nil
	})
	return view, err
}

// Totals implements [limit.Store]: the gauges over all replicas, and during an
// outage those of this one.
func (s *Store) Totals(ctx context.Context) (limit.Totals, error) {
	var t limit.Totals
	err := s.do(ctx, "show totals", func(ctx context.Context) error {
		r, err := s.conn.call(ctx, s.conn.scripts.totals)
		if err != nil {
			return err
		}
		v, err := r.integers(4)
		if err != nil {
			return err
		}
		t = limit.Totals{Leases: v[0], Slots: v[1], Reserved: v[2], Expired: uint64(max(v[3], 0))}
		return nil
	}, func() error {
		var err error
		t, err = s.local.memory.Totals(ctx)
		return err
	})
	return t, err
}
