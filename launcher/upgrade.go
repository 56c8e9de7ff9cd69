package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tollgate/internal/config"
	"tollgate/internal/control"
	"tollgate/internal/supervisor"
	"tollgate/internal/unixsock"
)

// upgradeCmd asks the running launcher to replace tollgate.
type upgradeCmd struct {
	Program string `arg:"" optional:"" placeholder:"PROGRAM" help:"The new tollgate (default: the one that lies where the running one lay)."`
}

// Help is what --help says beside the flags.
func (upgradeCmd) Help() string {
	return `Asks the launcher that runs this configuration to stop tollgate and to start a new
one in its place. Envoy and vLLM stay. Where answers are metered inside Envoy, streams
go on meanwhile and only new requests wait or get 503 for about a second. Where tollgate
meters them (ext_proc), it first waits for live streams, at most drain_timeout, and
refuses new requests as long.

The new program is asked first whether it reads the configuration. When it does not
become ready, the old one is started again. The exit code says which one runs: 0 the
new one, 1 the old one.`
}

// Run returns when the new tollgate is ready.
func (u upgradeCmd) Run(p *process) error {
	cfg, err := config.Load(p.config)
	if err != nil {
		return err
	}
	c, err := newControlClient(cfg)
	if err != nil {
		return err
	}
	var state struct {
		Meter string `json:"meter"`
	}
	if err := c.call(http.MethodGet, "/state", nil, &state); err != nil {
		return err
	}
	if state.Meter == config.MeterModule {
		fmt.Fprintln(p.stdout, "upgrading tollgate; streams go on inside Envoy")
	} else {
		fmt.Fprintf(p.stdout, "upgrading tollgate; it meters by ext_proc, so it waits for live streams first, at most %s, and refuses new requests meanwhile\n", cfg.DrainTimeout)
	}
	program := u.Program
	if program != "" {
		if program, err = filepath.Abs(program); err != nil {
			return fmt.Errorf("find program: %w", err)
		}
	}
	var done control.Upgraded
	if err := c.call(http.MethodPost, "/upgrade", map[string]string{"program": program}, &done); err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "upgraded from %s to %s in %.1f s\n", done.From, done.To, done.Took)
	return nil
}

// controlClient speaks with a running launcher.
type controlClient struct {
	http  *http.Client
	base  string
	token string
}

func newControlClient(cfg *config.Config) (*controlClient, error) {
	// Waiting for streams takes as long as they take.
	timeout := cfg.DrainTimeout + 2*serviceReady + serviceStop
	if cfg.Launcher.Listen == "" {
		return &controlClient{http: unixsock.HTTPClient(cfg.InState(config.LauncherSocket), timeout), base: "http://launcher"}, nil
	}
	token, err := os.ReadFile(cfg.Launcher.TokenFile)
	if err != nil {
		return nil, misconfigured{fmt.Errorf("read launcher.token_file: %w", err)}
	}
	return &controlClient{http: &http.Client{Timeout: timeout}, base: "http://" + cfg.Launcher.Listen, token: strings.TrimSpace(string(token))}, nil
}

