// Package meter tests the meter inside Envoy alone: the real library in a real
// Envoy, a scripted engine behind it, and a tollgate that is only a socket. What
// the check and ext_proc would say of a request stands in its headers.
package meter

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"text/template"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/vllmsim"
)

// rig is one Envoy with the meter in it.
type rig struct {
	t        *testing.T
	dir      string // Envoy's working directory
	upstream *stack.Upstream
	url      string
	envoy    *exec.Cmd
	ended    chan struct{}
	killed   bool // by the test
	leases   atomic.Int64
}

// library builds the meter, with the words of flags.
func library(t *testing.T, flags ...string) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "python3", append([]string{"scripts/build_meter.py"}, flags...)...)
	cmd.Dir, cmd.Stderr = root, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("build the meter: %v", err)
	}
	path := strings.TrimSpace(string(out))
	if path == "" {
		t.Skip("no cargo: the meter cannot be built here")
	}
	return path
}

// start starts Envoy with a library in it; sync is the second word of the
// filter's configuration.
func start(t *testing.T, library, sync string) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), ended: make(chan struct{})}
	if err := os.Mkdir(filepath.Join(r.dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	r.upstream = stack.StartUpstream(t, "", vllmsim.Options{})
	port := stack.FreePort(t)
	r.url = fmt.Sprintf("http://127.0.0.1:%d", port)
	module := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(library), "lib"), ".so")
	host, engine, _ := strings.Cut(r.upstream.Addr, ":")
	var config strings.Builder
	if err := bootstrap.Execute(&config, map[string]any{
		"Port": port, "Module": module, "Config": "run/meter.sock " + sync, "EngineHost": host, "EnginePort": engine, "Lua": lua,
	}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(r.dir, "envoy.yaml")
	if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	r.run(stack.EnvoyBinary(t), filepath.Dir(library), file)
	eventually(t, "Envoy serves", func() bool {
		resp, err := http.Get(r.url + "/ready") //nolint:noctx // a probe of the loopback
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return true
	})
	return r
}

func (r *rig) run(binary, libraries, config string) {
	r.t.Helper()
	log, err := os.Create(filepath.Join(r.dir, "envoy.log"))
	if err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(r.t.Context()), binary, "-c", config, "--concurrency", "2", "--disable-hot-restart", "-l", "warning")
	cmd.Dir, cmd.Stdout, cmd.Stderr = r.dir, log, log
	cmd.Env = append(os.Environ(), "ENVOY_DYNAMIC_MODULES_SEARCH_PATH="+libraries)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	_ = log.Close()
	r.envoy = cmd
	go func() {
		_ = cmd.Wait()
		close(r.ended)
	}()
	r.t.Cleanup(func() {
		died := false
		select {
		case <-r.ended:
			died = true
		default:
		}
		r.kill()
		if died && !r.killed {
			r.t.Errorf("Envoy has ended by itself")
		}
		if r.t.Failed() {
			b, _ := os.ReadFile(log.Name())
			r.t.Logf("Envoy:\n%s", b[max(0, len(b)-4000):])
		}
	})
}

func (r *rig) kill() {
	_ = r.envoy.Process.Kill()
	<-r.ended
}

// log is what Envoy has printed.
func (r *rig) log() string {
	b, err := os.ReadFile(filepath.Join(r.dir, "envoy.log"))
	if err != nil {
		r.t.Error(err)
	}
	return string(b)
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("waited in vain until: %s", what)
}

// ask is a request, with what check and ext_proc would have said of it.
type ask struct {
	lease   string
	plan    string // "": none comes
	headers string
	spent   string
	reply   *stack.Reply
}

// answer is what a client got.
type answer struct {
	status int
	header http.Header
	body   string
	err    error // of the body: nil when it has ended well
}

// lease is one that nobody has had.
func (r *rig) lease() string { return fmt.Sprintf("lease-%d", r.leases.Add(1)) }

// send sends a request and returns the open response.
func (r *rig) send(ctx context.Context, a ask) (*http.Response, error) {
	mark := r.upstream.On(a.reply)
	body, err := json.Marshal(map[string]string{"model": "tiny", "mark": mark})
	if err != nil {
		r.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+"/v1/chat/completions", strings.NewReader(string(body)))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("content-type", "application/json")
	for name, value := range map[string]string{"x-lease": a.lease, "x-plan": a.plan, "x-headers": a.headers, "x-spent": a.spent} {
		if value != "" {
			req.Header.Set(name, strings.ReplaceAll(value, "\n", "|"))
		}
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	return client.Do(req)
}

// get sends a request and reads the whole answer.
func (r *rig) get(a ask) answer {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	resp, err := r.send(ctx, a)
	if err != nil {
		return answer{err: err}
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return answer{status: resp.StatusCode, header: resp.Header, body: string(b), err: err}
}

// background is get, not waited for.
func (r *rig) background(a ask) <-chan answer {
	done := make(chan answer, 1)
	go func() { done <- r.get(a) }()
	return done
}

// lua puts into the stream's metadata what stands in headers; "|" is a line feed.
const lua = `
function set(h, namespace, key, header)
  local v = h:headers():get(header)
  if v ~= nil then
    h:streamInfo():dynamicMetadata():set(namespace, key, (string.gsub(v, "|", "\n")))
    h:headers():remove(header)
  end
end
function envoy_on_request(h)
  set(h, "envoy.filters.http.ext_authz", "lease", "x-lease")
  set(h, "tollgate.meter", "plan", "x-plan")
  set(h, "tollgate.meter", "headers", "x-headers")
  set(h, "tollgate.meter", "spent", "x-spent")
end
function envoy_on_response(h)
  local by = h:streamInfo():dynamicMetadata():get("tollgate.meter.by")
  if by ~= nil then h:headers():add("x-by", by["instance"]) end
end`

var bootstrap = template.Must(template.New("envoy.yaml").Funcs(template.FuncMap{
	"q": func(s string) string { b, _ := json.Marshal(s); return string(b) },
}).Parse(`
static_resources:
  listeners:
  - name: edge
    address: { socket_address: { address: 127.0.0.1, port_value: {{ .Port }} } }
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          stream_idle_timeout: 60s
          route_config:
            virtual_hosts:
            - name: edge
              domains: ["*"]
              routes:
              - match: { path: /ready }
                direct_response: { status: 200 }
              - match: { prefix: / }
                route: { cluster: engine, timeout: 0s }
          http_filters:
          - name: lua
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
              default_source_code: { inline_string: {{ q .Lua }} }
          - name: tollgate.meter
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter
              dynamic_module_config: { name: {{ q .Module }}, do_not_close: true }
              filter_name: meter
              filter_config: { "@type": type.googleapis.com/google.protobuf.StringValue, value: {{ q .Config }} }
          - name: envoy.filters.http.router
            typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
  clusters:
  - name: engine
    type: STATIC
    connect_timeout: 2s
    load_assignment:
      cluster_name: engine
      endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { address: {{ q .EngineHost }}, port_value: {{ .EnginePort }} } } } }] }]
`))
