package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"tollgate/internal/central"
	"tollgate/internal/ledger"
	"tollgate/internal/sqlitestore"
)

// centralCmd groups what works on the ledger of all gateways.
type centralCmd struct {
	Status   centralStatusCmd   `cmd:"" help:"Show how far each gateway has shipped its rows."`
	Verify   centralVerifyCmd   `cmd:"" help:"Check the central ledger, and that it has what this gateway has shipped; exit 1 when not."`
	Backfill centralBackfillCmd `cmd:"" help:"Send settled rows of this gateway's ledger again; none is stored twice."`
}

// openCentral opens the configured central ledger. The caller closes it.
func openCentral(env *Env) (*central.Ledger, error) {
	cfg, err := env.Config()
	if err != nil {
		return nil, err
	}
	if cfg.Central.PostgresFile == "" {
		return nil, usageError("there is no central ledger: central.postgres_file is empty")
	}
	return central.Open(cfg.Central.PostgresFile)
}

type centralStatusCmd struct {
	outputFlag
}

// Run prints a line for each ledger that was ever shipped from.
func (c *centralStatusCmd) Run(env *Env) error {
	l, err := openCentral(env)
	if err != nil {
		return err
	}
	defer l.Close()
	all, err := l.Gateways(env.Ctx)
	if err != nil {
		return err
	}
	status := statusOf(l, all)
	if c.Output == "jsonl" || c.Output == "csv" {
		return show(env, c.Output, status.Gateways)
	}
	if err := showOne(env, c.Output, status, func(io.Writer) error {
		return show(env, "table", all,
			column[central.Gateway]{name: "gateway", cell: func(g central.Gateway) string { return g.Name }},
			column[central.Gateway]{name: "ledger", cell: func(g central.Gateway) string { return g.Ledger[:min(8, len(g.Ledger))] }},
			column[central.Gateway]{name: "last heard of", right: true, cell: func(g central.Gateway) string { return round(g.Silent) + " ago" }},
			column[central.Gateway]{name: "rows behind", right: true, cell: func(g central.Gateway) string { return strconv.FormatInt(g.Rows, 10) }},
			column[central.Gateway]{name: "oldest", right: true, cell: func(g central.Gateway) string { return round(g.Behind - g.Silent) }},
		)
	}); err != nil {
		return err
	}
	fmt.Fprintln(env.Stderr, lagOf(all))
	return nil
}

type gatewayStatus struct {
	central.Gateway
	SilentSeconds float64 `json:"silent_seconds"`
	BehindSeconds float64 `json:"behind_seconds"`
}

type centralStatus struct {
	Address  string          `json:"address"`
	Gateways []gatewayStatus `json:"gateways"`
}

func statusOf(l *central.Ledger, all []central.Gateway) centralStatus {
	s := centralStatus{Address: l.Address(), Gateways: []gatewayStatus{}}
	for _, g := range all {
		s.Gateways = append(s.Gateways, gatewayStatus{g, g.Silent.Seconds(), g.Behind.Seconds()})
	}
	return s
}

// lagOf says how far behind a report from the central ledger is.
func lagOf(all []central.Gateway) string {
	behind, gone := central.Behind(all)
	if len(all) == len(gone) {
		behind = 0
	}
	said := "the central ledger is at most " + round(behind) + " behind the gateways that run"
	if len(gone) == 0 {
		return said
	}
	names := make([]string, len(gone))
	for i, g := range gone {
		names[i] = fmt.Sprintf("%s (%s ago, %d rows behind then)", g.Name, round(g.Silent), g.Rows)
	}
	return said + "; not heard of: " + strings.Join(names, ", ")
}

func round(d time.Duration) string {
	switch {
	case d > time.Hour:
		return d.Round(time.Minute).String()
	case d > 10*time.Second:
		return d.Round(time.Second).String()
	}
	return d.Round(100 * time.Millisecond).String()
}

type centralVerifyCmd struct{ outputFlag }

