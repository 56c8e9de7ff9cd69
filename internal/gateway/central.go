package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"tollgate/internal/admin"
	"tollgate/internal/apikey"
	"tollgate/internal/central"
	"tollgate/internal/ledger"
	"tollgate/internal/sqlitestore"
)

const (
	// seedWait bounds what a decision waits for the central ledger, once for each
	// key and quota period. Envoy waits a second for the whole decision.
	seedWait = 250 * time.Millisecond
	// reportWait bounds a report of usage.
	reportWait = 30 * time.Second
)

// centralLedger is the ledger of all gateways as this one uses it; nil where it
// stands alone.
type centralLedger struct {
	*central.Ledger
	shipper  *central.Shipper
	keys     *central.Keys // nil: they are in the key file
	id       string        // of this gateway's ledger
	keepDays int
	log      hclog.Logger
}

// dialCentral reads where PostgreSQL is. It does not wait for it.
func (g *Gateway) dialCentral() error {
	if g.cfg.Central.PostgresFile == "" {
		return nil
	}
	l, err := central.Open(g.cfg.Central.PostgresFile)
	if err != nil {
		return fmt.Errorf("use the central ledger: %w", err)
	}
	g.central = &centralLedger{Ledger: l, keepDays: g.cfg.Ledger.KeepDays, log: g.log.Named("central")}
	return nil
}

// openSharedKeys loads the keys that live in PostgreSQL, or the last copy of
// them; secret is that of a new admin key where there were none at all.
func (g *Gateway) openSharedKeys(ctx context.Context, own prometheus.Registerer) (where, secret string, err error) {
	c, copied := g.central, g.cfg.KeysPath()
	c.keys = central.NewKeys(c.Ledger, g.cfg.Auth.APIKeysFile, copied, g.log.Named("keys"))
	c.keys.Register(own)
	if secret, err = c.keys.Begin(ctx); err != nil {
		return "", "", fmt.Errorf("read keys: %w", err)
	}
	g.keys, err = apikey.OpenShared(copied, c.keys, g.log.Named("keys"))
	if err != nil {
		return "", "", fmt.Errorf("read keys: %w", err)
	}
	return "the first keys to PostgreSQL", secret, nil
}

// followKeys takes changes that were made elsewhere until ctx ends.
func (g *Gateway) followKeys(ctx context.Context) error {
	if g.central == nil || g.central.keys == nil {
		<-ctx.Done()
		return nil
	}
	return g.central.keys.Run(ctx, func() {
		if err := g.keys.Load(); err != nil {
			g.log.Error("keys were not taken over, the last good ones stay", "error", err)
		}
	})
}

// openCentral prepares the shipping of the ledger. What is recorded while
// PostgreSQL is away is shipped when it answers.
func (g *Gateway) openCentral(ctx context.Context, name string, own prometheus.Registerer) (err error) {
	c := g.central
	if c == nil {
		return nil
	}
	if c.id, err = g.ledger.ID(ctx); err != nil {
		return fmt.Errorf("name the ledger: %w", err)
	}
	//nolint:contextcheck // the outbox is looked at whenever the metrics are read
	c.shipper = central.NewShipper(c.Ledger, g.ledger, name, sqlitestore.MarkShipped, c.log, central.NewMetrics(own))
	return nil
}

func (c *centralLedger) close() {
	if c != nil {
		c.Close()
	}
}

// run ships until ctx ends, and drops what is older than ledger.keep_days.
func (c *centralLedger) run(ctx context.Context) error {
	if c == nil {
		<-ctx.Done()
		return nil
	}
	retained := make(chan struct{})
	go func() {
		defer close(retained)
		c.retain(ctx)
	}()
	defer func() { <-retained }()
	return c.shipper.Run(ctx)
}

// retain drops old partitions.
func (c *centralLedger) retain(ctx context.Context) {
	t := time.NewTicker(retainEvery)
	defer t.Stop()
	for {
		n, err := c.Retain(ctx, time.Now().AddDate(0, 0, -c.keepDays))
		if n > 0 {
			c.log.Info("dropped old records of the central ledger", "requests", n)
		}
		if err != nil && !errors.Is(err, central.ErrUnavailable) && ctx.Err() == nil {
			c.log.Warn("cannot drop old records of the central ledger", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// view tells the admin API how far behind the central ledger is; nil where there
// is none.
func (c *centralLedger) view() admin.Central {
	if c == nil {
		return nil
	}
	return c
}

// Lag implements [admin.Central].
func (c *centralLedger) Lag(ctx context.Context) (behind time.Duration, gone []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, reportWait)
	defer cancel()
	all, err := c.Gateways(ctx)
	if err != nil {
		return 0, nil, err
	}
	behind, silent := central.Behind(all)
	for _, g := range silent {
		gone = append(gone, g.Name)
	}
	return behind, gone, nil
}

// accounts is the ledger that requests are recorded in, with sums over all
// gateways where there is a central one.
type accounts struct {
	*sqlitestore.Store
	central *centralLedger
}

var _ ledger.Store = accounts{}

// Used sums what all gateways have shipped and what this one has not. While
// PostgreSQL is away it is what this gateway knows: a decision does not wait.
func (a accounts) Used(ctx context.Context, keyID string, since, until time.Time) (int64, error) {
	if a.central == nil {
		return a.Store.Used(ctx, keyID, since, until)
	}
	if a.central.Away() {
		return a.Store.Used(ctx, keyID, since, until)
	}
	ask, cancel := context.WithTimeout(ctx, seedWait)
	defer cancel()
	all, shipped, err := a.central.Used(ask, keyID, since, until, a.central.id)
	if err != nil {
		return a.Store.Used(ctx, keyID, since, until)
	}
	rest, err := a.UsedAfter(ctx, keyID, since, until, shipped)
	return all + rest, err
}

// Usage reports over all gateways.
func (a accounts) Usage(ctx context.Context, q ledger.Query) ([]ledger.Group, error) {
	if a.central == nil {
		return a.Store.Usage(ctx, q)
	}
	ctx, cancel := context.WithTimeout(ctx, reportWait)
	defer cancel()
	return a.central.Usage(ctx, q)
}

// partsEvery is between two looks for other gateways.
const partsEvery = time.Minute

// warnOfParts says once that there are other gateways whose usage no report of
// this one has.
func (g *Gateway) warnOfParts(ctx context.Context) error {
	shared, ok := g.limits.(interface{ Peers() int })
	t := time.NewTicker(partsEvery)
	defer t.Stop()
	for said := !ok || g.central != nil; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		if said || shared.Peers() == 0 {
			continue
		}
		said = true
		g.log.Warn("other gateways share the limits, and usage shows the part of this one only; set central.postgres_file for the whole",
			"others", shared.Peers())
	}
}
