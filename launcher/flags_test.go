package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/config"
	"tollgate/internal/supervisor"
)

// aHelp is as vLLM's own, shortened.
const aHelp = `usage: vllm serve [model_tag] [options]

options:
  -h, --help            show this help message and exit
  --enable-prompt-tokens-details, --no-enable-prompt-tokens-details
                        If True, see --other-words in prose. (default: False)
  --max-model-len MAX_MODEL_LEN
  --tensor-parallel-size, -tp TENSOR_PARALLEL_SIZE
  --hf-overrides HF_OVERRIDES
  [--bracketed X]
`

func TestFlagsAreFoundInTheHelp(t *testing.T) {
	want := flagSet{
		"--bracketed", "--enable-prompt-tokens-details", "--help", "--hf-overrides", "--max-model-len",
		"--no-enable-prompt-tokens-details", "--other-words", "--tensor-parallel-size",
	}
	if diff := cmp.Diff(want, parseFlags([]byte(aHelp))); diff != "" {
		t.Errorf("flags (-want +got):\n%s", diff)
	}
}

func TestUnknownFlagsAreNamedWithWhatWasMeant(t *testing.T) {
	flags := parseFlags([]byte(aHelp))
	for name, c := range map[string]struct {
		args []string
		want []string // parts of the error; none: no error
	}{
		"known":                  {[]string{"--max-model-len", "4096", "-tp", "2"}, nil},
		"other spellings":        {[]string{"--max_model_len=4096", "--hf-overrides.a.b", "1", "--no-enable-prompt-tokens-details"}, nil},
		"the beginning of one":   {[]string{"--max-model", "1"}, nil},
		"values and what's last": {[]string{"--max-model-len", "-1", "--", "--whatever"}, nil},
		"a typing mistake":       {[]string{"--max-mdel-len", "1"}, []string{"no flag --max-mdel-len", "did you mean --max-model-len?"}},
		"with a secret value":    {[]string{"--max-mdel-len=sk-secret"}, []string{"no flag --max-mdel-len;"}},
		"like nothing":           {[]string{"--frobnicate"}, []string{"no flag --frobnicate", "--help=all"}},
		"two of them":            {[]string{"--frob", "--max-mdel-len"}, []string{"--frob", "--max-mdel-len"}},
	} {
		err := flags.check(c.args)
		if (err != nil) != (c.want != nil) {
			t.Errorf("%s: got %v", name, err)
			continue
		}
		for _, part := range c.want {
			if !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "sk-secret") {
				t.Errorf("%s: got %v, want %q in it", name, err, part)
			}
		}
	}
	if err := flagSet(nil).check([]string{"--anything"}); err != nil {
		t.Errorf("an engine whose flags are not known: %v", err)
	}
}

