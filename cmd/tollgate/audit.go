package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"tollgate/internal/audit"
	"tollgate/internal/ledger"
)

// auditCmd shows what people changed.
type auditCmd struct {
	List   auditListCmd   `cmd:"" default:"withargs" help:"Show what was changed, by whom and from where."`
	Verify auditVerifyCmd `cmd:"" help:"Check that no entry was altered or removed; exit 1 when one was."`
}

type auditListCmd struct {
	outputFlag
	Limit int `short:"n" default:"50" placeholder:"N" help:"Entries to show, the newest; at most 1000."`
}

// Help is what --help says beside the flags.
func (*auditListCmd) Help() string {
	return `Each change of a key, an adapter, a request or the logs is an entry: who is the id
of a key, local:NAME for a command on this host, or "file" for a file that was
edited by hand. Secrets are never shown.

  tollgate audit
  tollgate audit -n 1000 --output jsonl
  tollgate audit verify`
}

// Run prints the entries, newest first.
func (c *auditListCmd) Run(env *Env) error {
	if c.Limit < 1 || c.Limit > ledger.MaxPage {
		return usageError("--limit: must be between 1 and %d", ledger.MaxPage)
	}
	r, path, err := openLedger(env)
	if err != nil {
		return err
	}
	if r == nil {
		return fmt.Errorf("no ledger at %s: nothing has been recorded yet", path)
	}
	entries, err := r.Audit(env.Ctx, 0, c.Limit)
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	return show(env, c.Output, entries,
		column[audit.Entry]{name: "at", cell: func(e audit.Entry) string { return e.At.Format(time.DateTime) }},
		column[audit.Entry]{name: "who", cell: func(e audit.Entry) string { return e.Who }},
		column[audit.Entry]{name: "from", cell: func(e audit.Entry) string { return dash(e.From) }},
		column[audit.Entry]{name: "action", cell: func(e audit.Entry) string { return e.Action }},
		column[audit.Entry]{name: "target", cell: func(e audit.Entry) string { return e.Target }},
		column[audit.Entry]{name: "before", cell: func(e audit.Entry) string { return dash(string(e.Before)) }},
		column[audit.Entry]{name: "after", cell: func(e audit.Entry) string { return dash(string(e.After)) }},
	)
}

type auditVerifyCmd struct{ outputFlag }

// auditVerdict is what a chain that holds has.
type auditVerdict struct {
	Ledger  string `json:"ledger"`
	Entries int64  `json:"entries"`
	Holds   bool   `json:"holds"`
}

// Run checks the chain.
func (c *auditVerifyCmd) Run(env *Env) error {
	r, path, err := openLedger(env)
	if err != nil {
		return err
	}
	if r == nil {
		return fmt.Errorf("no ledger at %s: nothing to verify", path)
	}
	n, err := r.VerifyAudit(env.Ctx)
	if err := errors.Join(err, r.Close()); err != nil {
		if errors.Is(err, audit.ErrBroken) {
			return fmt.Errorf("ledger at %s: %d entries are good, then %w", path, n, err)
		}
		return err
	}
	return showOne(env, c.Output, auditVerdict{path, n, true}, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "audit in %s: %d entries, the chain holds\n", path, n)
		return err
	})
}
