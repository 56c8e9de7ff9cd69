package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/internal/supervisor"
)

// upgrade runs the command beside the stack, with a program in a folder of that name.
func (s *stack) upgrade(folder string) (code int, said string) {
	s.t.Helper()
	args := []string{"upgrade", "--config", "config.yaml"}
	if folder != "" {
		program := filepath.Join(s.dir, folder, "tollgate")
		if folder != "nowhere" {
			if err := errors.Join(os.MkdirAll(filepath.Dir(program), 0o700), os.Symlink(s.cmd.Path, program)); err != nil {
				s.t.Fatal(err)
			}
		}
		args = append(args, program)
	}
	cmd := exec.Command(s.cmd.Path, args...)
	cmd.Dir, cmd.Env = s.dir, s.cmd.Env
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

func TestTollgateIsUpgradedAndTheRestStays(t *testing.T) {
	t.Parallel()
	s := newStack(t, "")
	s.start()
	s.ready()
	for _, folder := range []string{"newer", ""} {
		before, envoy := s.state()["tollgate"].PID, s.state()["envoy"].PID
		code, said := s.upgrade(folder)
		if code != 0 || !strings.Contains(said, "it meters by ext_proc, so it waits for live streams first") || !strings.Contains(said, "upgraded from tollgate of ") {
			t.Errorf("%q: exit code %d:\n%s", folder, code, said)
		}
		if got := s.state()["tollgate"]; got.State != supervisor.Ready || got.PID == before {
			t.Errorf("%q: tollgate %+v, before %d", folder, got, before)
		}
		if got := s.state()["envoy"]; got.PID != envoy {
			t.Errorf("%q: Envoy was started again", folder)
		}
	}
	s.signal(syscall.SIGTERM)
	if got := s.wait(20 * time.Second); got != 0 {
		t.Errorf("exit code %d", got)
	}
}

func TestAProgramThatDoesNotWorkTakesNobodysPlace(t *testing.T) {
	t.Parallel()
	s := newStack(t, "")
	if code, said := s.upgrade(""); code != exitFailed || !strings.Contains(said, "no launcher runs this configuration") {
		t.Errorf("without a launcher: exit code %d:\n%s", code, said)
	}
	s.start()
	s.ready()
	before := s.state()["tollgate"].PID
	for folder, want := range map[string]string{"nowhere": "no such file", "picky": "this version has no such setting"} {
		if code, said := s.upgrade(folder); code != exitFailed || !strings.Contains(said, want) || !strings.Contains(said, "was not upgraded") {
			t.Errorf("%s: exit code %d:\n%s", folder, code, said)
		}
		if got := s.state()["tollgate"]; got.State != supervisor.Ready || got.PID != before {
			t.Errorf("%s: tollgate %+v, before %d", folder, got, before)
		}
	}
	if code, said := s.upgrade("broken"); code != exitFailed || !strings.Contains(said, "the old one is started again") {
		t.Errorf("broken: exit code %d:\n%s", code, said)
	}
	s.eventually("tollgate", func(st supervisor.Status) bool { return st.State == supervisor.Ready })
	s.signal(syscall.SIGTERM)
	if got := s.wait(20 * time.Second); got != 0 {
		t.Errorf("exit code %d", got)
	}
}