// Help is what --help says beside the flags.
func (*centralVerifyCmd) Help() string {
	return `Checks that the sums kept for reports equal the rows, that the audit of each
gateway is a chain without a gap, and that each row that this
gateway's ledger has shipped is in the central one, with the same counts or better
known. It reads both ledgers from end to end; the service may run.`
}

// Run prints one line for each violation.
func (c *centralVerifyCmd) Run(env *Env) error {
	l, err := openCentral(env)
	if err != nil {
		return err
	}
	defer l.Close()
	found, err := l.Verify(env.Ctx)
	if err != nil {
		return err
	}
	broken, entries, err := l.VerifyAudit(env.Ctx)
	if err != nil {
		return err
	}
	found = append(found, broken...)
	compared, err := eachShipped(env, func(rows []ledger.Record) error {
		more, err := l.Compare(env.Ctx, rows)
		found = append(found, more...)
		return err
	})
	if err := errors.Join(err, showViolations(env, c.Output, found)); err != nil {
		return err
	}
	if len(found) > 0 {
		return fmt.Errorf("central ledger at %s: invariants broken: %d", l.Address(), len(found))
	}
	fmt.Fprintf(env.verdict(c.Output), "central ledger at %s: every invariant holds, also of %d entries of the audit, and it has the %d rows that this gateway has shipped\n",
		l.Address(), entries, compared)
	return nil
}

// pageRows is how many rows go over the wire at a time.
const pageRows = 1000

// eachShipped hands the rows of this gateway that are shipped to fn, page by
// page, and returns how many they were.
func eachShipped(env *Env, fn func([]ledger.Record) error) (n int, err error) {
	r, _, err := openLedger(env)
	if err != nil || r == nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	mark, err := r.Mark(env.Ctx, sqlitestore.MarkShipped)
	if err != nil {
		return 0, err
	}
	var last int64
	for {
		rows, err := r.Changes(env.Ctx, last, pageRows)
		if err != nil {
			return n, err
		}
		for len(rows) > 0 && rows[len(rows)-1].Change > mark {
			rows = rows[:len(rows)-1]
		}
		if len(rows) == 0 {
			return n, nil
		}
		if err := fn(rows); err != nil {
			return n, err
		}
		n, last = n+len(rows), rows[len(rows)-1].Change
	}
}

type centralBackfillCmd struct {
	Since string `placeholder:"TIME" help:"Only requests started at or after TIME: an age (24h, 7d), a UTC day (2026-11-01) or RFC 3339."`
	Until string `placeholder:"TIME" help:"Only requests started before TIME."`
}

// Help is what --help says beside the flags.
func (*centralBackfillCmd) Help() string {
	return `The service ships by itself, also what was recorded before there was a central
ledger, and goes back by itself when PostgreSQL was put back from a backup. This sends
settled rows of a period again, for a ledger file that no service runs on any more, or
to be sure. Rows that are stored in the same or a later state change nothing.

  tollgate ledger central backfill --since 30d`
}

// Run sends the rows.
func (c *centralBackfillCmd) Run(env *Env) (err error) {
	since, until, err := period(c.Since, c.Until)
	if err != nil {
		return err
	}
	l, err := openCentral(env)
	if err != nil {
		return err
	}
	defer l.Close()
	r, path, err := openLedger(env)
	if err != nil {
		return err
	}
	if r == nil {
		return fmt.Errorf("no ledger at %s: nothing to send", path)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	sent := 0
	var batch []ledger.Record
	send := func() error {
		sent += len(batch)
		err := l.Fill(env.Ctx, batch)
		batch = batch[:0]
		return err
	}
	if err := r.Each(env.Ctx, ledger.Filter{Since: since, Until: until}, func(rec ledger.Record) error {
		if rec.Open() {
			return nil
		}
		if batch = append(batch, rec); len(batch) < pageRows {
			return nil
		}
		return send()
	}); err != nil {
		return err
	}
	if err := send(); err != nil {
		return err
	}
	fmt.Fprintf(env.Stderr, "the central ledger at %s has the %d settled rows of %s%s\n", l.Address(), sent, path, inPeriod(c.Since, c.Until))
	return nil
}
