package redisstore

import (
	"context"
	"errors"
	"sync"

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
		s.local.spend(ctx, batch)
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
	r, err := s.conn.call(ctx, s.conn.scripts.spend, args...)
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
		if !known && !s.journal.putBack(b.LeaseID) {
			continue
		}
		s.journal.spent(b.LeaseID, bounded(b.Total), b.QuotaPeriod, known)
		if key, ok := s.journal.keyOf(b.LeaseID); ok && known {
			s.journal.learn(key, b.QuotaPeriod, v[2*i+1])
		}
	}
	s.local.spend(ctx, batch)
	return nil
}

// Release implements [limit.Store].
func (s *Store) Release(ctx context.Context, leaseID string, f limit.Final) (bool, error) {
	released := false
	s.journal.releasing(leaseID)
	err := s.do(ctx, "release lease", func(ctx context.Context) (err error) {
		released, err = s.releaseShared(ctx, leaseID, f, false)
		if err == nil { // gone there or not, it ends here
			s.endHere(ctx, leaseID, f, true)
		}
		return err
	}, func() error {
		released = s.endHere(ctx, leaseID, f, false)
		return nil
	})
	return released, err
}

// Lapse implements [limit.Store]. A lease that another replica has claimed is left
// to it; here it expires by itself.
func (s *Store) Lapse(ctx context.Context, leaseID string, f limit.Final) (bool, error) {
	lapsed := false
	err := s.do(ctx, "lapse lease", func(ctx context.Context) (err error) {
		if lapsed, err = s.releaseShared(ctx, leaseID, f, true); lapsed {
			s.endHere(ctx, leaseID, f, true)
		}
		return err
	}, func() error {
		own := f
		own.QuotaPeriod = s.local.period(f.QuotaPeriod)
		if lapsed, _ = s.local.memory.Lapse(ctx, leaseID, own); lapsed { // never fails
			s.journal.released(leaseID, f, false)
		}
		return nil
	})
	return lapsed, err
}

// releaseShared releases a lease in Redis; with unclaimed only one that nobody has
// claimed. It reports whether it did.
func (s *Store) releaseShared(ctx context.Context, leaseID string, f limit.Final, unclaimed bool) (bool, error) {
	key, _ := s.journal.keyOf(leaseID)
	r, err := s.conn.call(ctx, s.conn.scripts.release,
		leaseID, number(bounded(f.Total)), f.QuotaPeriod, flag(f.GiveBackRequest), flag(unclaimed))
	switch {
	case err != nil:
		return false, err
	case r.verdict == "gone":
		return false, nil
	case r.verdict != "ok":
		return false, unexpected(r.verdict)
	}
	v, err := r.integers(1)
	if err != nil {
		return false, err
	}
	s.journal.released(leaseID, f, true)
	s.journal.learn(key, f.QuotaPeriod, v[0]) // after our own count of it, which it has in it
	return true, nil
}

// endHere ends a lease in this replica and reports whether there was one.
func (s *Store) endHere(ctx context.Context, leaseID string, f limit.Final, confirmed bool) bool {
	ended := s.journal.released(leaseID, f, confirmed)
	s.local.release(ctx, leaseID, f)
	return ended
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
	r, err := s.conn.call(ctx, s.conn.scripts.renew, due...)
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
	for i, id := range due {
		if v[i] == 1 {
			s.journal.renewed(id)
		} else if s.journal.putBack(id) {
			s.maintainer.signal()
		}
	}
	return nil
}
