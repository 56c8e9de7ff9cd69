package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"tollgate/envoy"
	"tollgate/internal/config"
)

// envoyCmd groups what concerns Envoy.
type envoyCmd struct {
	Config envoyConfigCmd `cmd:"" help:"Print the rendered Envoy bootstrap."`
	Drain  envoyDrainCmd  `cmd:"" help:"Let the Envoy of this host finish what runs, before it is stopped."`
}

type envoyConfigCmd struct {
	Write        bool   `help:"Write the bootstrap (and, with TLS, the files that name certificates) into <state_dir>/run instead of printing it, and print its path."`
	Meter        string `enum:",auto,module,ext_proc" default:"" help:"Who counts the answers: ext_proc (tollgate), module (the library inside Envoy), or auto (the library where there is one for the Envoy of this host). Without it ext_proc, or module where envoy.meter says so."`
	MeterLibrary string `placeholder:"FILE" help:"The library of the meter, libtollgate_meter-*.so; without it TOLLGATE_METER_LIBRARY, or the one beside this program."`

	Remote remoteFlags `embed:""`
}

// Help is what --help says beside the flags.
func (*envoyConfigCmd) Help() string {
	return `Prints the bootstrap for those who run their own Envoy (1.40):

  tollgate envoy config > envoy.yaml
  cd <state_dir> && envoy -c /path/to/envoy.yaml --disable-hot-restart

Envoy must run with state_dir as its working directory: the sockets in it are
named relative to it. With --meter module it needs the folder of the library in
ENVOY_DYNAMIC_MODULES_SEARCH_PATH too, and must be the version that the library
is for: the command prints both. With tls: set, or with --service, use --write: the
bootstrap then names files beside it, through which Envoy watches certificates.

For an Envoy on another host than tollgate, where this host's configuration
says what concerns the edge (listen, tls, request, …):

  tollgate envoy config --write --service tollgate.example.org:9443 \
    --ca-file ca.crt --cert-file envoy.crt --key-file envoy.key`
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
	if params.Remote, err = c.remote(cfg); err != nil {
		return err
	}
	if !params.Remote.TLS() {
		if params.Meter, err = c.meter(env, cfg); err != nil {
			return err
		}
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

// meter is the library that the bootstrap names, nil where tollgate meters.
func (c *envoyConfigCmd) meter(env *Env, cfg *config.Config) (*envoy.Meter, error) {
	asked := c.Meter
	if asked == "" && (cfg.Envoy.Meter == config.MeterModule || c.MeterLibrary != "") {
		asked = config.MeterModule
	}
	if asked == "" || asked == config.MeterExtProc {
		return nil, nil //nolint:nilnil // no meter is an answer
	}
	library, err := c.library(env)
	if err == nil && asked == config.MeterAuto {
		err = runsMeter(env, cfg)
	}
	switch {
	case err == nil:
		m := &envoy.Meter{Library: library, Socket: config.MeterSocket, Sync: cfg.Ledger.Sync}
		_, _ = fmt.Fprintf(env.Stderr, "answers are metered inside Envoy: start Envoy %s with %s=%s\n", envoy.Version, envoy.SearchPath, m.Dir())
		return m, nil
	case asked == config.MeterModule:
		return nil, fmt.Errorf("put the meter inside Envoy: %w; or use --meter ext_proc", err)
	}
	_, _ = fmt.Fprintf(env.Stderr, "answers are metered by tollgate (ext_proc): %v\n", err)
	return nil, nil //nolint:nilnil // no meter is an answer
}

// library finds the library as an absolute path.
func (c *envoyConfigCmd) library(env *Env) (string, error) {
	getenv := env.Getenv
	if c.MeterLibrary != "" {
		getenv = func(name string) string {
			if name == envoy.LibraryVariable {
				return c.MeterLibrary
			}
			return env.Getenv(name)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	return envoy.MeterLibrary(self, getenv)
}

// runsMeter is nil where the Envoy of this host is one that the library is for.
func runsMeter(env *Env, cfg *config.Config) error {
	binary, err := envoy.Binary(cfg.Envoy.Binary, env.Getenv)
	if err != nil {
		return err
	}
	said, err := exec.CommandContext(env.Ctx, binary, "--version").Output() //nolint:gosec // the configuration's
	if err != nil {
		return fmt.Errorf("ask %s for its version: %w", binary, err)
	}
	if version := envoy.VersionOf(string(said)); !envoy.MeterRuns(version) {
		return fmt.Errorf("there is no library of the meter for Envoy %q, only for %s", version, envoy.Version)
	}
	return nil
}
