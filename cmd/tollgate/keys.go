package main

import (
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"tollgate/internal/apikey"
	"tollgate/internal/limit"
)

// keysCmd edits the key file. A running service has taken an edit when its command
// returns.
type keysCmd struct {
	Add     keysAddCmd     `cmd:"" help:"Make a key and show it once."`
	List    keysListCmd    `cmd:"" help:"List the keys, without their secrets."`
	Show    keysShowCmd    `cmd:"" help:"Show one key, without its secret."`
	Set     keysSetCmd     `cmd:"" help:"Change limits, quota, models, end or note of a key."`
	Enable  keysEnableCmd  `cmd:"" help:"Let a key pass again."`
	Disable keysDisableCmd `cmd:"" help:"Refuse a key; its live streams are cut."`
	Rotate  keysRotateCmd  `cmd:"" help:"Give a key a new secret and show it once."`
	Remove  keysRemoveCmd  `cmd:"" help:"Forget a key; its live streams are cut."`
}

// secretFlag is the flag of the commands that show a secret.
type secretFlag struct {
	Output string `short:"o" enum:"table,json,jsonl,csv" default:"table" help:"How to print: table (the key alone), json, jsonl or csv (with its id)."`
}

func (f secretFlag) print(env *Env, key apikey.Created) error {
	return showOne(env, f.Output, key, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, key.Secret)
		return err
	})
}

type keysAddCmd struct {
	secretFlag
	User              string    `required:"" help:"Who the key belongs to; the user admin may use /admin and /metrics."`
	ID                string    `name:"id" help:"Name of the key in logs, metrics and reports; default is derived from its digest."`
	Quota             countFlag `placeholder:"N" help:"Tokens per quota period; default is no limit."`
	QuotaPeriod       string    `enum:"total,day,month" default:"total" help:"When the quota starts again, in UTC: ${enum}."`
	Model             []string  `placeholder:"M" help:"Model that the key may use; repeat it for more. Default is all."`
	Concurrent        countFlag `placeholder:"N" help:"Requests at once; N or unlimited. Default is the global limit."`
	RequestsPerMinute countFlag `placeholder:"N" help:"As above."`
	TokensPerMinute   countFlag `placeholder:"N" help:"As above."`
	TrustEndUser      bool      `help:"Believe the key when it names the person behind a request, as Open WebUI does."`
	ExpiresAt         string    `placeholder:"T" help:"When the key ends: a time (2026-12-31T18:00:00Z), a day (2026-12-31, its beginning in UTC) or from now (12h, 90d)."`
	Note              string    `help:"Anything, for people."`
}

// Help is what --help says beside the flags.
func (*keysAddCmd) Help() string {
	return `The key goes to standard output and nowhere else: only its SHA-256 is stored, so
that it cannot be shown again. A missing key file is written first.

  tollgate keys add --user alice
  tollgate keys add --user alice --quota 5000000 --quota-period month
  tollgate keys add --user ci --model qwen --concurrent 4 --expires-at 90d --note "nightly runs"
  tollgate keys add --user open-webui --trust-end-user
  tollgate keys add --user admin > admin.key`
}

// Run adds the key.
func (c *keysAddCmd) Run(env *Env) error {
	expires, err := c.expiry(time.Now())
	if err != nil {
		return err
	}
	cfg, err := env.Config()
	if err != nil {
		return err
	}
	if !cfg.Central.Keys {
		path := cfg.Auth.APIKeysFile
		first, created, err := apikey.Ensure(path)
		if err != nil {
			return err
		}
		if created {
			fmt.Fprintf(env.Stderr, "wrote %s with the default key and an admin key, shown once: %s\n", path, first.AdminSecret)
		}
	}
	fields := apikey.Info{
		ID: c.ID, User: c.User, Enabled: true, Quota: c.Quota.n, QuotaPeriod: apikey.Period(c.QuotaPeriod), Models: c.Model,
		Limits: apikey.LimitsInfo{
			Concurrent: (*apikey.Cap)(c.Concurrent.n), RequestsPerMinute: (*apikey.Cap)(c.RequestsPerMinute.n), TokensPerMinute: (*apikey.Cap)(c.TokensPerMinute.n),
		},
		TrustEndUser: c.TrustEndUser, ExpiresAt: expires, Note: c.Note,
	}.Fields()
	var key apikey.Created
	path, err := editKeys(env, cfg, func(f *apikey.File) (err error) {
		key, err = f.Add(fields)
		return err
	})
	if err != nil {
		return wrongValue(err)
	}
	takeKeys(env, cfg)
	fmt.Fprintf(env.Stderr, "added key %s of user %q to %s; this is the only time that it is shown:\n", key.ID, c.User, path)
	return c.print(env, key)
}

var inDays = regexp.MustCompile(`^([0-9]{1,5})d$`)

