package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"tollgate/internal/apikey"
	"tollgate/internal/config"
	"tollgate/internal/sqlitestore"
)

// forgetCmd erases a person.
type forgetCmd struct {
	outputFlag
	User string `arg:"" help:"Name of the user, as reports show it."`
	Yes  bool   `help:"Do it. Without it the command only counts what it would change."`
}

// Help is what --help says beside the flags.
func (*forgetCmd) Help() string {
	return `Removes the keys of a user, and puts a random pseudonym in the place of the name
and of the ids of the keys: in the rows and the sums of the ledger, in the central
one, and in the audit, whose chain still holds ("tollgate audit verify"): an entry
at its end vouches for the changed ones. Addresses of these rows are emptied.
Counts and times stay, so that bills and sums do. There is no way back.

Stop the service first; the command says so while it runs. Run it on each gateway
that has a ledger of its own. It does not reach backups, exports, Redis (whose
counters end by themselves) and logs (log.keep_days).

  tollgate forget alice
  tollgate forget alice --yes`
}

// Run counts, or does it.
func (c *forgetCmd) Run(env *Env) error {
	if strings.TrimSpace(c.User) == "" {
		return usageError("name the user")
	}
	cfg, err := env.Config()
	if err != nil {
		return err
	}
	ring, err := readKeys(env, cfg)
	if err != nil {
		return err
	}
	var ids []string
	for _, k := range ring.Keys() {
		if k.User == c.User {
			ids = append(ids, k.ID)
		}
	}
	if !c.Yes {
		return c.count(env, ids)
	}
	return c.forget(env, cfg, ids)
}

// pseudonym is random, so that nobody can find out by trying whose it is.
func pseudonym() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails, it ends the process instead
	return "forgotten-" + hex.EncodeToString(b[:])
}

// count shows what would change.
func (c *forgetCmd) count(env *Env, ids []string) error {
	found := sqlitestore.Forgotten{Keys: ids}
	r, _, err := openLedger(env)
	if err != nil {
		return err
	}
	if r != nil {
		found, err = r.Known(env.Ctx, c.User, pseudonym(), ids)
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
	}
	return c.tell(env, &found, len(ids), "Nothing was changed: --yes does it.")
}

// forget removes the keys first: nothing new may come while the rest is done.
func (c *forgetCmd) forget(env *Env, cfg *config.Config, ids []string) (err error) {
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("name this gateway: %w", err)
	}
	s, err := sqlitestore.Open(env.Ctx, sqlitestore.Options{Path: cfg.LedgerPath(), Sync: sqlitestore.SyncPower, Gateway: host})
	if errors.Is(err, sqlitestore.ErrLocked) {
		return errors.New("the service runs on this ledger: stop it, run this again, and start it")
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if len(ids) > 0 {
		if _, err := editKeys(env, cfg, func(f *apikey.File) error {
			for _, id := range ids {
				if err := f.Remove(id); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return fmt.Errorf("remove the keys of %s: %w", c.User, err)
		}
	}
	found, err := s.Known(env.Ctx, c.User, pseudonym(), ids)
	if err != nil {
		return err
	}
	if cfg.Central.PostgresFile != "" {
		if err := forgetCentrally(env, s, c.User, &found); err != nil {
			return err
		}
	}
	if err := s.Forget(env.Ctx, c.User, &found, env.Editor()); err != nil {
		return err
	}
	return c.tell(env, &found, len(ids), fmt.Sprintf("%s is %s now.", c.User, found.Names[c.User]))
}

func forgetCentrally(env *Env, s *sqlitestore.Store, user string, found *sqlitestore.Forgotten) error {
	l, err := openCentral(env)
	if err != nil {
		return err
	}
	defer l.Close()
	id, err := s.ID(env.Ctx)
	if err != nil {
		return err
	}
	return l.Forget(env.Ctx, user, found.Names, id, found.Entries)
}

// tell shows what was found.
func (c *forgetCmd) tell(env *Env, found *sqlitestore.Forgotten, keys int, last string) error {
	err := showOne(env, c.Output, *found, func(w io.Writer) error {
		fmt.Fprintf(w, "%d keys, %d requests and %d sums of %s; %d requests of other keys that name the user; %d entries of the audit\n",
			keys, found.Requests, found.Sums, c.User, found.Named, found.Audit)
		return nil
	})
	fmt.Fprintln(env.Stderr, last)
	return err
}
