package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"tollgate/internal/config"
	"tollgate/internal/reconcile"
)

type ledgerReconcileCmd struct {
	Allowed int64         `default:"0" placeholder:"TOKENS" help:"Difference that is allowed, in tokens."`
	Window  time.Duration `placeholder:"DURATION" help:"Compare over this long from now on, instead of since the last start of the service or the engine."`
}

// Help is what --help says beside the flags.
func (*ledgerReconcileCmd) Help() string {
	return `Compares, for each engine, the growth of vllm:prompt_tokens_total and
vllm:generation_tokens_total with the ledger's over the same time: since the
running service first saw the engine after the last restart of either, or over
--window from now on. Finished requests must be equal. Of requests that were cut
or estimated, or still run, the engine may have made more; the ledger is never
above it.`
}

// Run prints one line for each engine.
func (c *ledgerReconcileCmd) Run(env *Env) (err error) {
	if c.Allowed < 0 || c.Window < 0 {
		return usageError("--allowed and --window cannot be negative")
	}
	r, path, err := openLedger(env)
	if err != nil {
		return err
	}
	if r == nil {
		return fmt.Errorf("no ledger at %s: nothing to compare", path)
	}
	defer func() { _ = r.Close() }() // it was only read
	cfg, err := env.Config()
	if err != nil {
		return err
	}
	engines, err := c.engines(cfg)
	if err != nil {
		return err
	}
	bases, err := c.baselines(env.Ctx, engines, cfg.BaselinePath())
	if err != nil {
		return err
	}
	out := tabwriter.NewWriter(env.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "ENGINE\tSINCE\tPROMPT ENGINE\tLEDGER\tDRIFT\tCOMPLETION ENGINE\tLEDGER\tDRIFT\tREQUESTS\t")
	bad := 0
	for _, base := range bases {
		cmp, restarted, err := compare(env.Ctx, r, base, len(engines) == 1)
		if err != nil {
			return err
		}
		if restarted {
			return fmt.Errorf("engine %s has restarted since %s: compare again with --window, or when the service has noticed", base.Engine, base.At.Format(time.RFC3339))
		}
		verdict, ok := cmp.Judge(c.Allowed)
		if !ok {
			bad++
		}
		d, l := cmp.Drift(), cmp.Ledger
		fmt.Fprintf(out, "%s\t%s\t%d\t%d\t%+d\t%d\t%d\t%+d\t%d\t%s\n", cmp.Engine, cmp.Since.Format(time.RFC3339),
			cmp.Growth.Prompt, l.Prompt, d.Prompt, cmp.Growth.Generation, l.Generation, d.Generation,
			l.Finished+l.Cut+l.Guessed+l.Live, verdict)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	if bad > 0 {
		return fmt.Errorf("the ledger and %d of %d engines differ by more than %d tokens", bad, len(bases), c.Allowed)
	}
	return nil
}

func compare(ctx context.Context, book reconcile.Book, base reconcile.Baseline, alone bool) (reconcile.Comparison, bool, error) {
	client := reconcile.Client(base.Engine)
	defer client.Close()
	return reconcile.Compare(ctx, client, book, base, alone)
}

func take(ctx context.Context, engine string) (reconcile.Baseline, error) {
	client := reconcile.Client(engine)
	defer client.Close()
	return reconcile.Take(ctx, client)
}

// engines are those that the running service compares, which may have come at run
// time, and where there is none those of the file.
func (c *ledgerReconcileCmd) engines(cfg *config.Config) ([]string, error) {
	known, err := reconcile.Load(cfg.BaselinePath())
	if err != nil {
		return nil, err
	}
	all := cfg.EngineAddresses()
	for _, address := range slices.Sorted(maps.Keys(known)) {
		if !slices.Contains(all, address) {
			all = append(all, address)
		}
	}
	return all, nil
}

// baselines are those of the service, or with --window new ones after which
// that long has passed.
func (c *ledgerReconcileCmd) baselines(ctx context.Context, engines []string, path string) ([]reconcile.Baseline, error) {
	known, err := reconcile.Load(path)
	if err != nil {
		return nil, err
	}
	var out []reconcile.Baseline
	for _, e := range engines {
		base, ok := known[e]
		if c.Window > 0 {
			base, err = take(ctx, e)
		} else if !ok {
			err = fmt.Errorf("the service has not seen engine %s yet: start it, or compare with --window", e)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, base)
	}
	if c.Window == 0 {
		return out, nil
	}
	t := time.NewTimer(c.Window)
	defer t.Stop()
	select {
	case <-t.C:
		return out, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the window: %w", ctx.Err())
	}
}
