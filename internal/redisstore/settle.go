package redisstore

import (
	"context"
	"errors"
	"sync"
	"time"

	"tollgate/internal/limit"
)

// perCall is how many leases one script takes, so that none holds Redis up for
// longer than a few milliseconds.
const perCall = 128

// Spend implements [limit.Store].
func (s *Store) Spend(ctx context.Context, batch []limit.Spend) error {
	if len(batch) == 0 {
		return nil
	}
	return s.do(ctx, "spend tokens", func(ctx context.Context) error {
		// What Redis took of it is not counted again when another part fails: a
		// total that is known already changes nothing.
		return inParts(batch, func(part []limit.Spend) error { return s.spendShared(ctx, part) })
	}, func() error {
		for _, b := range batch {
			s.journal.spent(b.LeaseID, bounded(b.Total), b.QuotaPeriod, false)
		}
		s.mirror(ctx, batch)
		return nil
	})
}

// inParts runs a call for each part of all at once, which the client sends in
// one pipeline.
func inParts[T any](all []T, call func(part []T) error) error {
	if len(all) <= perCall {
		return call(all)
	}
	var (
		group  sync.WaitGroup
		failed = make([]error, (len(all)-1)/perCall+1)
	)
	for i := range failed {
		group.Go(func() { failed[i] = call(all[i*perCall : min((i+1)*perCall, len(all))]) })
	}
	group.Wait()
	return errors.Join(failed...)
}

func (s *Store) spendShared(ctx context.Context, batch []limit.Spend) error {
	args := make([]string, 0, 3*len(batch))
	for _, b := range batch {
		args = append(args, b.LeaseID, number(bounded(b.Total)), b.QuotaPeriod)
	}
	r, err := s.call(ctx, s.scripts.spend, args...)
	if err != nil {
		return err
	}
	if r.verdict != "ok" {
		return unexpected(r.verdict)
	}
	v, err := r.integers(2 * len(batch))
	if err != nil {
		return err
	}
	for i, b := range batch {
		// A lease that Redis lost while its stream lives goes back there with all
		// that it spends from now on.
		known := v[2*i] == 1
		if !known && !s.journal.lost(b.LeaseID) {
			continue
		}
		s.journal.spent(b.LeaseID, bounded(b.Total), b.QuotaPeriod, known)
		if key, ok := s.journal.keyOf(b.LeaseID); ok && known {
			s.journal.saw(key, b.QuotaPeriod, v[2*i+1])
		}
	}
	s.mirror(ctx, batch)
	return nil
}

// Release implements [limit.Store].
func (s *Store) Release(ctx context.Context, leaseID string, f limit.Final) (bool, error) {
	released, used := false, int64(-1)
	s.journal.releasing(leaseID)
	key, _ := s.journal.keyOf(leaseID)
	err := s.do(ctx, "release lease", func(ctx context.Context) error {
		r, err := s.call(ctx, s.scripts.release, leaseID, number(bounded(f.Total)), f.QuotaPeriod, flag(f.GiveBackRequest))
		if err != nil {
			return err
		}
		switch r.verdict {
		case "ok":
			v, err := r.integers(1)
			if err != nil {
				return err
			}
			released, used = true, v[0]
		case "gone":
		default:
			return unexpected(r.verdict)
		}
		s.journal.released(leaseID, f, true)
		s.journal.saw(key, f.QuotaPeriod, used) // after our own count of it, which it has in it
		s.dismiss(ctx, leaseID, f)
		return nil
	}, func() error {
		released = s.journal.released(leaseID, f, false)
		s.dismiss(ctx, leaseID, f)
		return nil
	})
	return released, err
}

// Renew implements [limit.Store]. It may be called as often as one likes with
// all live leases: each is renewed when 4 s have passed since it last was.
// During an outage leases live in this replica and need none. A lease that
// Redis lost while its stream lives is put back.
func (s *Store) Renew(ctx context.Context, leaseIDs []string) error {
	due := s.journal.due(leaseIDs, s.renew)
	if len(due) == 0 {
		return nil
	}
	return s.do(ctx, "renew leases", func(ctx context.Context) error {
		return inParts(due, func(part []string) error { return s.renewShared(ctx, part) })
	}, func() error { return nil })
}

