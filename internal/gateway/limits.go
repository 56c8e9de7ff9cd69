package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate/internal/admission"
	"tollgate/internal/limit"
	"tollgate/internal/redisstore"
)

// openLimits makes the store. In memory its windows are filled from the ledger;
// slots start empty, which is true, because the streams were cut. In Redis all
// of it has outlived us, and leases that were ours expire there.
func (g *Gateway) openLimits(ctx context.Context, own prometheus.Registerer) error {
	if g.cfg.Store.Kind == "redis" {
		if err := g.openRedis(ctx, own); err != nil {
			return err
		}
		admission.RegisterStore(own, g.limits) //nolint:contextcheck // read at every scrape
		return nil
	}
	g.limits = limit.NewMemory()
	own.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "store_partitioned", Help: "1 while the limits of this replica are its own share, because Redis does not answer.",
	}, func() float64 { return 0 })) // memory is never apart from itself
	admission.RegisterStore(own, g.limits) //nolint:contextcheck // read at every scrape
	return g.restore(ctx)
}

// restore fills the windows of the last minute from the ledger, and what the
// last hour has left to be waited out.
func (g *Gateway) restore(ctx context.Context) error {
	now := time.Now()
	seconds, err := g.ledger.Minute(ctx, now.Add(-limit.DebtSpan))
	if err != nil {
		return fmt.Errorf("read the last hour: %w", err)
	}
	uses := make(map[string][]limit.Use)
	for _, s := range seconds {
		ago := max(0, now.Sub(s.At))
		if err := g.limits.Restore(ctx, s.KeyID, ago, s.Tokens, s.Requests); err != nil {
			return fmt.Errorf("restore windows: %w", err)
		}
		uses[s.KeyID] = append(uses[s.KeyID], limit.Use{Ago: ago, Tokens: s.Tokens})
	}
	for id, used := range uses {
		key, ok := g.keys.Current().ByID(id)
		if !ok {
			continue
		}
		tokens := key.Caps(g.caps(), now).Tokens
		if err := g.limits.Owe(ctx, id, tokens, limit.Unpaid(used, tokens)); err != nil {
			return fmt.Errorf("restore debts: %w", err)
		}
	}
	return nil
}

// caps are the global limits and the defaults of each key.
func (g *Gateway) caps() limit.Caps {
	rl := g.cfg.RateLimit
	return limit.Caps{
		Global: orUnlimited(rl.Concurrent), Concurrent: orUnlimited(rl.ConcurrentPerKey),
		Requests: orUnlimited(rl.RequestsPerMinute), Tokens: orUnlimited(rl.TokensPerMinute), Quota: limit.Unlimited,
	}
}

// ErrStopped says that the start was given up because its context ended.
var ErrStopped = errors.New("stopped before the start")

const (
	// redisPause is between two attempts to join a Redis that does not answer.
	redisPause = time.Second
	// redisWord is between two lines that say so.
	redisWord = 10 * time.Second
)

// openRedis waits for Redis: where a whole site starts it may come later than we.
func (g *Gateway) openRedis(ctx context.Context, own prometheus.Registerer) error {
	r := g.cfg.Store.Redis
	o := redisstore.Options{
		Addresses: r.Addresses, Username: r.Username, PasswordFile: r.PasswordFile, DB: r.DB, TLS: r.TLS,
		Timeout: r.Timeout, Log: g.log.Named("redis"), Metrics: redisstore.NewMetrics(own),
	}
	var begun, said time.Time
	for begun = time.Now(); ; {
		store, err := redisstore.Open(ctx, o)
		switch {
		case err == nil:
			if !said.IsZero() {
				g.log.Info("redis answers", "waited", time.Since(begun).Round(time.Second))
			}
			g.limits = store
			return nil
		case errors.Is(err, redisstore.ErrOptions):
			return fmt.Errorf("open store: %w", err)
		case ctx.Err() != nil:
			return fmt.Errorf("wait for redis: %w", ErrStopped)
		}
		if time.Since(said) >= redisWord {
			said = time.Now()
			g.log.Warn("waiting for redis: make it answer at store.redis.addresses, or write store.kind: memory where this is the only replica",
				"addresses", r.Addresses, "waited", time.Since(begun).Round(time.Second), "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(redisPause):
		}
	}
}

func orUnlimited(n *int64) int64 {
	if n == nil {
		return limit.Unlimited
	}
	return *n
}
