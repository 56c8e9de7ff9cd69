package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"tollgate/internal/ledger"
	"tollgate/internal/sqlitestore"
)

type ledgerExportCmd struct {
	Format string `enum:"csv,jsonl,focus,cloudevents" default:"csv" help:"How to print: ${enum}."`
	Since  string `placeholder:"TIME" help:"Only requests started at or after TIME: an age (24h, 7d), a UTC day (2026-11-01) or RFC 3339."`
	Until  string `placeholder:"TIME" help:"Only requests started before TIME."`

	Key            string `name:"key-id" placeholder:"ID" help:"Only requests of this key."`
	RequestedModel string `placeholder:"M" help:"Only requests that named this model."`
	EndUser        string `placeholder:"U" help:"Only requests of this person behind a shared key."`

	CursorFile string        `placeholder:"FILE" help:"Only settled requests that no earlier export with this file has had; it notes how far this one came."`
	SettledFor time.Duration `default:"1m" help:"With --cursor-file: leave what ended more recently for the next time, when no correction is to be expected."`
	To         string        `placeholder:"URL" help:"With cloudevents: send the events there in batches instead of printing them."`
	TokenFile  string        `placeholder:"FILE" help:"With --to: a file that holds the bearer token."`
	Subject    string        `enum:"user,key,end_user" default:"user" help:"Who an event is put down to: ${enum}."`
}

// Help is what --help says beside the flags.
func (*ledgerExportCmd) Help() string {
	return `Streams rows in the order of their start, live requests included (they have no
end_reason). Counts that vLLM did not say are empty in CSV and null in JSON.

With --cursor-file it streams settled rows in the order of their change numbers, from
where the last export with that file ended. The file is written when everything was
delivered; after a failure rows may come again, and a row that is corrected later comes
again with a higher change. A receiver that keeps one row for each lease_id, or one event
for each id, so takes each request exactly once.

  tollgate ledger export --format jsonl --cursor-file billing.cursor >> billing.jsonl
  tollgate ledger export --format focus --since 2026-11-01 --until 2026-12-01
  tollgate ledger export --format cloudevents --cursor-file meter.cursor \
    --to https://openmeter.example/api/v1/events --token-file meter.token`
}

// Run streams the rows in bounded memory.
func (c *ledgerExportCmd) Run(env *Env) (err error) {
	since, until, err := period(c.Since, c.Until)
	if err != nil {
		return err
	}
	if c.To != "" && c.Format != "cloudevents" {
		return usageError("--to sends cloudevents: add --format cloudevents")
	}
	r, path, err := openLedger(env)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(env.Stdout, 64<<10)
	rows, err := c.exporter(env, out)
	if err != nil {
		return err
	}
	if r == nil {
		fmt.Fprintf(env.Stderr, "no ledger at %s: nothing has been recorded yet\n", path)
		return errors.Join(rows.Close(), out.Flush())
	}
	filter := ledger.Filter{Since: since, Until: until, KeyID: c.Key, RequestedModel: c.RequestedModel, EndUser: c.EndUser}
	next := int64(-1)
	if c.CursorFile == "" {
		err = r.Each(env.Ctx, filter, func(rec ledger.Record) error {
			if rec.Open() && (c.Format == "focus" || c.Format == "cloudevents") {
				return nil // nothing is consumed yet
			}
			return rows.Row(&rec)
		})
	} else {
		next, err = c.changes(env, r, filter, rows)
	}
	if err == nil {
		err = errors.Join(rows.Close(), out.Flush())
	}
	if err == nil && next >= 0 {
		err = renameio.WriteFile(c.CursorFile, fmt.Appendf(nil, "%d\n", next), 0o600)
	}
	return errors.Join(err, r.Close())
}

// exporter is what takes the rows.
func (c *ledgerExportCmd) exporter(env *Env, out io.Writer) (ledger.Exporter, error) {
	switch c.Format {
	case "jsonl":
		return ledger.NewJSONLines(out), nil
	case "focus":
		return ledger.NewFOCUS(out), nil
	case "cloudevents":
		return newEvents(env.Ctx, out, c.To, c.TokenFile, ledger.Subject(c.Subject))
	}
	return ledger.NewCSV(out), nil
}

// changes hands over what the cursor has not passed, and returns where the next
// export goes on.
func (c *ledgerExportCmd) changes(env *Env, r *sqlitestore.Reader, f ledger.Filter, rows ledger.Exporter) (next int64, err error) {
	if next, err = readCursor(c.CursorFile); err != nil {
		return 0, err
	}
	until := time.Now().Add(-c.SettledFor)
	for {
		page, err := r.Changes(env.Ctx, next, pageRows)
		if err != nil {
			return 0, err
		}
		for i := range page {
			if page[i].EndedAt.After(until) {
				return next, nil // this and what follows comes next time
			}
			if f.Match(&page[i]) {
				if err := rows.Row(&page[i]); err != nil {
					return 0, err
				}
			}
			next = page[i].Change
		}
		if len(page) < pageRows {
			return next, nil
		}
	}
}

// readCursor reads what an earlier export has noted; a missing file begins with
// the first change.
func readCursor(path string) (int64, error) {
	text, err := os.ReadFile(path) //nolint:gosec // the operator names it
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read cursor: %w", err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || n < 0 {
		return 0, usageError("%s holds no cursor: name the file of an earlier export, or one that does not exist to begin anew", path)
	}
	return n, nil
}
