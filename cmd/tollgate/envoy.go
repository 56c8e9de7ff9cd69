package main

import (
	"fmt"

	"tollgate/envoy"
)

// envoyCmd groups what concerns Envoy.
type envoyCmd struct {
	Config envoyConfigCmd `cmd:"" help:"Print the rendered Envoy bootstrap."`
}

type envoyConfigCmd struct{}

// Help is what --help says beside the flags.
func (*envoyConfigCmd) Help() string {
	return `Prints the bootstrap for those who run their own Envoy (1.40):

  tollgate envoy config > envoy.yaml
  cd <state_dir> && envoy -c /path/to/envoy.yaml --disable-hot-restart

Envoy must run with state_dir as its working directory: the sockets in it are
named relative to it.`
}

// Run prints the bootstrap.
func (*envoyConfigCmd) Run(env *Env) error {
	cfg, err := env.Config()
	if err != nil {
		return err
	}
	params, err := envoy.ParamsFor(cfg)
	if err != nil {
		return fmt.Errorf("read config: %w", err)
	}
	out, err := envoy.Render(params)
	if err != nil {
		return fmt.Errorf("render: %w", err)
	}
	_, err = env.Stdout.Write(out)
	return err
}
