package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"tollgate/envoy"
	"tollgate/internal/config"
	"tollgate/internal/secretfile"
	"tollgate/internal/supervisor"
	"tollgate/internal/unixsock"
)

// preflight finds mistakes that would otherwise show only in the log of a child, or not
// at all: taken ports, and arguments that the engine does not have.
func (h *host) preflight(addresses map[string]string) error {
	if err := portsFree(h.stopping, addresses); err != nil {
		return err
	}
	if h.unit(envoyName) != nil {
		if err := h.checkEnvoy(); err != nil {
			return err
		}
	}
	if h.unit(engineName) == nil {
		return nil
	}
	cmd, err := h.engineCommand("")
	if err != nil {
		return err
	}
	h.flags, err = h.checkArgs(cmd)
	return err
}

// checkEnvoy asks Envoy for its version: another program, or an Envoy that is too old
// for our bootstrap, would be restarted again and again. The library of the meter runs
// only in the version that it was built for.
func (h *host) checkEnvoy() error {
	binary, err := envoy.Binary(h.cfg.Envoy.Binary, h.getenv)
	if err != nil {
		return misconfigured{err}
	}
	said, err := h.output(askTimeout, supervisor.Command{Path: binary, Args: []string{"--version"}, Env: serviceEnv(h.environ)})
	switch {
	case h.stopping.Err() != nil:
		return context.Cause(h.stopping)
	case err != nil:
		h.log.Warn("Envoy does not say its version; if it cannot run, its own words follow", "binary", binary, "error", err)
		return h.chooseMeter("")
	}
	newer, err := envoy.CheckVersion(string(said))
	if err != nil {
		return misconfigured{fmt.Errorf("%s: %w", binary, err)}
	}
	if newer != "" {
		h.log.Warn("this Envoy is newer than the one that Tollgate is tested with", "binary", binary, "version", newer, "tested", envoy.Version)
	}
	return h.chooseMeter(envoy.VersionOf(string(said)))
}

// portsFree fails when an address that a child is going to listen on is taken, and says
// which setting names it: the child's own message would come late and only in a log.
func portsFree(ctx context.Context, addresses map[string]string) error {
	var errs []error
	for setting, address := range addresses {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", address)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %s cannot be listened on: %w; stop what uses it or choose another address", setting, address, cause(err)))
			continue
		}
		_ = l.Close()
	}
	return errors.Join(errs...)
}

// cause returns the system's error without the address.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

func engineAddress(cfg *config.Config) string {
	return net.JoinHostPort(cfg.VLLM.Host, strconv.Itoa(cfg.VLLM.Port))
}

// tollgateBinary is the one beside the launcher, or the one in PATH.
func tollgateBinary(self string, environ []string) (string, error) {
	beside := filepath.Join(filepath.Dir(self), "tollgate")
	if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() {
		return beside, nil
	}
	if path := findProgram("tollgate", environ); path != "tollgate" {
		return path, nil
	}
	return "", misconfigured{fmt.Errorf("tollgate is neither at %s nor in PATH; `make build` makes both binaries", beside)}
}

// listenControl opens the control API's listener and reads its token; on the
// Unix socket there is none.
func listenControl(cfg *config.Config) (net.Listener, string, error) {
	if cfg.Launcher.Listen == "" {
		l, err := unixsock.Listen(cfg.InState(config.LauncherSocket), 0o600)
		return l, "", err
	}
	if cfg.Launcher.TokenFile == "" {
		return nil, "", misconfigured{errors.New("launcher.listen needs launcher.token_file: without it every program that reaches the port could load adapters and delete logs")}
	}
	token, err := secretfile.Read(cfg.Launcher.TokenFile)
	if err != nil {
		return nil, "", misconfigured{fmt.Errorf("launcher.token_file: %w", err)}
	}
	if token == "" {
		return nil, "", misconfigured{errors.New("launcher.token_file is empty")}
	}
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", cfg.Launcher.Listen)
	if err != nil {
		return nil, "", fmt.Errorf("launcher.listen %s cannot be listened on: %w", cfg.Launcher.Listen, cause(err))
	}
	return l, token, nil
}
