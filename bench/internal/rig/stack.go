package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"tollgate/envoy"
	"tollgate/internal/config"
	"tollgate/internal/ledger"
	"tollgate/internal/sqlitestore"
)

// Kind is what stands before the upstream.
type Kind string

// The kinds of stacks.
const (
	Direct   Kind = "direct"   // nothing
	Plain    Kind = "plain"    // Envoy with its router
	APIKey   Kind = "apikey"   // Envoy that checks one key itself
	Bare     Kind = "bare"     // Tollgate's Envoy configuration before a server that does nothing
	Tollgate Kind = "tollgate" // everything on
	Foreign  Kind = "foreign"  // somebody else's, given by URL
	// ExtProc is Tollgate with its answers metered by tollgate, whatever this machine
	// has; [Tollgate] is metered inside Envoy where there is a library.
	ExtProc Kind = "tollgate ext_proc"
	// Network is [ExtProc] with Envoy before service.listen: TCP with mutual TLS in place
	// of the Unix sockets.
	Network Kind = "tollgate network"
)

// Ours reports whether it is Tollgate, with a ledger.
func (k Kind) Ours() bool { return k == Tollgate || k == ExtProc || k == Network }

// key is the key of every rig: it guards nothing.
const key = "sk-bench-0123456789abcdef0123456789abcdef"

// Stack is one gateway with its processes.
type Stack struct {
	Kind   Kind
	URL    string
	Key    string
	Envoy  *Proc // nil where there is none
	Server *Proc // tollgate or the bare server; nil where there is none

	dir    string
	cfg    *config.Config
	scrape string
	remote *envoy.Remote // nil: tollgate's sockets
}

// Start starts a stack in a folder of the given name, which may be one of an
// earlier stack: then it is a warm start. binary is the tollgate to run; empty:
// the rig's.
func (r *Rig) Start(ctx context.Context, kind Kind, name, binary string) (*Stack, error) {
	if kind == Direct {
		return &Stack{Kind: kind, URL: "http://" + r.addr}, nil
	}
	s := &Stack{Kind: kind, Key: key, dir: filepath.Join(r.o.Dir, name)}
	r.stacks = append(r.stacks, s)
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := s.configure(ctx, r); err != nil {
		return nil, err
	}
	if err := s.startServer(ctx, r, binary); err != nil {
		return nil, err
	}
	if err := s.startEnvoy(ctx, r); err != nil {
		return nil, err
	}
	return s, nil
}

