// Package stack starts the real thing for black-box tests: the built tollgate,
// a real Envoy, and a simulated (or given) vLLM, on free loopback ports, in a
// folder of the test's own. Every process it starts ends with the test.
package stack

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tollgate/envoy"
	"tollgate/internal/config"
	"tollgate/internal/ledger"
	"tollgate/internal/sqlitestore"
	"tollgate/internal/vllmsim"
)

// Key is the default test key: user "ann", no limits of its own.
const Key = "sk-test-ann-0123456789abcdef"

// AdminKey opens /admin.
const AdminKey = "sk-test-admin-0123456789abcdef"

// defaultKeys is the key file of a stack that names none.
const defaultKeys = `[
  {"key": "` + Key + `", "id": "ann", "user": "ann"},
  {"key": "` + AdminKey + `", "id": "root", "user": "admin"}
]`

// Options say what a stack is made of; the zero value is a gateway without
// limits before a simulated vLLM that serves "tiny" without pacing.
type Options struct {
	// Config is YAML added to the ports and paths that the stack chooses:
	// sections such as rate_limit or request. It must not name listen,
	// metrics_listen, state_dir, log, auth or vllm.
	Config string
	// VLLM is YAML of the vllm section, indented by two spaces, beside host and
	// port.
	VLLM string
	// Keys is the key file; empty: [Key] and [AdminKey].
	Keys string
	// Sim configures the simulator; Models defaults to "tiny".
	Sim vllmsim.Options
	// Engine is the host:port of an engine that is there already; then no
	// simulator is started.
	Engine string
	// Workers is Envoy's concurrency; 0: two.
	Workers int
	// Dir is the working folder; empty: one of the test's own.
	Dir string
	// EnvoyHeapMB is envoy.max_heap_mb; 0: its default.
	EnvoyHeapMB int
	// KeysFile is a key file that others use too; empty: one of the stack's own.
	KeysFile string
	// Remote says where Envoy finds tollgate; nil: beside it.
	Remote *envoy.Remote
	// NoStart leaves tollgate and Envoy to the test.
	NoStart bool
}

// Stack is a running gateway.
type Stack struct {
	tb       testing.TB
	Dir      string
	URL      string // http://127.0.0.1:port of the edge
	Scrape   string // http://127.0.0.1:port of tollgate's metrics
	Sim      *vllmsim.Sim
	Cfg      *config.Config
	Tollgate *Process
	Envoy    *Process
	// Module: answers are metered inside Envoy, and else in tollgate.
	Module bool
	HTTP1  *http.Client
	HTTP2  *http.Client // prior knowledge, without TLS
}

// Start starts a stack and waits until it answers.
func Start(tb testing.TB, o Options) *Stack {
	tb.Helper()
	s := &Stack{tb: tb, Dir: o.Dir, Module: Module(tb)}
	if s.Dir == "" {
		s.Dir = tb.TempDir()
	}
	engine := o.Engine
	if engine == "" {
		engine = s.simulate(o.Sim)
	}
	s.configure(o, engine)
	s.HTTP1 = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1024, DisableCompression: true}}
	h2 := new(http.Protocols)
	h2.SetUnencryptedHTTP2(true)
	s.HTTP2 = &http.Client{Transport: &http.Transport{Protocols: h2, DisableCompression: true}}
	tb.Cleanup(func() { s.HTTP1.CloseIdleConnections(); s.HTTP2.CloseIdleConnections() })
	s.Tollgate = s.tollgate()
	s.Envoy = s.envoy(o.Remote)
	if !o.NoStart {
		s.Tollgate.Start()
		s.Envoy.Start()
		s.Ready()
	}
	return s
}

// simulate serves a simulator in this process, so that a test sees its truth.
func (s *Stack) simulate(o vllmsim.Options) string {
	s.tb.Helper()
	if len(o.Models) == 0 {
		o.Models = []string{"tiny"}
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.tb.Fatal(err)
	}
	s.Sim = vllmsim.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Sim.Serve(ctx, lis)
	}()
	s.tb.Cleanup(func() { cancel(); <-done })
	return lis.Addr().String()
}

