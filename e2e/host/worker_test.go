package host_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// standIn is a vllm whose API server has a worker in a session of its own that ignores
// SIGTERM and holds the port. It takes "serve MODEL --host HOST --port PORT" and more.
// While a file "broken" is there it cannot start.
const standIn = `#!/bin/sh
[ "$2" = --help=all ] && echo "usage: vllm serve --model" && exit
[ -e broken ] && echo "no device" >&2 && exit 1
echo $$ >api.pid
setsid env -i PATH="$PATH" sh -c 'trap "" TERM; echo $$ >worker.pid; "$0" simulate --listen "$1" --model "$2" & while :; do sleep 1; done' %q "$4:$6" "$2" &
while :; do sleep 1; done
`

// pid is the number that the stand-in wrote last.
func (h *host) pid(file string) int {
	h.t.Helper()
	var pid int
	stack.Eventually(h.t, 20*time.Second, "a number in "+file, func() bool {
		b, _ := os.ReadFile(filepath.Join(h.Dir, file))
		var err error
		pid, err = strconv.Atoi(strings.TrimSpace(string(b)))
		return err == nil
	})
	return pid
}

// answer is the status and the body of one request.
func (h *host) answer() (int, string) {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodPost, h.URL+"/v1/chat/completions",
		strings.NewReader(`{"model":"simulated","max_tokens":2,"messages":[{"role":"user","content":"hi"}]}`))
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer sk-default-key-change-me")
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		h.t.Fatalf("the gateway does not answer: %v", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

func TestTheGatewaySurvivesAnEngineWhoseWorkerHoldsThePort(t *testing.T) {
	h := newHost(t)
	path := filepath.Join(h.Dir, "config.yaml")
	yaml, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(yaml), "launch_mode: simulated\n", fmt.Sprintf(
		"model: simulated\n  extra_env: {PATH: %q}\n  restart: {backoff_min: 10ms, backoff_max: 100ms, give_up_after: 2}\n", h.Dir+"/bin:"+os.Getenv("PATH")), 1)
	if err := os.Mkdir(filepath.Join(h.Dir, "bin"), 0o750); err != nil {
		t.Fatal(err)
	}
	for file, body := range map[string]string{"config.yaml": text, "bin/vllm": fmt.Sprintf(standIn, stack.Binary(t, "launcher"))} {
		if err := os.WriteFile(filepath.Join(h.Dir, file), []byte(body), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	h.up()
	worker := h.pid("worker.pid")
	if status, body := h.answer(); status != http.StatusOK {
		t.Fatalf("before: %d %s", status, body)
	}

	_ = syscall.Kill(h.pid("api.pid"), syscall.SIGKILL)
	stack.Eventually(t, 30*time.Second, "another worker", func() bool { return h.pid("worker.pid") != worker })
	if err := syscall.Kill(worker, 0); err == nil {
		t.Error("the worker of the last life lives")
	}
	served := func() bool { status, _ := h.answer(); return status == http.StatusOK }
	stack.Eventually(t, 30*time.Second, "the engine to be back", served)

	broken := filepath.Join(h.Dir, "broken")
	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_ = syscall.Kill(h.pid("api.pid"), syscall.SIGKILL)
	stack.Eventually(t, 30*time.Second, "more crashes than it is given up after", func() bool {
		log, _ := os.ReadFile(filepath.Join(h.Dir, "logs", "launcher.log"))
		return strings.Count(string(log), "child crashed") > 5
	})
	if status, body := h.answer(); status != http.StatusServiceUnavailable || !strings.Contains(body, "engine_unavailable") {
		t.Errorf("without an engine: %d %s", status, body)
	}
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	stack.Eventually(t, 30*time.Second, "the engine to be back again", served)
	h.Signal(syscall.SIGTERM)
	if code := h.Exit(30 * time.Second); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}
