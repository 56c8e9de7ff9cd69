package main

import (
	"errors"
	"fmt"
	"io/fs"

	"tollgate/internal/ledger"
	"tollgate/internal/sqlitestore"
)

// ledgerCmd groups what works on the ledger itself.
type ledgerCmd struct {
	Verify    ledgerVerifyCmd    `cmd:"" help:"Check the ledger's invariants; exit 1 and the offending rows when one fails."`
	Reconcile ledgerReconcileCmd `cmd:"" help:"Compare the ledger with vLLM's own token counters; exit 1 when they differ by more than is allowed."`
	Export    ledgerExportCmd    `cmd:"" help:"Print the ledger's rows as CSV or JSON lines."`
	Central   centralCmd         `cmd:"" help:"Look at the ledger of all gateways, and fill it."`
	Backup    ledgerBackupCmd    `cmd:"" help:"Copy the whole ledger to a new file, also while the service runs."`
}

type ledgerVerifyCmd struct{ outputFlag }

// Help is what --help says beside the flags.
func (*ledgerVerifyCmd) Help() string {
	return `Checks one snapshot of the ledger, also while the service runs: that the file is
sound, that every settled row is whole and every open one has no end, that
counts and times make sense, and that the sums kept for quotas and reports
equal the rows.`
}

// Run prints one line for each violation.
func (c *ledgerVerifyCmd) Run(env *Env) error {
	r, path, err := openLedger(env)
	if err != nil {
		return err
	}
	if r == nil {
		return fmt.Errorf("no ledger at %s: nothing to verify", path)
	}
	found, err := r.Verify(env.Ctx)
	if err := errors.Join(err, r.Close(), showViolations(env, c.Output, found)); err != nil {
		return err
	}
	if len(found) > 0 {
		return fmt.Errorf("ledger at %s: invariants broken: %d", path, len(found))
	}
	fmt.Fprintf(env.verdict(c.Output), "ledger at %s: every invariant holds\n", path)
	return nil
}

// showViolations prints what was found; a table of nothing is no line at all.
func showViolations(env *Env, output string, found []ledger.Violation) error {
	if forPeople(output) && len(found) == 0 {
		return nil
	}
	return show(env, output, found,
		column[ledger.Violation]{name: "lease", cell: func(v ledger.Violation) string { return dash(v.LeaseID) }},
		column[ledger.Violation]{name: "rule", cell: func(v ledger.Violation) string { return string(v.Rule) }},
		column[ledger.Violation]{name: "detail", cell: func(v ledger.Violation) string { return v.Detail }},
	)
}

type ledgerBackupCmd struct {
	File string `arg:"" help:"File to write; it must not exist yet."`
}

// Help is what --help says beside the flags.
func (*ledgerBackupCmd) Help() string {
	return `Writes the ledger as it stands at one moment, whole and checked by SQLite, readable
by its owner only. To restore it, stop the service, remove ledger.db, ledger.db-wal
and ledger.db-shm in state_dir, put the copy there as ledger.db, and start.

  tollgate ledger backup "ledger-$(date +%F).db"`
}

// Run copies the ledger.
func (c *ledgerBackupCmd) Run(env *Env) error {
	cfg, err := env.Config()
	if err != nil {
		return err
	}
	switch err := sqlitestore.Backup(env.Ctx, cfg.LedgerPath(), c.File); {
	case errors.Is(err, fs.ErrExist):
		return usageError("%s exists: name a file that does not, nothing was written", c.File)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("no ledger at %s, or no folder for %s: %w", cfg.LedgerPath(), c.File, err)
	case err != nil:
		return err
	}
	fmt.Fprintf(env.Stderr, "wrote %s\n", c.File)
	return nil
}