// configure writes the config and the key file.
func (s *Stack) configure(o Options, engine string) {
	s.tb.Helper()
	edge, scrape := FreePort(s.tb), FreePort(s.tb)
	host, port, err := net.SplitHostPort(engine)
	if err != nil {
		s.tb.Fatal(err)
	}
	yaml := fmt.Sprintf(`listen: 127.0.0.1:%d
metrics_listen: 127.0.0.1:%d
state_dir: %q
log: {dir: %q, level: debug}
auth: {api_keys_file: %q}
envoy: {concurrency: %d, max_heap_mb: %d}
%s
vllm:
  host: %s
  port: %s
%s
`, edge, scrape, s.Path("state"), s.Path("logs"), cmp.Or(o.KeysFile, s.Path("keys.json")), cmp.Or(o.Workers, 2), o.EnvoyHeapMB, o.Config, host, port, o.VLLM)
	keys := o.Keys
	if keys == "" {
		keys = defaultKeys
	}
	s.Write("config.yaml", yaml)
	s.Write("keys.json", keys)
	if s.Cfg, err = config.Load(s.Path("config.yaml")); err != nil {
		s.tb.Fatal(err)
	}
	s.URL = "http://127.0.0.1:" + strconv.Itoa(edge)
	s.Scrape = "http://127.0.0.1:" + strconv.Itoa(scrape)
}

// Path is a path in the stack's folder.
func (s *Stack) Path(name string) string { return filepath.Join(s.Dir, name) }

// Write writes a file in the stack's folder.
func (s *Stack) Write(name, content string) {
	s.tb.Helper()
	if err := os.WriteFile(s.Path(name), []byte(content), 0o600); err != nil {
		s.tb.Fatal(err)
	}
}

func (s *Stack) tollgate() *Process {
	return &Process{tb: s.tb, name: "tollgate", log: s.Path("tollgate.out"), logs: []string{s.Path("logs/gateway.log")}, command: func() *exec.Cmd {
		return exec.Command(Binary(s.tb, "tollgate"), "--config", s.Path("config.yaml"), "serve") //nolint:gosec // built above
	}}
}

func (s *Stack) envoy(remote *envoy.Remote) *Process {
	return s.EnvoyWith(remote, nil)
}

// EnvoyWith is an Envoy that finds tollgate elsewhere, with a change to the text of its
// bootstrap; nil: none. It has the stack's ports, so it runs in place of the stack's own.
func (s *Stack) EnvoyWith(remote *envoy.Remote, change func(bootstrap string) string) *Process {
	return &Process{tb: s.tb, name: "envoy", log: s.Path("envoy.out"), command: func() *exec.Cmd {
		cmd := s.envoyCommand(func(p *envoy.Params) { p.Remote = remote })
		if change != nil {
			path := s.Cfg.InState(config.BootstrapFile)
			text, err := os.ReadFile(path) //nolint:gosec // written above
			if err != nil {
				s.tb.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(change(string(text))), 0o600); err != nil {
				s.tb.Fatal(err)
			}
		}
		return cmd
	}}
}

// envoyCommand writes a bootstrap, with a change to it, and returns what runs it.
func (s *Stack) envoyCommand(change func(*envoy.Params)) *exec.Cmd {
	s.tb.Helper()
	params, err := envoy.ParamsFor(s.Cfg)
	if err != nil {
		s.tb.Fatal(err)
	}
	change(&params)
	cmd := exec.Command(EnvoyBinary(s.tb)) //nolint:gosec // found as the launcher finds it
	if s.Module && !params.Remote.TLS() {
		params.Meter = &envoy.Meter{Library: MeterLibrary(s.tb), Socket: config.MeterSocket, Sync: s.Cfg.Ledger.Sync}
		cmd.Env = append(os.Environ(), envoy.SearchPath+"="+params.Meter.Dir())
	}
	bootstrap, err := envoy.Write(s.Cfg.StateDir, params)
	if err != nil {
		s.tb.Fatal(err)
	}
	cmd.Args, cmd.Dir = append(cmd.Args, envoy.Args(bootstrap, s.Cfg)...), s.Cfg.StateDir
	return cmd
}

// Ready waits until the edge answers and an engine is ready.
func (s *Stack) Ready() {
	s.tb.Helper()
	Eventually(s.tb, 20*time.Second, "the stack to be ready", func() bool {
		resp, err := s.HTTP1.Get(s.URL + "/health")
		if err != nil {
			return false
		}
		defer func() { _ = resp.Body.Close() }()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode == http.StatusOK && s.upstreamHealthy()
	})
}

