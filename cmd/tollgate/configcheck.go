package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"tollgate/internal/apikey"
	"tollgate/internal/config"
	"tollgate/internal/strictfile"
)

// configCmd groups what concerns the configuration.
type configCmd struct {
	Check configCheckCmd `cmd:"" help:"Validate the configuration and the key file."`
}

type configCheckCmd struct {
	Online bool `help:"Also ask the engines what they serve, and warn of names that lead to no model of an engine."`
}

// Help is what --help says beside the flags.
func (*configCheckCmd) Help() string {
	return `Reads the configuration and the key file that it names as strictly as the service
does and prints every mistake as FILE:LINE:COLUMN: KEY: MESSAGE, without values
that may be secret. Nothing is started, written or changed.

  tollgate config check
  tollgate config check --config staging.yaml && systemctl restart tollgate
  tollgate config check --online

With --online the engines are asked for their models, those of the configuration and
those that came at run time. A name whose model no engine lists is a warning.

Exit status: 0 no mistake, 2 at least one.`
}

// Run checks both files.
func (c *configCheckCmd) Run(env *Env) error {
	path := env.ConfigPath()
	cfg, err := env.Config()
	if err != nil {
		return mistakes(env, err)
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		path += " (missing: all defaults)"
	}
	for _, w := range cfg.Warnings() {
		fmt.Fprintf(env.Stderr, "warning: %s\n", w)
	}
	keys, err := checkKeys(env, cfg)
	if err != nil {
		return mistakes(env, err)
	}
	if c.Online {
		if err := askEngines(env, cfg); err != nil {
			return err
		}
	}
	fmt.Fprintf(env.Stdout, "ok: %s; %s\n", path, keys)
	return nil
}

// checkKeys describes the key file. A missing one is no mistake: the service
// writes it.
func checkKeys(env *Env, cfg *config.Config) (string, error) {
	if cfg.Central.Keys {
		return checkSharedKeys(env, cfg)
	}
	path := cfg.Auth.APIKeysFile
	ring, err := apikey.Open(path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return path + " (missing: written at the first start)", nil
	}
	if err != nil {
		return "", err
	}
	now := ring.Current()
	switch {
	case now.HasDefault():
		fmt.Fprintf(env.Stderr, "warning: the public default key is enabled in %s. %s\n", path, apikey.DefaultWarning)
	case now.ListsDefault():
		fmt.Fprintf(env.Stderr, "warning: the public default key is still in %s; it opens nothing beside other keys: remove it\n", path)
	}
	for _, w := range now.Warnings() {
		fmt.Fprintf(env.Stderr, "warning: %s\n", w)
	}
	return fmt.Sprintf("%s: %d keys, %d enabled", path, now.Len(), now.Enabled()), nil
}

// mistakes prints one line per mistake and ends with how many there are.
func mistakes(env *Env, err error) error {
	var file *strictfile.Error
	if !errors.As(err, &file) {
		return err
	}
	fmt.Fprintln(env.Stderr, err)
	n := len(file.Problems)
	if n == 1 {
		return usageError("1 mistake")
	}
	return usageError("%d mistakes", n)
}
