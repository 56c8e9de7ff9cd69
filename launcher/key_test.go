package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/internal/config"
	"tollgate/internal/supervisor"
)

// engineKeyPath is where the key of the stack's engine lies.
func (s *stack) engineKeyPath() string {
	s.t.Helper()
	found, err := filepath.Glob(filepath.Join(s.dir, "state/*/run", engineKeyFile))
	if err != nil || len(found) != 1 {
		s.t.Fatalf("key files: %q, %v", found, err)
	}
	return found[0]
}

// engineKey is the key itself.
func (s *stack) engineKey() string {
	s.t.Helper()
	b, err := os.ReadFile(s.engineKeyPath())
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func TestALocalEngineAnswersNobodyButTheGateway(t *testing.T) {
	s := newStack(t, "")
	s.start()
	s.ready()
	cfg, err := config.Load(filepath.Join(s.dir, "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	key := s.engineKey()
	for _, c := range []struct {
		path, key string
		want      int
	}{{"/v1/models", "", 401}, {"/v1/models", "guess", 401}, {"/v1/models", key, 200}, {"/sim/stats", "", 200}, {"/metrics", "", 200}} {
		status, _, err := get(t.Context(), http.DefaultClient, "http://"+engineAddress(cfg)+c.path, c.key)
		if err != nil || status != c.want {
			t.Errorf("%s with key %q: got %d, %v, want %d", c.path, c.key, status, err, c.want)
		}
	}
	if info, err := os.Stat(s.engineKeyPath()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the key file: %v, %v", info.Mode(), err)
	}
	s.keyStays(key)
	// After a crash of the engine it is still the one that Envoy has.
	before := s.state()[engineName]
	_ = syscall.Kill(before.PID, syscall.SIGKILL)
	s.eventually(engineName, func(st supervisor.Status) bool { return st.State == supervisor.Ready && st.PID != before.PID })
	if s.engineKey() != key {
		t.Error("another key after a crash of the engine")
	}
	s.signal(syscall.SIGTERM)
	if got := s.wait(20 * time.Second); got != 0 {
		t.Errorf("exit code: got %d, want 0", got)
	}
	if strings.Contains(s.stderr.String(), key) {
		t.Error("the key is in the launcher's log")
	}
	if found, _ := filepath.Glob(filepath.Join(s.dir, "state/*/run", engineKeyFile)); len(found) > 0 {
		t.Errorf("left behind: %q", found)
	}
}

// keyStays fails where a process knows more of the key than it must.
func (s *stack) keyStays(key string) {
	t := s.t
	t.Helper()
	for name, child := range s.state() {
		args, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(child.PID), "cmdline"))
		if err != nil || strings.Contains(string(args), key) {
			t.Errorf("%s: the key is among its arguments, or %v", name, err)
		}
		env, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(child.PID), "environ"))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(string(env), key); got != (name == engineName) {
			t.Errorf("%s: key in the environment: %v", name, got)
		}
		if got := strings.Contains(string(env), config.EngineKeyEnv+"="+s.engineKeyPath()+"\x00"); got != (name == tollgateName) {
			t.Errorf("%s: path of the key in the environment: %v", name, got)
		}
	}
}
