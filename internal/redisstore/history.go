package redisstore

import (
	"context"
	"time"

	"tollgate/internal/limit"
)

// Seed implements [limit.Store].
func (s *Store) Seed(ctx context.Context, keyID, period string, used int64) error {
	used = bounded(used)
	return s.do(ctx, "seed quota", func(ctx context.Context) error {
		r, err := s.conn.call(ctx, s.conn.scripts.seed, keyID, period, number(used))
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
		s.journal.learn(keyID, period, v[0])
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
		_ = s.local.memory.Restore(ctx, keyID, ago, tokens, requests) // fails when closed
	}
	return s.do(ctx, "restore use", func(ctx context.Context) error {
		r, err := s.conn.call(ctx, s.conn.scripts.restore, keyID, number(ago.Microseconds()), number(tokens), number(requests))
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
		r, err := s.conn.call(ctx, s.conn.scripts.owe, keyID, number(min(limited, maxLimit)), number(unpaid))
		if err == nil && r.verdict != "ok" {
			err = unexpected(r.verdict)
		}
		return err
	}, func() error {
		s.journal.learnDebt(keyID, limited, unpaid)
		own := share(limited, s.local.peers.count())
		return s.local.memory.Owe(ctx, keyID, own, shareOfDebt(float64(unpaid), limited, own))
	})
}
