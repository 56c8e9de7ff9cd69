package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tollgate/internal/apikey"
	"tollgate/internal/config"
	"tollgate/internal/envoyadmin"
)

// upCmd runs the whole stack.
type upCmd struct{}

// Help is what --help says beside the flags.
func (upCmd) Help() string {
	return `Starts vLLM (if vllm.auto_start; launch_mode "simulated" needs no GPU), tollgate
and Envoy, and keeps them running. Without a configuration file one is written
that starts the simulated vLLM, and without a key file one with a default key
for this machine and an admin key, which is shown once.

Prints "ready http://HOST:PORT" when everything is, and a curl line to try.
Ctrl-C: no new connections, live answers finish (at most drain_timeout), then
everything stops. A second Ctrl-C stops at once.`
}

// Run returns when everything has stopped.
func (upCmd) Run(p *process) error {
	cfg, created, err := config.LoadOrCreate(p.config, true)
	if err != nil {
		return err
	}
	h, err := newHost(p, cfg)
	if err != nil {
		return err
	}
	defer h.close()
	if created {
		fmt.Fprintf(h.console, "wrote %s with the simulated vLLM; for a real one set vllm.launch_mode: cli and vllm.model, as Qwen/Qwen3-0.6B\n", p.config)
	}
	h.warn()
	if err := h.allowFiles(); err != nil {
		return err
	}
	if err := h.makeEngineKey(); err != nil {
		return err
	}
	return h.up()
}

func (h *host) warn() {
	for _, w := range h.cfg.Warnings() {
		h.log.Warn(w)
	}
	if ring, ok := h.keys(); ok {
		for _, w := range ring.Warnings() {
			h.log.Warn(w)
		}
	}
}

// keys reads the key file; it returns false where that fails, which tollgate logs.
func (h *host) keys() (*apikey.Ring, bool) {
	data, err := os.ReadFile(h.cfg.KeysPath())
	if err != nil {
		return nil, false
	}
	ring, err := apikey.Parse(h.cfg.KeysPath(), data)
	return ring, err == nil
}

// ensureKeys writes a missing key file and shows its admin key to a terminal,
// and to nothing else.
func (h *host) ensureKeys() error {
	if h.cfg.Central.Keys {
		return nil // tollgate imports them once
	}
	path := h.cfg.Auth.APIKeysFile
	keys, created, err := apikey.Ensure(path)
	if err != nil || !created {
		return err
	}
	switch {
	case isTerminal(h.stdout):
		fmt.Fprintf(h.stdout, "wrote %s; its admin key, shown this once:\n  %s\n", path, keys.AdminSecret)
	case h.console.terminal:
		fmt.Fprintf(h.console, "wrote %s; its admin key, shown this once:\n  %s\n", path, keys.AdminSecret)
	default:
		fmt.Fprintf(h.console, "wrote %s; its admin key is not shown because this is no terminal: make one with `tollgate keys add --user admin`\n", path)
	}
	return nil
}

// up starts, waits and stops.
func (h *host) up() error {
	admin := envoyadmin.New(h.cfg.InState(config.EnvoyAdminSocket))
	addresses := map[string]string{"listen": h.cfg.Listen, "metrics_listen": h.cfg.MetricsListen}
	if h.cfg.AdminListen != "" {
		addresses["admin_listen"] = h.cfg.AdminListen
	}
	adapters, err := h.addEngineIfAsked(addresses)
	if err == nil {
		err = errors.Join(h.addTollgate(), h.addEnvoy(admin))
	}
	if err == nil {
		err = h.preflight(addresses)
	}
	if err == nil {
		err = h.ensureKeys()
	}
	switch {
	case errors.Is(err, errAsked):
		return nil // before anything was started
	case err != nil:
		return err
	}
	stopControl, err := h.serveControl(adapters)
	if err != nil {
		return err
	}
	defer removeSockets(h.cfg)
	defer stopControl()

	leave := h.register()
	if err := h.startAll(); err == nil {
		h.sayReady()
		h.sayUp(edgeURL(h.cfg))
		<-h.stopping.Done()
	} else {
		h.stop(err) // a stop that has begun keeps its cause
	}
	h.sayStopping()
	leave()
	h.stopAll(admin)
	if err := context.Cause(h.stopping); !errors.Is(err, errAsked) {
		return err
	}
	return nil
}

