// Package host_test runs a whole host as its owner does: one command, the
// printed curl, Ctrl-C, and the worst that can happen to a launcher.
package host_test

import (
	"bufio"
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
	t    *testing.T
	dir  string
	url  string
	cmd  *exec.Cmd
	out  string // all that it printed until it was ready
	done chan struct{}
	// files is the limit of open files of the launcher; 0: the test's own.
	files int
}

// newHost writes a config with the simulated vLLM on free ports.
func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, dir: t.TempDir()}
	edge := stack.FreePort(t)
	h.url = fmt.Sprintf("http://127.0.0.1:%d", edge)
	yaml := fmt.Sprintf("listen: 127.0.0.1:%d\nmetrics_listen: 127.0.0.1:%d\nenvoy: {concurrency: 2}\nvllm:\n  port: %d\n  auto_start: true\n  launch_mode: simulated\n",
		edge, stack.FreePort(t), stack.FreePort(t))
	if err := os.WriteFile(filepath.Join(h.dir, "config.yaml"), []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	return h
}

// up starts the launcher, waits for its ready line and the curl, and returns
// how long that took.
func (h *host) up() time.Duration {
	h.t.Helper()
	stack.Binary(h.t, "tollgate") // beside the launcher
	h.cmd = exec.Command(stack.Binary(h.t, "launcher"), "up", "--config", "config.yaml")
	if h.files > 0 {
		h.cmd = exec.Command("sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$0" up --config config.yaml`, h.files), stack.Binary(h.t, "launcher"))
	}
	h.cmd.Dir = h.dir
	h.cmd.Env = append(os.Environ(), "ENVOY_BIN="+stack.EnvoyBinary(h.t))
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	stdout, err := h.cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	said, err := os.OpenFile(filepath.Join(h.dir, "launcher.err"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		h.t.Fatal(err)
	}
	h.cmd.Stderr = said
	start := time.Now()
	err = h.cmd.Start()
	_ = said.Close()
	if err != nil {
		h.t.Fatal(err)
	}
	h.done = make(chan struct{})
	lines := make(chan string, 1000)
	go func() {
		sc := bufio.NewScanner(stdout)
		for sc.Scan() {
			lines <- sc.Text()
		}
		_ = h.cmd.Wait()
		close(h.done)
	}()
	h.t.Cleanup(func() {
		_ = h.cmd.Process.Kill()
		<-h.done
		if h.t.Failed() {
			said, _ := os.ReadFile(filepath.Join(h.dir, "launcher.err"))
			h.t.Logf("the launcher said:\n%s", said)
		}
	})
	var took time.Duration
	limit := time.After(60 * time.Second)
	for {
		select {
		case line := <-lines:
			h.out += line + "\n"
			if line == "ready "+h.url {
				took = time.Since(start)
			}
			if took > 0 && strings.Contains(line, "curl") {
				return took
			}
		case <-h.done:
			h.t.Fatalf("the launcher has ended:\n%s", h.out)
		case <-limit:
			h.t.Fatalf("not ready in a minute:\n%s", h.out)
		}
	}
}

func (h *host) signal(sig syscall.Signal) {
	h.t.Helper()
	if err := h.cmd.Process.Signal(sig); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) exit(limit time.Duration) int {
	h.t.Helper()
	select {
	case <-h.done:
		return h.cmd.ProcessState.ExitCode()
	case <-time.After(limit):
		h.t.Fatalf("still running after %v", limit)
		return -1
	}
}

// remains lists what is left of the host: processes that work in its folder,
// and sockets.
func (h *host) remains() []string {
	var left []string
	procs, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, p := range procs {
		cwd, err := os.Readlink(p)
		if err == nil && (cwd == h.dir || strings.HasPrefix(cwd, h.dir+"/")) {
			name, _ := os.ReadFile(filepath.Join(filepath.Dir(p), "cmdline"))
			left = append(left, strings.ReplaceAll(string(name), "\x00", " "))
		}
	}
	return left
}

func (h *host) sockets() []string {
	var left []string
	_ = filepath.WalkDir(h.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&fs.ModeSocket != 0 {
			left = append(left, path)
		}
		return nil
	})
	return left
}

func (h *host) nothingIsLeft() {
	h.t.Helper()
	stack.Eventually(h.t, 5*time.Second, "every process to be gone", func() bool { return len(h.remains()) == 0 })
}

// stream opens a streamed answer of so many tokens.
func (h *host) stream(tokens, delayMS int) io.Reader {
	h.t.Helper()
	body := fmt.Sprintf(`{"model":"simulated","stream":true,"max_tokens":%d,"messages":[{"role":"user","content":"hi"}],"sim":{"delay_ms":%d}}`, tokens, delayMS)
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodPost, h.url+"/v1/chat/completions", strings.NewReader(body))
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
	i := strings.Index(h.out, "curl ")
	if i < 0 {
		h.t.Fatalf("no curl in:\n%s", h.out)
	}
	return h.out[i:]
}

func TestTheFirstTenMinutes(t *testing.T) {
	h := newHost(t)
	h.up()
	out, err := exec.Command("sh", "-c", h.printedCurl()).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "data: [DONE]") {
		t.Errorf("the printed curl: %v\n%s\n%s", err, h.printedCurl(), out)
	}
	usage := exec.Command(stack.Binary(t, "tollgate"), "--config", "config.yaml", "usage", "--by", "user")
	usage.Dir = h.dir
	if out, err := usage.CombinedOutput(); err != nil || !strings.Contains(string(out), "default") {
		t.Errorf("tollgate usage: %v\n%s", err, out)
	}
	h.signal(syscall.SIGINT)
	if code := h.exit(10 * time.Second); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	h.nothingIsLeft()
	if left := h.sockets(); len(left) > 0 {
		t.Errorf("sockets are left: %v", left)
	}
	took := h.up()
	t.Logf("the second start took %v from command to ready", took)
	h.signal(syscall.SIGTERM)
	if code := h.exit(10 * time.Second); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	h.nothingIsLeft()
}

func TestCtrlCLetsAStreamFinishAndASecondOneDoesNot(t *testing.T) {
	h := newHost(t)
	h.up()
	resp := h.stream(40, 50)
	h.signal(syscall.SIGINT)
	body, err := io.ReadAll(resp)
	if err != nil || !strings.Contains(string(body), "[DONE]") {
		t.Errorf("the stream was cut by the drain: %v", err)
	}
	if code := h.exit(15 * time.Second); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	h.nothingIsLeft()

	h.up()
	resp = h.stream(2000, 50)
	h.signal(syscall.SIGINT)
	go func() { _, _ = io.Copy(io.Discard, resp) }()
	select {
	case <-h.done:
		t.Fatal("the launcher did not wait for the stream")
	case <-time.After(500 * time.Millisecond):
	}
	start := time.Now()
	h.signal(syscall.SIGINT)
	h.exit(5 * time.Second)
	t.Logf("a second Ctrl-C took %v", time.Since(start))
	h.nothingIsLeft()
}

func TestAKilledLauncherLeavesNothingAndTheNextOneServes(t *testing.T) {
	h := newHost(t)
	h.up()
	_ = h.stream(2000, 50)
	h.signal(syscall.SIGKILL)
	<-h.done
	h.nothingIsLeft()
	h.up()
	if body, err := io.ReadAll(h.stream(5, 0)); err != nil || !strings.Contains(string(body), "[DONE]") {
		t.Errorf("after the restart: %v", err)
	}
	verify := exec.Command(stack.Binary(t, "tollgate"), "--config", "config.yaml", "ledger", "verify")
	verify.Dir = h.dir
	if out, err := verify.CombinedOutput(); err != nil {
		t.Errorf("ledger verify: %v\n%s", err, out)
	}
}
