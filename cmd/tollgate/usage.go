package main

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"tollgate/internal/ledger"
	"tollgate/internal/sqlitestore"
)

// usageCmd reports the ledger's sums.
type usageCmd struct {
	By    string `default:"key" placeholder:"KEY[,DAY]" help:"Group by key, user, model, day, hour, requested_model or end_user; by two of them with a comma. hour counts the rows that ledger.keep_days has left."`
	Since string `placeholder:"TIME" help:"Only requests started at or after TIME: an age (24h, 7d), a UTC day (2026-11-01) or RFC 3339."`
	Until string `placeholder:"TIME" help:"Only requests started before TIME."`
	outputFlag
	Format string `enum:",table,json,jsonl,csv" default:"" placeholder:"FORMAT" help:"The same as --output."`
	Local  bool   `help:"Report the part of this gateway, where there is a central ledger."`
}

// Help is what --help says beside the flags.
func (*usageCmd) Help() string {
	return `Reads the ledger, also while the service runs. Requests count on the day they
started (UTC); live ones with what they have used so far. Where there is a central
ledger it is that of all gateways, without live requests, and says how far it is behind.

  tollgate usage
  tollgate usage --by model --since 7d
  tollgate usage --by day,user --since 30d
  tollgate usage --by day --since 2026-11-01 --until 2026-12-01 --output csv`
}

// Run prints the report.
func (c *usageCmd) Run(env *Env) error {
	since, until, err := period(c.Since, c.Until)
	if err != nil {
		return err
	}
	format := ledger.Format(c.Output)
	if c.Format != "" {
		format = ledger.Format(c.Format)
	}
	query := ledger.Query{Since: since, Until: until}
	if query.By, query.Then, err = ledger.ParseBy(c.By); err != nil {
		return usageError("--by: %w", err)
	}
	cfg, err := env.Config()
	if err != nil {
		return err
	}
	var groups []ledger.Group
	var where string
	if cfg.Central.PostgresFile != "" && !c.Local {
		groups, where, err = centralUsage(env, query)
	} else {
		var r *sqlitestore.Reader
		if r, where, err = openLedger(env); err != nil {
			return err
		}
		if r == nil {
			return noUsage(env, format, query, "no ledger at "+where+": nothing has been recorded yet")
		}
		if cfg.Store.Kind == "redis" && cfg.Central.PostgresFile == "" {
			fmt.Fprintln(env.Stderr, "store.kind is redis: where other gateways use it too, this is the part of this one; set central.postgres_file for the whole")
		}
		groups, err = r.Usage(env.Ctx, query)
		err = errors.Join(err, r.Close())
	}
	if err != nil {
		return err
	}
	if len(groups) == 0 {
		return noUsage(env, format, query, "no requests in the ledger at "+where+inPeriod(c.Since, c.Until))
	}
	return ledger.WriteUsage(env.Stdout, format, query, groups)
}

// centralUsage reports over all gateways, and says on stderr how far behind that
// is.
func centralUsage(env *Env, q ledger.Query) (groups []ledger.Group, where string, err error) {
	l, err := openCentral(env)
	if err != nil {
		return nil, "", err
	}
	defer l.Close()
	groups, err = l.Usage(env.Ctx, q)
	if err != nil {
		return nil, "", fmt.Errorf("%w; --local reports the part of this gateway", err)
	}
	all, err := l.Gateways(env.Ctx)
	if err == nil {
		fmt.Fprintln(env.Stderr, lagOf(all))
	}
	return groups, l.Address(), err
}

// noUsage says that there is nothing to report: to people in place of the
// table, to programs beside the empty report that they can read.
func noUsage(env *Env, format ledger.Format, query ledger.Query, why string) error {
	if format == ledger.Table {
		_, err := fmt.Fprintln(env.Stdout, why)
		return err
	}
	fmt.Fprintln(env.Stderr, why)
	return ledger.WriteUsage(env.Stdout, format, query, nil)
}

func inPeriod(since, until string) string {
	if since == "" && until == "" {
		return ""
	}
	return " in that period"
}

// period reads --since and --until. What cannot be read is wrong usage.
func period(since, until string) (from, to time.Time, err error) {
	now := time.Now()
	if from, err = ledger.ParseTime(since, now); err != nil {
		return from, to, usageError("--since: %w", err)
	}
	if to, err = ledger.ParseTime(until, now); err != nil {
		return from, to, usageError("--until: %w", err)
	}
	if err := (ledger.Query{By: ledger.ByKey, Since: from, Until: to}).Validate(); err != nil {
		return from, to, usageError("%w", err)
	}
	return from, to, nil
}

// openLedger opens the configured ledger for reading; the reader is nil where
// there is no file. The caller closes it.
func openLedger(env *Env) (r *sqlitestore.Reader, path string, err error) {
	cfg, err := env.Config()
	if err != nil {
		return nil, "", err
	}
	path = cfg.LedgerPath()
	r, err = sqlitestore.OpenReadOnly(env.Ctx, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, path, nil
	}
	return r, path, err
}
