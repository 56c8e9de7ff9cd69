package main

import (
	"bufio"
	"errors"
	"fmt"

	"tollgate/internal/ledger"
)

// ledgerCmd groups what works on the ledger itself.
type ledgerCmd struct {
	Verify    ledgerVerifyCmd    `cmd:"" help:"Check the ledger's invariants; exit 1 and the offending rows when one fails."`
	Reconcile ledgerReconcileCmd `cmd:"" help:"Compare the ledger with vLLM's own token counters; exit 1 when they differ by more than is allowed."`
	Export    ledgerExportCmd    `cmd:"" help:"Print the ledger's rows as CSV or JSON lines."`
}

type ledgerVerifyCmd struct{}

// Help is what --help says beside the flags.
func (*ledgerVerifyCmd) Help() string {
	return `Checks one snapshot of the ledger, also while the service runs: that the file is
sound, that every settled row is whole and every open one has no end, that
counts and times make sense, and that the sums kept for quotas and reports
equal the rows.`
}

// Run prints one line for each violation.
func (*ledgerVerifyCmd) Run(env *Env) error {
	r, path, err := openLedger(env)
	if err != nil {
		return err
	}
	if r == nil {
		return fmt.Errorf("no ledger at %s: nothing to verify", path)
	}
	found, err := r.Verify(env.Ctx)
	for _, v := range found {
		lease := v.LeaseID
		if lease == "" {
			lease = "-"
		}
		fmt.Fprintf(env.Stdout, "%s\t%s\t%s\n", lease, v.Rule, v.Detail)
	}
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	if len(found) > 0 {
		return fmt.Errorf("ledger at %s: invariants broken: %d", path, len(found))
	}
	fmt.Fprintf(env.Stdout, "ledger at %s: every invariant holds\n", path)
	return nil
}

type ledgerExportCmd struct {
	Format string `enum:"csv,jsonl" default:"csv" help:"How to print: csv or jsonl."`
	Since  string `placeholder:"TIME" help:"Only requests started at or after TIME: an age (24h, 7d), a UTC day (2026-11-01) or RFC 3339."`
	Until  string `placeholder:"TIME" help:"Only requests started before TIME."`
}

// Help is what --help says beside the flags.
func (*ledgerExportCmd) Help() string {
	return `Streams rows in the order of their start, live requests included (they have no
end_reason). Counts that vLLM did not say are empty in CSV and null in JSON.`
}

// Run streams the rows in bounded memory.
func (c *ledgerExportCmd) Run(env *Env) (err error) {
	since, until, err := period(c.Since, c.Until)
	if err != nil {
		return err
	}
	r, path, err := openLedger(env)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(env.Stdout, 64<<10)
	rows := ledger.NewCSV(out)
	if c.Format == "jsonl" {
		rows = ledger.NewJSONLines(out)
	}
	defer func() { err = errors.Join(err, rows.Close(), out.Flush()) }()
	if r == nil {
		fmt.Fprintf(env.Stderr, "no ledger at %s: nothing has been recorded yet\n", path)
		return nil
	}
	err = r.Each(env.Ctx, ledger.Filter{Since: since, Until: until}, func(rec ledger.Record) error {
		return rows.Row(&rec)
	})
	return errors.Join(err, r.Close())
}
