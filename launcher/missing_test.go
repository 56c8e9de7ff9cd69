package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/internal/config"
)

func TestAnEngineThatIsNotThereIsNamedWithTheReason(t *testing.T) {
	s := newStack(t, "")
	cfg := s.withoutEngine()
	state, err := filepath.Glob(filepath.Join(s.dir, "state/*"))
	if err != nil || len(state) != 1 {
		t.Fatal(state, err)
	}
	unhealthy := filepath.Join(state[0], "fake-unhealthy")
	if err := os.WriteFile(unhealthy, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	want := "waiting for vLLM at " + engineAddress(cfg) + ": connection refused"
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(s.stderr.String(), want); {
		if time.Now().After(deadline) {
			t.Fatalf("no %q in %s", want, s.stderr)
		}
		<-time.After(20 * time.Millisecond)
	}
	if err := os.Remove(unhealthy); err != nil {
		t.Fatal(err)
	}
	s.ready()
	s.signal(syscall.SIGTERM)
	if got := s.wait(20 * time.Second); got != 0 {
		t.Errorf("exit code: got %d, want 0", got)
	}
	s.logged(want, "child started", "child ready", `"@message":"ended"`)
}

// withoutEngine is the configuration after auto_start was taken back.
func (s *stack) withoutEngine() *config.Config {
	t := s.t
	t.Helper()
	path := filepath.Join(s.dir, "config.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), "auto_start: true", "auto_start: false", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// logged looks into the launcher's own log, which is JSON line by line.
func (s *stack) logged(words ...string) {
	t := s.t
	t.Helper()
	log, err := os.ReadFile(filepath.Join(s.dir, "logs", "launcher.log"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		if !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %s", line)
		}
	}
	for _, want := range words {
		if !strings.Contains(string(log), want) {
			t.Errorf("no %q in %s", want, log)
		}
	}
}

func TestWhatAnEngineWritesCannotSteerATerminal(t *testing.T) {
	s := newStack(t, scripted+"  restart: {backoff_min: 10ms, give_up_after: 2}\n")
	s.engineScript(`printf '\033]0;owned\007\033[2Jfake prompt\n'; exit 1`)
	s.start()
	if got := s.wait(20 * time.Second); got != 1 {
		t.Errorf("exit code: got %d, want 1", got)
	}
	if got := s.stderr.String(); !strings.Contains(got, "fake prompt") || strings.ContainsAny(got, "\x1b\x07") {
		t.Errorf("stderr: %q", got)
	}
	log, err := os.ReadFile(filepath.Join(s.dir, "logs", "vllm.log"))
	if err != nil || !strings.Contains(string(log), "\x1b[2J") {
		t.Errorf("the log does not hold its output as it is: %q, %v", log, err)
	}
	own, err := os.ReadFile(filepath.Join(s.dir, "logs", "launcher.log"))
	if err != nil || !strings.Contains(string(own), "is given up after 2 crashes") {
		t.Errorf("the launcher's log does not say why it ended: %s, %v", own, err)
	}
}
