package reconcile

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/google/renameio/v2"

	"tollgate/internal/ledger"
	"tollgate/internal/vllm"
)

// Book is the part of the ledger that is read: rows in the order of their start.
type Book interface {
	Each(ctx context.Context, f ledger.Filter, fn func(ledger.Record) error) error
}

// Baseline is the beginning of a window: the counters of an engine at one moment.
type Baseline struct {
	Engine string    `json:"engine"`
	At     time.Time `json:"at"`
	Reading
}

// Take makes a baseline of the engine's counters as they are now.
func Take(ctx context.Context, client *vllm.Client) (Baseline, error) {
	c, err := scrape(ctx, client)
	if err != nil {
		return Baseline{}, err
	}
	// The clock is read after the counters. Tokens made in between count for the engine
	// and not for the ledger, so the ledger cannot seem to be above the engine.
	return Baseline{Engine: client.Address(), At: time.Now().UTC(), Reading: c}, nil
}

// Load reads the baselines that a [Watcher] has written; none where there is
// no file.
func Load(path string) (map[string]Baseline, error) {
	b, err := os.ReadFile(path) //nolint:gosec // the state folder's
	if os.IsNotExist(err) {
		return map[string]Baseline{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read baselines: %w", err)
	}
	var list []Baseline
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("decode baselines %s: %w", path, err)
	}
	out := make(map[string]Baseline, len(list))
	for _, l := range list {
		out[l.Engine] = l
	}
	return out, nil
}

func save(path string, list []Baseline) error {
	b, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("encode baselines: %w", err)
	}
	if err := renameio.WriteFile(path, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write baselines: %w", err)
	}
	return nil
}

// straddleLook bounds how long before a window a request may have begun that ends in
// it.
const straddleLook = 24 * time.Hour

// Compare reads the ledger since a baseline, then the engine: in this order the engine
// cannot seem to be behind. alone means that there is no other engine, so that every
// record belongs to this one. restarted means that the engine has restarted since the
// baseline; then there is nothing to compare.
func Compare(ctx context.Context, client *vllm.Client, book Book, base Baseline, alone bool) (c Comparison, restarted bool, err error) {
	c = Comparison{Engine: base.Engine, Since: base.At}
	mine := owner(ctx, base.Engine, alone)
	err = book.Each(ctx, ledger.Filter{Since: base.At.Add(-straddleLook)}, func(r ledger.Record) error {
		switch {
		case !mine(&r):
		case !r.StartedAt.Before(base.At):
			c.Ledger.add(&r)
		case r.Open(), !r.EndedAt.Before(base.At):
			c.Straddling++
		}
		return nil
	})
	if err != nil {
		return c, false, fmt.Errorf("read ledger: %w", err)
	}
	now, err := scrape(ctx, client)
	if err != nil {
		return c, false, err
	}
	c.Until = time.Now().UTC()
	if now.anew(base.Reading) {
		return c, true, nil
	}
	c.Growth = now.minus(base.Counters)
	return c, false, nil
}

// owner returns a function that reports whether a record belongs to the engine.
func owner(ctx context.Context, engine string, alone bool) func(*ledger.Record) bool {
	if alone {
		return func(*ledger.Record) bool { return true }
	}
	known := names(ctx, engine)
	return func(r *ledger.Record) bool { return known[r.Engine] }
}
