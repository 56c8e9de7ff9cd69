package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// environment makes a virtual environment with a vllm in it, which says where it
// looks for programs and becomes the simulator.
func (s *stack) environment() (python string) {
	s.t.Helper()
	bin := filepath.Join(s.dir, "venv", "bin")
	if err := os.MkdirAll(bin, 0o750); err != nil {
		s.t.Fatal(err)
	}
	script := fmt.Sprintf(`#!/bin/sh
[ "$2" = --help=all ] && echo usage: vllm serve --model && exit
echo "PATH=$PATH VIRTUAL_ENV=$VIRTUAL_ENV"
exec %s simulate --listen "$4:$6" --model "$2"
`, s.cmd.Path)
	for path, text := range map[string]string{filepath.Join(bin, "vllm"): script, filepath.Join(s.dir, "venv", "pyvenv.cfg"): "home = /usr/bin\n"} {
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			s.t.Fatal(err)
		}
	}
	return filepath.Join(bin, "python")
}

func TestVLLMOfAVirtualEnvironmentIsFoundByItsPython(t *testing.T) {
	s := newStack(t, scripted+"  python_launcher: {python: venv/bin/python}\n")
	python := s.environment()
	s.start()
	s.ready()
	s.signal(syscall.SIGTERM)
	if got := s.wait(20 * time.Second); got != 0 {
		t.Errorf("exit code: got %d, want 0", got)
	}
	said, err := os.ReadFile(filepath.Join(s.dir, "logs", "vllm.log"))
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Dir(python)
	for _, want := range []string{"PATH=" + bin + ":", "VIRTUAL_ENV=" + filepath.Dir(bin)} {
		if !strings.Contains(string(said), want) {
			t.Errorf("no %q in %s", want, said)
		}
	}
}

func TestAPythonWithoutVLLMIsSaid(t *testing.T) {
	s := newStack(t, scripted+"  python_launcher: {python: nowhere/bin/python}\n")
	s.start()
	if got := s.wait(20 * time.Second); got != 2 {
		t.Errorf("exit code: got %d, want 2", got)
	}
	for _, want := range []string{"nowhere/bin/vllm", "vllm.python_launcher.python"} {
		if !strings.Contains(s.stderr.String(), want) {
			t.Errorf("no %q in %s", want, s.stderr)
		}
	}
}

func TestWhatIsNoEnvoyIsSaidBeforeAnythingStarts(t *testing.T) {
	for name, c := range map[string]struct{ script, want string }{
		"another program": {"exit 0", "is not Envoy"},
		"an old one":      {"echo 'envoy  version: 0123abc/1.28.0/Clean/RELEASE/BoringSSL'", "is Envoy 1.28.0, which is too old"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStack(t, "")
			path := filepath.Join(s.dir, "bin", "other")
			if err := os.WriteFile(path, []byte("#!/bin/sh\n"+c.script+"\n"), 0o700); err != nil {
				t.Fatal(err)
			}
			s.cmd.Env[1] = "ENVOY_BIN=" + path
			s.start()
			if got := s.wait(20 * time.Second); got != 2 {
				t.Errorf("exit code: got %d, want 2", got)
			}
			if got := s.stderr.String(); !strings.Contains(got, path+": "+c.want) || strings.Contains(got, "child started") {
				t.Errorf("stderr: %s", got)
			}
		})
	}
}

func TestTheSimulatorOffersNoConfiguration(t *testing.T) {
	var out, errOut bytes.Buffer
	p := process{getenv: func(string) string { return "" }, stdin: strings.NewReader(""), stdout: &out, stderr: &errOut}
	if code := run([]string{"simulate", "--help"}, p); code != 0 || strings.Contains(out.String(), "--config") {
		t.Errorf("exit code %d, help:\n%s", code, out.String())
	}
	if code := run([]string{"simulate", "--config", "x.yaml"}, p); code != 2 || !strings.Contains(errOut.String(), "launcher simulate --help") {
		t.Errorf("exit code %d: %s", code, errOut.String())
	}
}
