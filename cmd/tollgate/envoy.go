package main

import (
	"fmt"
	"path/filepath"

	"tollgate/envoy"
)

// envoyCmd groups what concerns Envoy.
type envoyCmd struct {
	Config envoyConfigCmd `cmd:"" help:"Print the rendered Envoy bootstrap."`
}

type envoyConfigCmd struct {
	Write bool `help:"Write the bootstrap (and, with TLS, the file that names the certificate) into <state_dir>/run instead of printing it, and print its path."`
}

// Help is what --help says beside the flags.
func (*envoyConfigCmd) Help() string {
	return `Prints the bootstrap for those who run their own Envoy (1.40):

  tollgate envoy config > envoy.yaml
  cd <state_dir> && envoy -c /path/to/envoy.yaml --disable-hot-restart

Envoy must run with state_dir as its working directory: the sockets in it are
named relative to it. With tls: set, use --write: the bootstrap then names a
second file beside it, through which Envoy watches the certificate.`
}

// Run prints or writes the bootstrap.
func (c *envoyConfigCmd) Run(env *Env) error {
	cfg, err := env.Config()
	if err != nil {
		return err
	}
	params, err := envoy.ParamsFor(cfg)
	if err != nil {
		return fmt.Errorf("read config: %w", err)
	}
	if c.Write {
		path, err := envoy.Write(cfg.StateDir, params)
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		_, err = fmt.Fprintln(env.Stdout, filepath.Join(cfg.StateDir, path))
		return err
	}
	out, err := envoy.Render(params)
	if err != nil {
		return fmt.Errorf("render: %w", err)
	}
	_, err = env.Stdout.Write(out)
	return err
}