// startAll returns when everything is ready, the edge included.
func (h *host) startAll() error {
	done := h.console.follow(h.waiting)
	defer done()
	if h.unit(engineName) != nil {
		h.start(engineName)
	}
	// Envoy starts after tollgate, because without it every answer is 503. It does not
	// wait for the engine, which may take minutes: until then /health and a 503 with an
	// explanation are available.
	if err := h.start(tollgateName).child.WaitReady(h.stopping); err != nil {
		return err
	}
	if err := h.start(envoyName).child.WaitReady(h.stopping); err != nil {
		return err
	}
	if u := h.unit(engineName); u != nil {
		if err := u.child.WaitReady(h.stopping); err != nil {
			return err
		}
	}
	return h.edgeReady()
}

// edgeReady waits until tollgate and Envoy both have a healthy engine: each checks the
// engines by itself, every second.
func (h *host) edgeReady() error {
	admin := envoyadmin.New(h.cfg.InState(config.EnvoyAdminSocket))
	client, base := edgeClient(), edgeURL(h.cfg)
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	defer h.missing.Store(nil)
	for round := 0; ; round++ {
		if round%askEvery == askEvery-1 {
			h.askEngines()
		}
		ctx, cancel := context.WithTimeout(h.stopping, 5*time.Second)
		status, err := edgeHealth(ctx, client, base)
		if err == nil && len(h.cfg.Fleet()) == 0 {
			cancel()
			return nil // engines come at run time, or not
		}
		if err == nil && status == http.StatusOK {
			var healthy int
			if healthy, err = admin.Stat(ctx, "cluster.vllm.membership_healthy"); err == nil && healthy > 0 {
				cancel()
				return nil
			}
		}
		cancel()
		select {
		case <-h.stopping.Done():
			return context.Cause(h.stopping)
		case <-t.C:
		}
	}
}

// sayReady prints the line that scripts wait for, and an example for people.
func (h *host) sayReady() {
	base := edgeURL(h.cfg)
	model := h.firstModel()
	key, quote := "$TOLLGATE_KEY", `"`
	if h.defaultKey() {
		key, quote = apikey.DefaultSecret, "'"
		h.log.Warn("the public default key is enabled. " + apikey.DefaultWarning)
	}
	name, err := json.Marshal(model)
	if err != nil {
		name = []byte(`"MODEL"`) // a name that is no text
	}
	body := fmt.Sprintf(`{"model": %s, "stream": true, "messages": [{"role": "user", "content": "Hello!"}]}`, name)
	fmt.Fprintf(h.stdout, "ready %s\n", base)
	fmt.Fprintf(h.stdout, "\n  URL  %s/v1\n  key  %s\n  see  %s/console/\n  try  curl -N %s/v1/chat/completions -H %sAuthorization: Bearer %s%s -H 'Content-Type: application/json' -d %s\n\n",
		base, key, consoleURL(h.cfg), base, quote, key, quote, shellQuote(body))
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// defaultKey reports whether the public key opens anything from this machine.
func (h *host) defaultKey() bool {
	if h.cfg.TrustedProxies != 0 {
		return false
	}
	ring, ok := h.keys()
	return ok && ring.HasDefault()
}

// firstModel is the first served name.
func (h *host) firstModel() string {
	ctx, cancel := context.WithTimeout(h.stopping, 5*time.Second)
	defer cancel()
	if models, err := engineClient(engineTarget(h.cfg), &h.cfg.VLLM).Models(ctx); err == nil {
		return models[0].ID
	}
	return "MODEL"
}

// edgeURL returns the URL of the edge for clients on this machine.
func edgeURL(cfg *config.Config) string { return urlOf(cfg, cfg.Listen) }

// consoleURL is where the pages for people are of use: beside what they ask.
func consoleURL(cfg *config.Config) string {
	return urlOf(cfg, cmp.Or(cfg.AdminListen, cfg.Listen))
}

func urlOf(cfg *config.Config, listen string) string {
	scheme := "http"
	if cfg.TLS.CertFile != "" {
		scheme = "https"
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return scheme + "://" + listen
	}
	switch host {
	case "", "0.0.0.0":
		host = "127.0.0.1"
	case "::":
		host = "::1"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

// removeSockets removes the sockets that killed children have left.
func removeSockets(cfg *config.Config) {
	for _, name := range []string{config.GRPCSocket, config.HTTPSocket, config.MeterSocket, config.EnvoyAdminSocket} {
		path := filepath.Join(cfg.StateDir, name)
		if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
			_ = os.Remove(path)
		}
	}
}
