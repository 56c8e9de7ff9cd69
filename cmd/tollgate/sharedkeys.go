package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/hashicorp/go-hclog"

	"tollgate/internal/apikey"
	"tollgate/internal/central"
	"tollgate/internal/config"
)

// editKeys changes the keys where they live, and returns where that is.
func editKeys(env *Env, cfg *config.Config, fn func(*apikey.File) error) (where string, err error) {
	if !cfg.Central.Keys {
		where = cfg.Auth.APIKeysFile
		return where, apikey.Edit(where, env.Editor(), fn)
	}
	keys, done, err := sharedKeys(cfg)
	if err != nil {
		return "", err
	}
	defer done()
	return "PostgreSQL", keys.Edit(env.Editor(), fn)
}

// sharedKeys are the keys of all gateways, without the copy of this host, which
// its service writes. The caller calls done.
func sharedKeys(cfg *config.Config) (keys *central.Keys, done func(), err error) {
	l, err := central.Open(cfg.Central.PostgresFile)
	if err != nil {
		return nil, nil, err
	}
	return central.NewKeys(l, cfg.Auth.APIKeysFile, "", hclog.NewNullLogger()), l.Close, nil
}

// readKeys reads the keys where they live; the last copy of this host where
// PostgreSQL does not answer, which is said on stderr.
func readKeys(env *Env, cfg *config.Config) (*apikey.Ring, error) {
	if !cfg.Central.Keys {
		k, err := apikey.Open(cfg.Auth.APIKeysFile, nil)
		if err != nil {
			return nil, err
		}
		return k.Current(), nil
	}
	keys, done, err := sharedKeys(cfg)
	if err != nil {
		return nil, err
	}
	defer done()
	text, err := keys.Document(env.Ctx)
	if err == nil {
		return apikey.Parse("the keys in PostgreSQL", text)
	}
	k, missing := apikey.Open(cfg.KeysPath(), nil)
	if errors.Is(missing, fs.ErrNotExist) {
		return nil, err
	}
	if missing != nil {
		return nil, missing
	}
	fmt.Fprintf(env.Stderr, "PostgreSQL does not answer; these are the keys of the last copy, %s\n", cfg.KeysPath())
	return k.Current(), nil
}

// checkSharedKeys describes keys that live in PostgreSQL. That it does not answer
// is no mistake of the configuration.
func checkSharedKeys(env *Env, cfg *config.Config) (string, error) {
	l, err := central.Open(cfg.Central.PostgresFile)
	if err != nil {
		return "", err
	}
	defer l.Close()
	if err := central.NewKeys(l, cfg.Auth.APIKeysFile, cfg.KeysPath(), hclog.NewNullLogger()).CheckFile(); err != nil {
		return "", err
	}
	ring, err := readKeys(env, cfg)
	if errors.Is(err, apikey.ErrAway) {
		return "keys in PostgreSQL at " + l.Address() + " (which does not answer)", nil
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("keys in PostgreSQL at %s: %d keys, %d enabled", l.Address(), ring.Len(), ring.Enabled()), nil
}
