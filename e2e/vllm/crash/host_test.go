// Package crash_test lets the engine fail in every way that a process can,
// under a launcher with tollgate and Envoy, and looks at what people see: the
// answer, /health, the metrics, the ledger, and what is left behind.
//
// The engine is a fake one of two processes, as vLLM is: a main process, which
// is what the launcher knows, and one that does the work (the simulator).
package crash_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
	"tollgate/internal/sqlitestore"
)

func TestMain(m *testing.M) {
	m.Run()
	stack.Clean()
}

// fakeVLLM is the main process. A file "fault" in the launcher's folder says
// what is wrong with it; it is read at every start.
const fakeVLLM = `#!/bin/sh
if [ "$2" = --help=all ]; then
	echo "options: --host --port --max-model-len --enable-prompt-tokens-details --enable-force-include-usage"
	exit
fi
case $2 in
missing*)
	echo "OSError: $2 is neither a folder nor a known model" >&2
	exit 1 ;;
esac
fault=$(cat fault 2>/dev/null)
case $fault in
exit*)
	echo "last words of the engine"
	exit ${fault#exit } ;;
segv)
	echo "last words of the engine"
	kill -SEGV $$ ;;
slow) sleep 3 ;;
deaf) trap '' TERM ;;
esac
%s simulate --listen "$4:$6" --model "$2" --enable-prompt-tokens-details &
core=$!
[ "$fault" = deaf ] || trap 'kill -TERM $core; wait $core; exit 0' TERM
while kill -0 $core 2>/dev/null; do
	wait $core
	code=$?
done
exit $code
`

// host is a launcher in a folder of its own.
type host struct {
	*stack.Launcher
	t      *testing.T
	engine string // host:port
	scrape string // host:port of tollgate's metrics
}

// newHost writes a configuration; vllm is more of its vllm section.
func newHost(t *testing.T, model, vllm string) *host {
	t.Helper()
	address := func() string { return fmt.Sprintf("127.0.0.1:%d", stack.FreePort(t)) }
	edge := address()
	h := &host{stack.NewLauncher(t, t.TempDir(), "http://"+edge), t, address(), address()}
	_, port, _ := strings.Cut(h.engine, ":")
	h.write("bin/vllm", fmt.Sprintf(fakeVLLM, stack.Binary(t, "launcher")), 0o700)
	h.write("config.yaml", fmt.Sprintf(`listen: %s
metrics_listen: %s
envoy: {concurrency: 1}
vllm:
  port: %s
  auto_start: true
  launch_mode: cli
  model: %s
  extra_env: {PATH: "%s/bin:/usr/bin:/bin"}
%s`, edge, h.scrape, port, model, h.Dir, vllm), 0o600)
	return h
}

// in is the same host for a subtest, which its failures belong to.
func (h *host) in(t *testing.T) *host {
	t.Helper()
	own := *h
	own.t = t
	return &own
}

func (h *host) write(name, text string, mode os.FileMode) {
	h.t.Helper()
	path := filepath.Join(h.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		h.t.Fatal(err)
	}
}

// fault says what is wrong with the engine from its next start on; "" nothing.
func (h *host) fault(what string) {
	h.t.Helper()
	h.write("fault", what, 0o600)
}

// up starts the launcher and waits until it is ready.
func (h *host) up() {
	h.t.Helper()
	h.Start()
	h.Ready(time.Minute)
}

// stop is one Ctrl-C.
func (h *host) stop() int {
	h.t.Helper()
	h.Signal(syscall.SIGINT)
	return h.Exit(30 * time.Second)
}

// health is the status of /health, 0 when the edge cannot be reached.
func (h *host) health() int {
	resp, err := http.Get(h.URL + "/health")
	if err != nil {
		return 0
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// engineUp is tollgate_engine_up: "0", "1", or "" when nobody says.
func (h *host) engineUp() string {
	resp, err := http.Get("http://" + h.scrape + "/metrics")
	if err != nil {
		return ""
	}
	defer func() { _ = resp.Body.Close() }()
	page, _ := io.ReadAll(resp.Body)
	_, rest, _ := bytes.Cut(page, fmt.Appendf(nil, "\ntollgate_engine_up{engine=%q} ", h.engine))
	value, _, _ := bytes.Cut(rest, []byte("\n"))
	return string(value)
}

// answer is what the edge said so far; its body is open until the test's end.
type answer struct {
	status int
	header http.Header
	body   io.Reader
}

// chat asks the edge.
func (h *host) chat(body string) answer {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodPost, h.URL+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer sk-default-key-change-me")
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = resp.Body.Close() })
	return answer{resp.StatusCode, resp.Header, resp.Body}
}

// script tells the simulator something.
func (h *host) script(path, body string) {
	h.t.Helper()
	resp, err := http.Post("http://"+h.engine+path, "application/json", strings.NewReader(body))
	if err == nil {
		_ = resp.Body.Close() // one that was told to die need not answer
	}
}

// record waits until a request is settled.
func (h *host) record(id string) ledger.Record {
	h.t.Helper()
	r, err := sqlitestore.OpenReadOnly(h.t.Context(), filepath.Join(h.Dir, "state/ledger.db"))
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	var rec ledger.Record
	stack.Eventually(h.t, 10*time.Second, "the record of "+id, func() bool {
		err := r.Each(h.t.Context(), ledger.Filter{}, func(one ledger.Record) error {
			if one.RequestID == id {
				rec = one
			}
			return nil
		})
		if err != nil {
			h.t.Fatal(err)
		}
		return rec.RequestID != "" && !rec.Open()
	})
	return rec
}