// expiry reads --expires-at; nil when it was not given.
func (c *keysAddCmd) expiry(now time.Time) (*time.Time, error) {
	if c.ExpiresAt == "" {
		return nil, nil
	}
	var at time.Time
	if m := inDays.FindStringSubmatch(c.ExpiresAt); m != nil {
		days, _ := strconv.Atoi(m[1]) // five digits
		at = now.AddDate(0, 0, days)
	} else if d, err := time.ParseDuration(c.ExpiresAt); err == nil {
		at = now.Add(d)
	} else if t, err := time.Parse(time.DateOnly, c.ExpiresAt); err == nil {
		at = t
	} else if t, err := time.Parse(time.RFC3339, c.ExpiresAt); err == nil {
		at = t
	} else {
		return nil, usageError("--expires-at: write a time as 2026-12-31T18:00:00Z, a day as 2026-12-31, or a duration as 12h or 90d")
	}
	if !at.After(now) {
		return nil, usageError("--expires-at: is in the past")
	}
	at = at.UTC().Truncate(time.Second)
	return &at, nil
}

type keysEnableCmd struct {
	ID string `arg:"" help:"Id of the key, as \"tollgate keys list\" shows it."`
}

// Run enables the key.
func (c *keysEnableCmd) Run(env *Env) error {
	return change(env, c.ID, "enabled", func(f *apikey.File) error { return f.Enable(c.ID) })
}

type keysDisableCmd struct {
	ID    string `arg:"" help:"Id of the key, as \"tollgate keys list\" shows it."`
	Drain bool   `help:"Let its live streams finish; only new requests are refused."`
}

// Help is what --help says beside the flags.
func (*keysDisableCmd) Help() string {
	return `A running service refuses the key at once and cuts its live streams, which
are charged for what they had; with --drain they may finish.

  tollgate keys disable alice-laptop
  tollgate keys disable alice-laptop --drain`
}

// Run disables the key.
func (c *keysDisableCmd) Run(env *Env) error {
	if c.Drain {
		return change(env, c.ID, "disabled, live streams finish", func(f *apikey.File) error { return f.Drain(c.ID) })
	}
	return change(env, c.ID, "disabled", func(f *apikey.File) error { return f.Disable(c.ID) })
}

type keysRotateCmd struct {
	secretFlag
	ID    string        `arg:"" help:"Id of the key, as \"tollgate keys list\" shows it."`
	Grace time.Duration `default:"24h" help:"How long the old secret still works, at most 720h; 0s ends it at once."`
}

// Help is what --help says beside the flags.
func (*keysRotateCmd) Help() string {
	return `The new secret goes to standard output and nowhere else. Id, user, limits, quota
and counters stay: until the grace ends both secrets are the same key.

  tollgate keys rotate alice-laptop
  tollgate keys rotate alice-laptop --grace 0s     # it leaked`
}

// Run rotates the key.
func (c *keysRotateCmd) Run(env *Env) error {
	if c.Grace < 0 || c.Grace > apikey.MaxGrace {
		return usageError("--grace: must be between 0s and 720h (30 days)")
	}
	var secret string
	done := fmt.Sprintf("rotated, the old secret works for %v more; this is the only time that the new one is shown", c.Grace)
	if c.Grace == 0 {
		done = "rotated, the old secret ended; this is the only time that the new one is shown"
	}
	if err := change(env, c.ID, done, func(f *apikey.File) (err error) {
		secret, err = f.Rotate(c.ID, c.Grace)
		return err
	}); err != nil {
		return err
	}
	return c.print(env, apikey.Created{ID: c.ID, Secret: secret})
}

type keysRemoveCmd struct {
	ID string `arg:"" help:"Id of the key, as \"tollgate keys list\" shows it."`
}

// Help is what --help says beside the flags.
func (*keysRemoveCmd) Help() string {
	return `What the key used stays in the ledger under its id. To be able to take it back,
disable the key instead.

  tollgate keys remove alice-laptop`
}

// Run removes the key.
func (c *keysRemoveCmd) Run(env *Env) error {
	return change(env, c.ID, "removed", func(f *apikey.File) error { return f.Remove(c.ID) })
}

// change edits one key and says so on stderr.
func change(env *Env, id, done string, fn func(*apikey.File) error) error {
	if strings.HasPrefix(id, "sk-") {
		// Not repeated: it may be a secret, which does not belong on a command line.
		return usageError(`this looks like a key; name it by its id, which "tollgate keys list" shows`)
	}
	cfg, err := env.Config()
	if err != nil {
		return err
	}
	where, err := editKeys(env, cfg, fn)
	if err != nil {
		return fmt.Errorf("key %q in %s: %w", id, where, err)
	}
	takeKeys(env, cfg)
	fmt.Fprintf(env.Stderr, "key %s: %s\n", id, done)
	return nil
}

// countFlag is a limit on the command line: a count or "unlimited".
type countFlag struct{ n *int64 } // nil: not given

// UnmarshalText reads the flag.
func (c *countFlag) UnmarshalText(text []byte) error {
	n := limit.Unlimited
	if string(text) != "unlimited" {
		v, err := strconv.ParseInt(string(text), 10, 64)
		if err != nil || v < 0 {
			return fmt.Errorf("want a whole number, or unlimited")
		}
		n = v
	}
	c.n = &n
	return nil
}