func TestTheQuestionForTheFlagsIsTheCommandWithoutItsArguments(t *testing.T) {
	for _, c := range []struct{ mode, conda, want string }{
		{"cli", "", "vllm serve --help=all"},
		{"python_api", "", "python3 -m vllm.entrypoints.openai.api_server --help=all"},
		{"cli", "serve", "conda run --no-capture-output -n serve vllm serve --help=all"},
		{"python_api", "/e/x", "conda run --no-capture-output -p /e/x python3 -m vllm.entrypoints.openai.api_server --help=all"},
	} {
		v := engineConfig(nil)
		v.LaunchMode, v.PythonLauncher.CondaEnv = c.mode, c.conda
		cmd, err := engineCommand(v, "", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		cmd = helpCommand(v, cmd)
		if got := cmd.Path + " " + strings.Join(cmd.Args, " "); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

// script puts a program called vllm before the simulator: it answers the
// question for its flags with help, counts how often it is asked, and serves as
// the simulator does. It returns the file that counts.
func (s *stack) script(help string) (asked string) {
	s.t.Helper()
	asked = filepath.Join(s.dir, "asked")
	text := fmt.Sprintf(`#!/bin/sh
if [ "$2" = --help=all ]; then
	echo x >>%s
	%s
	exit
fi
listen=$4:$6
model=$2
while [ "$1" != --enable-prompt-tokens-details ] && [ $# -gt 0 ]; do shift; done
exec %s simulate --listen "$listen" --model "$model" "$@"
`, asked, help, s.cmd.Path)
	if err := os.WriteFile(filepath.Join(s.dir, "bin", "vllm"), []byte(text), 0o700); err != nil {
		s.t.Fatal(err)
	}
	s.cmd.Env[0] += ":/usr/bin:/bin"
	return asked
}

const printHelp = "echo usage: vllm serve --enable-prompt-tokens-details --max-model-len --delay"

func TestAnUnknownFlagIsSaidBeforeAnythingStarts(t *testing.T) {
	s := newStack(t, "  launch_mode: cli\n  model: m\n  args: [--max-mdel-len, '4096']\n")
	s.script(printHelp)
	s.start()
	if got := s.wait(20 * time.Second); got != 2 {
		t.Errorf("exit code: got %d, want 2", got)
	}
	got := s.stderr.String()
	for _, want := range []string{"vllm.args: this vLLM has no flag --max-mdel-len", "did you mean --max-model-len?"} {
		if !strings.Contains(got, want) {
			t.Errorf("stderr: no %q in %s", want, got)
		}
	}
	if strings.Contains(got, "child started") {
		t.Errorf("something was started: %s", got)
	}
	s.nothingLeft(nil, true)
}

// again is the same launcher once more, in the same folder.
func (s *stack) again() *stack {
	s.t.Helper()
	next := newStack(s.t, "")
	next.dir, next.edge = s.dir, s.edge
	next.cmd.Dir, next.cmd.Env = s.dir, s.cmd.Env
	return next
}

func TestFlagsAreAskedForOnceForEveryVersion(t *testing.T) {
	s := newStack(t, "  launch_mode: cli\n  model: m\n  args: [--delay, 1ms]\n")
	asked := s.script(printHelp)
	count := func() int {
		b, _ := os.ReadFile(asked)
		return len(b) / 2
	}
	cycle := func(s *stack) {
		s.start()
		s.ready()
		// Metering's second belt is not in this help: it is left out.
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", s.state()["vllm"].PID))
		if got := string(line); !strings.Contains(got, "--enable-prompt-tokens-details") || strings.Contains(got, "--enable-force-include-usage") {
			t.Errorf("arguments: %q", got)
		}
		s.signal(syscall.SIGINT)
		if got := s.wait(20 * time.Second); got != 0 {
			t.Errorf("exit code: got %d, want 0", got)
		}
	}
	cycle(s)
	second := s.again()
	cycle(second)
	if got := count(); got != 1 {
		t.Errorf("asked %d times for the same version, want 1", got)
	}
	now := time.Now().Add(time.Second)
	if err := os.Chtimes(filepath.Join(s.dir, "bin", "vllm"), now, now); err != nil {
		t.Fatal(err)
	}
	cycle(second.again())
	if got := count(); got != 2 {
		t.Errorf("asked %d times after an upgrade, want 2", got)
	}
}

func TestAnEngineThatDoesNotListItsFlagsIsStartedUnchecked(t *testing.T) {
	s := newStack(t, "  launch_mode: cli\n  model: m\n")
	s.script("echo cannot do that >&2; exit 3")
	s.start()
	s.ready()
	if got := s.stderr.String(); !strings.Contains(got, "vllm.args are not checked") || !strings.Contains(got, "cannot do that") {
		t.Errorf("stderr: %s", got)
	}
	s.signal(syscall.SIGTERM)
	if got := s.wait(20 * time.Second); got != 0 {
		t.Errorf("exit code: got %d, want 0", got)
	}
}

func TestAStopWhileVLLMIsAskedLeavesNothing(t *testing.T) {
	s := newStack(t, "  launch_mode: cli\n  model: m\n")
	asked := s.script("exec sleep 300")
	s.start()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		if _, err := os.Stat(asked); err == nil {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatal("vLLM is not asked")
		case <-time.After(10 * time.Millisecond):
		}
	}
	s.signal(syscall.SIGINT)
	if got := s.wait(10 * time.Second); got != 0 {
		t.Errorf("exit code: got %d, want 0", got)
	}
	s.nothingLeft(nil, true)
}

func TestVLLMIsKnownByItsMetadataThroughLinksToo(t *testing.T) {
	dir := t.TempDir()
	for _, folder := range []string{"env/bin", "env/lib/python3.12/site-packages/vllm-0.32.0.dist-info", "links", "other/bin"} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	for _, program := range []string{"env/bin/vllm", "other/bin/vllm"} {
		if err := os.WriteFile(filepath.Join(dir, program), []byte("#!/bin/sh\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../env/bin/vllm", filepath.Join(dir, "links/vllm")); err != nil {
		t.Fatal(err)
	}
	h := &host{cfg: &config.Config{VLLM: *engineConfig(nil)}}
	for folder, want := range map[string]bool{"env/bin": true, "links": true, "other/bin": false} {
		key, got := h.installed(supervisor.Command{Env: []string{"PATH=" + filepath.Join(dir, folder)}})
		if got != want || key == "" {
			t.Errorf("%s: is vLLM: %v, want %v; key %q", folder, got, want, key)
		}
	}
	if key, _ := h.installed(supervisor.Command{Env: []string{"PATH=" + dir}}); key != "" {
		t.Errorf("a program that is not there has the key %q", key)
	}
}