func (s *Store) renewShared(ctx context.Context, due []string) error {
	r, err := s.call(ctx, s.scripts.renew, due...)
	if err != nil {
		return err
	}
	if r.verdict != "ok" {
		return unexpected(r.verdict)
	}
	v, err := r.integers(len(due))
	if err != nil {
		return err
	}
	known := make([]bool, len(v))
	for i := range v {
		known[i] = v[i] == 1
	}
	if s.journal.renewed(due, known) {
		s.rouse()
	}
	return nil
}

// Seed implements [limit.Store].
func (s *Store) Seed(ctx context.Context, keyID, period string, used int64) error {
	used = bounded(used)
	return s.do(ctx, "seed quota", func(ctx context.Context) error {
		r, err := s.call(ctx, s.scripts.seed, keyID, period, number(used))
		if err != nil {
			return err
		}
		if r.verdict != "ok" {
			return unexpected(r.verdict)
		}
		v, err := r.integers(1)
		if err != nil {
			return err
		}
		s.journal.saw(keyID, period, v[0])
		return nil
	}, func() error {
		s.journal.seed(keyID, period, used)
		return nil
	})
}

// Restore implements [limit.Store]. Redis survives a restart of a replica with
// all that it holds, so a gateway on this store has nothing to restore.
func (s *Store) Restore(ctx context.Context, keyID string, ago time.Duration, tokens, requests int64) error {
	ago, tokens, requests = max(ago, 0), bounded(tokens), bounded(requests)
	if ago >= limit.Window {
		return nil
	}
	note := func(shared bool) {
		s.journal.restored(keyID, time.Now().Add(-ago), requests, tokens, shared)
		_ = s.shadow.Restore(ctx, keyID, ago, tokens, requests) // fails when closed
	}
	return s.do(ctx, "restore use", func(ctx context.Context) error {
		r, err := s.call(ctx, s.scripts.restore, keyID, number(ago.Microseconds()), number(tokens), number(requests))
		if err != nil {
			return err
		}
		if r.verdict != "ok" {
			return unexpected(r.verdict)
		}
		note(true)
		return nil
	}, func() error {
		note(false)
		return nil
	})
}

// Owe implements [limit.Store].
func (s *Store) Owe(ctx context.Context, keyID string, limited, unpaid int64) error {
	unpaid = bounded(unpaid)
	return s.do(ctx, "bring back debt", func(ctx context.Context) error {
		r, err := s.call(ctx, s.scripts.owe, keyID, number(min(limited, maxLimit)), number(unpaid))
		if err == nil && r.verdict != "ok" {
			err = unexpected(r.verdict)
		}
		return err
	}, func() error {
		s.journal.sawDebt(keyID, limited, unpaid)
		own := share(limited, s.replicas.Load())
		return s.shadow.Owe(ctx, keyID, own, owedAlone(float64(unpaid), limited, own))
	})
}

// Key implements [limit.Store]. During an outage it shows what this replica
// knows: its own leases and use.
func (s *Store) Key(ctx context.Context, keyID string, caps limit.Caps) (limit.View, error) {
	view := limit.View{KeyID: keyID, QuotaUsed: -1, QuotaPeriod: caps.QuotaPeriod}
	err := s.do(ctx, "show key", func(ctx context.Context) error {
		r, err := s.call(ctx, s.scripts.view, keyID, caps.QuotaPeriod)
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
		if view, err = s.shadow.Key(ctx, keyID, caps); err != nil {
			return err
		}
		view.QuotaUsed = s.journal.used(keyID, caps.QuotaPeriod)
		return nil
	})
	return view, err
}

// Totals implements [limit.Store]: the gauges over all replicas, and during an
// outage those of this one.
func (s *Store) Totals(ctx context.Context) (limit.Totals, error) {
	var t limit.Totals
	err := s.do(ctx, "show totals", func(ctx context.Context) error {
		r, err := s.call(ctx, s.scripts.totals)
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
		t, err = s.shadow.Totals(ctx)
		return err
	})
	return t, err
}
