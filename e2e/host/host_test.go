// Package host_test runs a whole host as its owner does: one command, the
// printed curl, Ctrl-C, and the worst that can happen to a launcher.
package host_test

import (
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

func TestMain(m *testing.M) {
	m.Run()
	stack.Clean()
}

// host is a folder with a launcher in it.
type host struct {
	*stack.Launcher
	t *testing.T
}

// newHost writes a config with the simulated vLLM on free ports.
func newHost(t *testing.T) *host {
	t.Helper()
	edge := stack.FreePort(t)
	h := &host{stack.NewLauncher(t, t.TempDir(), fmt.Sprintf("http://127.0.0.1:%d", edge)), t}
	yaml := fmt.Sprintf("listen: 127.0.0.1:%d\nmetrics_listen: 127.0.0.1:%d\nenvoy: {concurrency: 2}\nvllm:\n  port: %d\n  auto_start: true\n  launch_mode: simulated\n",
		edge, stack.FreePort(t), stack.FreePort(t))
	if err := os.WriteFile(filepath.Join(h.Dir, "config.yaml"), []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	return h
}

// up starts the launcher, waits for its ready line and the curl, and returns
// how long that took.
func (h *host) up() time.Duration {
	h.t.Helper()
	h.Start()
	return h.Ready(time.Minute)
}

func (h *host) sockets() []string {
	var left []string
	_ = filepath.WalkDir(h.Dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&fs.ModeSocket != 0 {
			left = append(left, path)
		}
		return nil
	})
	return left
}

// stream opens a streamed answer of so many tokens.
func (h *host) stream(tokens, delayMS int) io.Reader {
	h.t.Helper()
	body := fmt.Sprintf(`{"model":"simulated","stream":true,"max_tokens":%d,"messages":[{"role":"user","content":"hi"}],"sim":{"delay_ms":%d}}`, tokens, delayMS)
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
	return resp.Body
}

// printedCurl is the command line that the launcher printed.
func (h *host) printedCurl() string {
	h.t.Helper()
	_, curl, ok := strings.Cut(h.Printed(), "curl ")
	if !ok {
		h.t.Fatalf("no curl in:\n%s", h.Printed())
	}
	return "curl " + curl
}

func TestTheFirstTenMinutes(t *testing.T) {
	h := newHost(t)
	h.up()
	out, err := exec.Command("sh", "-c", h.printedCurl()).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "data: [DONE]") {
		t.Errorf("the printed curl: %v\n%s\n%s", err, h.printedCurl(), out)
	}
	usage := exec.Command(stack.Binary(t, "tollgate"), "--config", "config.yaml", "usage", "--by", "user")
	usage.Dir = h.Dir
	if out, err := usage.CombinedOutput(); err != nil || !strings.Contains(string(out), "default") {
		t.Errorf("tollgate usage: %v\n%s", err, out)
	}
	h.Signal(syscall.SIGINT)
	if code := h.Exit(10 * time.Second); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if left := h.sockets(); len(left) > 0 {
		t.Errorf("sockets are left: %v", left)
	}
	took := h.up()
	t.Logf("the second start took %v from command to ready", took)
	h.Signal(syscall.SIGTERM)
	if code := h.Exit(10 * time.Second); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

func TestCtrlCLetsAStreamFinishAndASecondOneDoesNot(t *testing.T) {
	h := newHost(t)
	h.up()
	resp := h.stream(40, 50)
	h.Signal(syscall.SIGINT)
	body, err := io.ReadAll(resp)
	if err != nil || !strings.Contains(string(body), "[DONE]") {
		t.Errorf("the stream was cut by the drain: %v", err)
	}
	if code := h.Exit(15 * time.Second); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}

	h.up()
	resp = h.stream(2000, 50)
	h.Signal(syscall.SIGINT)
	go func() { _, _ = io.Copy(io.Discard, resp) }()
	select {
	case <-h.Done():
		t.Fatal("the launcher did not wait for the stream")
	case <-time.After(500 * time.Millisecond):
	}
	start := time.Now()
	h.Signal(syscall.SIGINT)
	h.Exit(5 * time.Second)
	t.Logf("a second Ctrl-C took %v", time.Since(start))
}

func TestAKilledLauncherLeavesNothingAndTheNextOneServes(t *testing.T) {
	h := newHost(t)
	h.up()
	_ = h.stream(2000, 50)
	h.Signal(syscall.SIGKILL)
	h.Exit(5 * time.Second)
	h.up()
	if body, err := io.ReadAll(h.stream(5, 0)); err != nil || !strings.Contains(string(body), "[DONE]") {
		t.Errorf("after the restart: %v", err)
	}
	verify := exec.Command(stack.Binary(t, "tollgate"), "--config", "config.yaml", "ledger", "verify")
	verify.Dir = h.Dir
	if out, err := verify.CombinedOutput(); err != nil {
		t.Errorf("ledger verify: %v\n%s", err, out)
	}
}
