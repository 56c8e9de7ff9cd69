package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tollgate/internal/supervisor"
	"tollgate/internal/unixsock"
)

// stack is a launcher with fake children, in a folder of its own.
type stack struct {
	t      *testing.T
	dir    string
	edge   string // address
	cmd    *exec.Cmd
	stdout *bufio.Reader
	stderr *safeBuffer
	exited chan struct{}
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// ports are those that freePort has returned: the kernel may well give one again.
var ports sync.Map

func freePort(t *testing.T) string {
	t.Helper()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		l.Close()
		if _, given := ports.LoadOrStore(port, true); !given {
			return port
		}
	}
}

// newStack writes the configuration, with more of it added.
func newStack(t *testing.T, more string) *stack {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// A state_dir too deep for a socket's name.
	s := &stack{t: t, dir: t.TempDir(), edge: "127.0.0.1:" + freePort(t), stderr: &safeBuffer{}, exited: make(chan struct{})}
	state := filepath.Join(s.dir, "state", strings.Repeat("deep", 20))
	if err := os.MkdirAll(filepath.Join(s.dir, "bin"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(state, 0o750); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tollgate", "envoy"} {
		if err := os.Symlink(self, filepath.Join(s.dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(more, "launch_mode") {
		more = "  launch_mode: simulated\n" + more
	}
	if !strings.Contains(more, "restart:") {
		more = "  restart: {backoff_min: 50ms, backoff_max: 100ms}\n" + more
	}
	text := fmt.Sprintf(`listen: %s
metrics_listen: 127.0.0.1:%s
state_dir: %s
vllm:
  port: %s
  auto_start: true
%s`, s.edge, freePort(t), state, freePort(t), more)
	for path, body := range map[string]string{"config.yaml": text, filepath.Join(state, "fake-edge")[len(s.dir)+1:]: s.edge} {
		if err := os.WriteFile(filepath.Join(s.dir, path), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.cmd = exec.Command(self, "up", "--config", "config.yaml")
	s.cmd.Dir = s.dir
	s.cmd.Env = []string{"PATH=" + filepath.Join(s.dir, "bin"), "ENVOY_BIN=" + filepath.Join(s.dir, "bin", "envoy")}
	s.cmd.Stderr = s.stderr
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.stdout = bufio.NewReader(out)
	return s
}

func (s *stack) start() {
	s.t.Helper()
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { defer close(s.exited); _ = s.cmd.Wait() }()
	s.t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		<-s.exited
		if s.t.Failed() {
			s.t.Logf("launcher's stderr:\n%s", s.stderr)
		}
	})
}

// ready waits for the ready line.
func (s *stack) ready() {
	s.t.Helper()
	line, err := s.stdout.ReadString('\n')
	if want := "ready http://" + s.edge + "\n"; line != want || err != nil {
		<-s.exited
		s.t.Fatalf("first line: got %q, %v, want %q; stderr:\n%s", line, err, want, s.stderr)
	}
}

func (s *stack) signal(sig syscall.Signal) { _ = s.cmd.Process.Signal(sig) }

// wait returns the exit code.
func (s *stack) wait(within time.Duration) int {
	s.t.Helper()
	select {
	case <-s.exited:
		return s.cmd.ProcessState.ExitCode()
	case <-time.After(within):
		s.t.Fatalf("still running after %s", within)
		return -1
	}
}

// state asks the control API.
func (s *stack) state() map[string]supervisor.Status {
	s.t.Helper()
	socket, err := filepath.Glob(filepath.Join(s.dir, "state/*/run/launcher.sock"))
	if err != nil || len(socket) != 1 {
		s.t.Fatalf("control socket: %q, %v", socket, err)
	}
	resp, err := unixsock.HTTPClient(socket[0], 5*time.Second).Get("http://launcher/state")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		Children []supervisor.Status `json:"children"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		s.t.Fatal(err)
	}
	children := map[string]supervisor.Status{}
	for _, c := range answer.Children {
		children[c.Name] = c
	}
	return children
}

// eventually waits until a child is as wanted.
func (s *stack) eventually(child string, want func(supervisor.Status) bool) supervisor.Status {
	s.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		st := s.state()[child]
		if want(st) {
			return st
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s: still %+v", child, st)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func (s *stack) pids() []int {
	s.t.Helper()
	var pids []int
	for name, c := range s.state() {
		if c.PID == 0 {
			s.t.Fatalf("%s does not run: %+v", name, c)
		}
		pids = append(pids, c.PID)
	}
	return pids
}

// nothingLeft checks for processes, and unless the launcher was killed for
// sockets and PID files too.
func (s *stack) nothingLeft(pids []int, files bool) {
	s.t.Helper()
	for _, pid := range pids {
		deadline := time.Now().Add(10 * time.Second)
		for syscall.Kill(pid, 0) == nil {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if bytes.Contains(b, []byte(") Z ")) {
				break // its parent does not reap it
			}
			if time.Now().After(deadline) {
				s.t.Fatalf("process %d is left", pid)
			}
			<-time.After(10 * time.Millisecond)
		}
	}
	if !files {
		return
	}
	for _, pattern := range []string{"state/*/run/*.sock", "state/*/*.pid"} {
		if left, _ := filepath.Glob(filepath.Join(s.dir, pattern)); len(left) > 0 {
			s.t.Errorf("left behind: %q", left)
		}
	}
}