// configure writes Tollgate's configuration with all limits set, high.
func (s *Stack) configure(ctx context.Context, r *Rig) error {
	edge, err := FreePort(ctx)
	if err != nil {
		return err
	}
	scrape, err := FreePort(ctx)
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(r.addr)
	if err != nil {
		return fmt.Errorf("read upstream address: %w", err)
	}
	service, err := s.network(ctx)
	if err != nil {
		return err
	}
	text := fmt.Sprintf(`listen: 127.0.0.1:%d
metrics_listen: 127.0.0.1:%d
state_dir: %q
log: {dir: %q, level: info}
auth: {api_keys_file: %q}
rate_limit: {qps: 1000000, concurrent: 1000000, concurrent_per_key: 1000000, requests_per_minute: 100000000, tokens_per_minute: 1000000000000}
drain_timeout: 1s
envoy: {concurrency: %d}
vllm: {host: %q, port: %s}
%s`, edge, scrape, filepath.Join(s.dir, "state"), filepath.Join(s.dir, "logs"), filepath.Join(s.dir, "keys.json"), r.o.Workers, host, port, service)
	keys, err := json.Marshal([]map[string]any{{"key": key, "id": "bench", "user": "bench", "quota": int64(1) << 50}})
	if err != nil {
		return fmt.Errorf("write keys: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(s.dir, "state"), 0o700); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	for name, content := range map[string][]byte{"config.yaml": []byte(text), "keys.json": keys} {
		if err := os.WriteFile(filepath.Join(s.dir, name), content, 0o600); err != nil {
			return fmt.Errorf("write configuration: %w", err)
		}
	}
	if s.cfg, err = config.Load(filepath.Join(s.dir, "config.yaml")); err != nil {
		return fmt.Errorf("load configuration: %w", err)
	}
	s.URL, s.scrape = fmt.Sprintf("http://127.0.0.1:%d", edge), fmt.Sprintf("http://127.0.0.1:%d", scrape)
	return nil
}

func (s *Stack) startServer(ctx context.Context, r *Rig, binary string) (err error) {
	socket := s.cfg.InState(config.GRPCSocket)
	var argv []string
	switch s.Kind {
	case Bare:
		argv = []string{r.o.Self, "bare", socket}
	case Tollgate, ExtProc, Network:
		if binary == "" {
			binary = r.o.Tollgate
		}
		argv = []string{binary, "--config", filepath.Join(s.dir, "config.yaml"), "serve"}
	case Direct, Plain, APIKey, Foreign:
		return nil
	}
	s.Server, err = spawn(string(s.Kind), filepath.Join(s.dir, "server.log"), s.dir, argv)
	if err != nil {
		return err
	}
	return s.Server.until(ctx, func() bool {
		_, err := os.Stat(socket)
		return err == nil
	})
}

func (s *Stack) startEnvoy(ctx context.Context, r *Rig) error {
	params, err := envoy.ParamsFor(s.cfg)
	if err != nil {
		return fmt.Errorf("read parameters of Envoy: %w", err)
	}
	if !s.Kind.Ours() { // nobody else tells Envoy its engines
		if params.Upstreams, err = envoy.Upstreams(s.cfg); err != nil {
			return fmt.Errorf("read engines: %w", err)
		}
	}
	var env []string
	if s.Kind == Tollgate && r.o.Meter != "" {
		params.Meter = &envoy.Meter{Library: r.o.Meter, Socket: config.MeterSocket, Sync: s.cfg.Ledger.Sync}
		env = append(env, envoy.SearchPath+"="+params.Meter.Dir())
	}
	params.Remote = s.remote
	bootstrap, err := s.writeBootstrap(params)
	if err != nil {
		return fmt.Errorf("write bootstrap: %w", err)
	}
	s.Envoy, err = spawn("envoy of "+string(s.Kind), filepath.Join(s.dir, "envoy.log"), s.cfg.StateDir,
		append([]string{r.o.Envoy}, envoy.Args(bootstrap, s.cfg)...), env...)
	if err != nil {
		return err
	}
	return s.Envoy.until(ctx, func() bool {
		if s.Kind.Ours() || s.Kind == Bare { // tollgate answers the list of models itself, engine or not
			return s.engineHealthy(ctx)
		}
		code, _, err := get(ctx, s.URL+"/v1/models", key)
		return err == nil && code == http.StatusOK
	})
}

// engineHealthy: Envoy's health check of the engine has passed.
func (s *Stack) engineHealthy(ctx context.Context) bool {
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.cfg.InState(config.EnvoyAdminSocket))
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://envoy/stats?filter=^cluster.vllm.membership_healthy$", http.NoBody)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return err == nil && bytes.Contains(b, []byte("membership_healthy: 1"))
}

func (s *Stack) writeBootstrap(p envoy.Params) (path string, err error) {
	var text []byte
	switch s.Kind {
	case Plain:
		text, err = plainBootstrap(p, "")
	case APIKey:
		text, err = plainBootstrap(p, key)
	case Bare:
		text, err = bareBootstrap(p)
	case Tollgate, ExtProc, Network, Direct, Foreign: // the rig starts no Envoy for the last two
		return envoy.Write(s.cfg.StateDir, p)
	}
	if err != nil {
		return "", err
	}
	return write(s.cfg.StateDir, text)
}

// Stop stops the processes, Envoy first. A second call does nothing.
func (s *Stack) Stop() {
	if s.Envoy != nil {
		s.Envoy.Stop()
	}
	if s.Server != nil {
		s.Server.Stop()
	}
}

// Records are the rows of Tollgate's ledger whose requests began at since or
// later, by request id.
func (s *Stack) Records(ctx context.Context, since time.Time) (out map[string]ledger.Record, err error) {
	r, err := sqlitestore.OpenReadOnly(ctx, s.cfg.LedgerPath())
	if err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	out = map[string]ledger.Record{}
	err = r.Each(ctx, ledger.Filter{Since: since}, func(rec ledger.Record) error {
		out[rec.RequestID] = rec
		return nil
	})
	return out, err
}

// Leases is the number of leases that are live in Tollgate.
func (s *Stack) Leases(ctx context.Context) (int, error) {
	_, b, err := get(ctx, s.scrape+"/metrics", "")
	if err != nil {
		return 0, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(b))
	if err != nil {
		return 0, fmt.Errorf("read metrics: %w", err)
	}
	for _, m := range families["tollgate_leases_live"].GetMetric() {
		return int(m.GetGauge().GetValue()), nil
	}
	return 0, errors.New("read metrics: there is no tollgate_leases_live")
}