// upstreamHealthy: Envoy's own health check has passed, without which it
// answers 503 by itself.
func (s *Stack) upstreamHealthy() bool {
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.Cfg.InState(config.EnvoyAdminSocket))
	}}}
	resp, err := client.Get("http://envoy/stats?filter=^cluster.vllm.membership_healthy$")
	if err != nil {
		return false
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return err == nil && strings.Contains(string(b), "membership_healthy: ") && !strings.Contains(string(b), "membership_healthy: 0")
}

// Post sends a JSON body with [Key] and returns the answer with its body read.
func (s *Stack) Post(path, body string, header ...string) *Answer {
	s.tb.Helper()
	return s.Do(s.HTTP1, http.MethodPost, path, body, append([]string{"Authorization", "Bearer " + Key}, header...)...)
}

// Admin calls the admin API.
func (s *Stack) Admin(method, path, body string) *Answer {
	s.tb.Helper()
	return s.Do(s.HTTP1, method, path, body, "Authorization", "Bearer "+AdminKey)
}

// Answer is an HTTP answer whose body was read.
type Answer struct {
	*http.Response
	Bytes []byte
	Err   error // of reading the body: a cut answer
}

// RequestID is the id that the gateway gave the request.
func (a *Answer) RequestID() string { return a.Header.Get("x-request-id") }

// JSON decodes the body into a map; nil when it is none.
func (a *Answer) JSON() map[string]any {
	var v map[string]any
	_ = json.Unmarshal(a.Bytes, &v)
	return v
}

// ErrorCode is error.code of an OpenAI-shaped error body.
func (a *Answer) ErrorCode() string {
	e, _ := a.JSON()["error"].(map[string]any)
	code, _ := e["code"].(string)
	return code
}

// Do sends a request; header holds names and values in turn, and an empty
// value takes the header away.
func (s *Stack) Do(c *http.Client, method, path, body string, header ...string) *Answer {
	s.tb.Helper()
	req, err := http.NewRequestWithContext(s.tb.Context(), method, s.URL+path, strings.NewReader(body))
	if err != nil {
		s.tb.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i+1] == "" {
			req.Header.Del(header[i])
			continue
		}
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		s.tb.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	a := &Answer{Response: resp}
	a.Bytes, a.Err = io.ReadAll(resp.Body)
	return a
}

// Ledger opens the ledger for reading, as the command line does.
func (s *Stack) Ledger() *sqlitestore.Reader {
	s.tb.Helper()
	r, err := sqlitestore.OpenReadOnly(s.tb.Context(), s.Cfg.LedgerPath())
	if err != nil {
		s.tb.Fatal(err)
	}
	s.tb.Cleanup(func() { _ = r.Close() })
	return r
}

// Records reads all records by request id.
func (s *Stack) Records() map[string]ledger.Record {
	s.tb.Helper()
	r := s.Ledger()
	out := map[string]ledger.Record{}
	err := r.Each(s.tb.Context(), ledger.Filter{}, func(rec ledger.Record) error {
		out[rec.RequestID] = rec
		return nil
	})
	if err != nil {
		s.tb.Fatal(err)
	}
	return out
}

// Settled waits until the record of a request has ended and returns it.
func (s *Stack) Settled(requestID string) ledger.Record {
	s.tb.Helper()
	return s.RecordWhen(requestID, "settled", func(r ledger.Record) bool { return !r.Open() })
}

// RecordWhen waits for a record that is as wanted.
func (s *Stack) RecordWhen(requestID, what string, ok func(ledger.Record) bool) ledger.Record {
	s.tb.Helper()
	var rec ledger.Record
	Eventually(s.tb, 10*time.Second, "the record of "+requestID+" to be "+what, func() bool {
		var found bool
		rec, found = s.Records()[requestID]
		return found && ok(rec)
	})
	return rec
}

// Truth is what the simulator knows of a request.
func (s *Stack) Truth(requestID string) vllmsim.Truth {
	s.tb.Helper()
	truth, ok := s.Sim.Truth(requestID)
	if !ok {
		s.tb.Fatalf("the simulator never saw request %s", requestID)
	}
	return truth
}

// TB is the test that the stack belongs to.
func (s *Stack) TB() testing.TB { return s.tb }