// call asks once; the launcher's own words are the error.
func (c *controlClient) call(method, path string, in, out any) error {
	var body io.Reader = http.NoBody
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("ask launcher: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, c.base+path, body) //nolint:noctx // the client has a timeout
	if err != nil {
		return fmt.Errorf("ask launcher: %w", err)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	var network *net.OpError
	if errors.As(err, &network) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no launcher runs this configuration: start it with `launcher up` (%w)", cause(err))
	}
	if err != nil {
		return fmt.Errorf("ask launcher: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if resp.StatusCode >= 300 {
		var said struct {
			Error struct {
				Message string `json:"message"`
			} `json:"error"`
		}
		_ = json.NewDecoder(resp.Body).Decode(&said)
		return fmt.Errorf("the launcher says (%d): %s", resp.StatusCode, said.Error.Message)
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("read launcher's answer: %w", err)
	}
	return nil
}

// previous is where the program that runs is kept while another one takes its place,
// in state_dir: it may be overwritten where it lay.
const previous = "run/previous/tollgate"

// upgrade puts another program in the place of tollgate.
//
//nolint:contextcheck // programs are asked within the host's own life
func (h *host) upgrade(ctx context.Context, program string) (done control.Upgraded, err error) {
	if !h.upgrading.TryLock() {
		return done, fmt.Errorf("%w: another upgrade is under way", control.ErrUpgrade)
	}
	defer h.upgrading.Unlock()
	u := h.unit(tollgateName)
	if u == nil || u.child.Status().State != supervisor.Ready {
		return done, fmt.Errorf("%w: tollgate is not ready now", control.ErrUpgrade)
	}
	if program == "" {
		if program, err = tollgateBinary(h.self, h.environ); err != nil {
			return done, fmt.Errorf("%w: %w", control.ErrUpgrade, err)
		}
	}
	old := u.child.Status().PID
	kept := h.cfg.InState(previous)
	if err := keepProgram(old, kept); err != nil {
		return done, fmt.Errorf("keep the program that runs: %w", err)
	}
	if done.From, err = h.programVersion(kept); err == nil {
		done.To, err = h.programVersion(program)
	}
	if err == nil {
		_, err = h.output(askTimeout, supervisor.Command{Path: program, Args: []string{"config", "check", "--config", h.config}, Env: h.gatewayEnv()})
	}
	if err != nil {
		return done, fmt.Errorf("%w: %s: %w", control.ErrUpgrade, program, err)
	}
	began := time.Now()
	h.log.Info("upgrading tollgate", "from", done.From, "to", done.To, "program", program, "streams_go_on", h.meter != nil)
	h.trial.Store(true)
	defer h.trial.Store(false)
	h.program.Store(&program)
	u.child.RestartWithin(h.patience())
	if err := h.takenOver(ctx, u, old); err != nil {
		h.program.Store(&kept)
		u.child.Restart()
		h.log.Error("the new tollgate is not ready, the old one is started again", "error", err)
		return done, fmt.Errorf("%w: %w; the old one is started again", control.ErrUpgrade, err)
	}
	done.Took = time.Since(began).Seconds()
	h.log.Info("upgraded tollgate", "from", done.From, "to", done.To)
	return done, nil
}

// patience is how long tollgate may take to stop: where it meters itself, as long as
// its streams may.
func (h *host) patience() time.Duration {
	if h.meter != nil {
		return serviceStop
	}
	return h.cfg.DrainTimeout + serviceStop
}

// takenOver waits until a process other than old is ready, once.
func (h *host) takenOver(ctx context.Context, u *unit, old int) error {
	ctx, cancel := context.WithTimeout(ctx, h.patience()+serviceReady)
	defer cancel()
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		st := u.child.Status()
		switch {
		case st.State == supervisor.Ready && st.PID != old && st.PID != 0:
			return nil
		case st.State == supervisor.Backoff, st.State == supervisor.Failed:
			return fmt.Errorf("it ended: %s", st.LastExit)
		}
		select {
		case <-ctx.Done():
			return errors.New("it is not ready in time")
		case <-h.stopping.Done():
			return errors.New("the launcher stops")
		case <-t.C:
		}
	}
}

// programVersion is what a tollgate says of itself.
func (h *host) programVersion(path string) (string, error) {
	said, err := h.output(askTimeout, supervisor.Command{Path: path, Args: []string{"--version"}, Env: serviceEnv(h.environ)})
	return strings.TrimSpace(string(said)), err
}

// keepProgram copies the program of a running process.
func keepProgram(pid int, to string) (err error) {
	from, err := os.Open(fmt.Sprintf("/proc/%d/exe", pid)) // a child of this launcher
	if err != nil {
		return err
	}
	defer from.Close() //nolint:errcheck // only read
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	_ = os.Remove(to)                                                     // it may be running
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o700) //nolint:gosec // a program, in state_dir
	if err != nil {
		return err
	}
	_, err = io.Copy(out, from)
	return errors.Join(err, out.Close())
}
