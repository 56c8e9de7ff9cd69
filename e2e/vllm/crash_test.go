//go:build vllm

package vllm_test

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
	"tollgate/internal/supervisor"
)

// TestCrashesInMidStream kills the engine in every way while it answers. It runs
// with the flags that the launcher adds by itself.
func TestCrashesInMidStream(t *testing.T) {
	h := start(t, section(t, unchanged, "  restart: {backoff_min: 100ms, backoff_max: 500ms, give_up_after: 20}\n"))
	// vLLM is forced to say usage in every chunk; nobody sees it who did not ask.
	plain := h.Post(chat, `{"model":"tiny","stream":true,"max_tokens":9,"temperature":0,`+hello+`}`)
	if strings.Contains(string(plain.Bytes), "usage") || !strings.Contains(string(plain.Bytes), "[DONE]") {
		t.Errorf("a stream without usage:\n%s", plain.Bytes)
	}
	if rec := h.Settled(plain.RequestID()); rec.Counts.Completion != 9 || rec.Quality != ledger.Exact {
		t.Errorf("its record: %d tokens, %s", rec.Counts.Completion, rec.Quality)
	}
	for _, c := range []struct {
		name string
		sig  syscall.Signal
		core bool // kill the engine's core and not the main process
		exit func(*supervisor.Exit) bool
	}{
		{"SIGKILL", syscall.SIGKILL, false, func(e *supervisor.Exit) bool { return e.Signal == "killed" }},
		{"SIGSEGV", syscall.SIGSEGV, false, func(e *supervisor.Exit) bool { return e.Signal == "segmentation fault" }},
		{"SIGKILL of the core, exit 0", syscall.SIGKILL, true, func(e *supervisor.Exit) bool { return e.Code == 0 && e.Signal == "" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := h.in(t)
			pid := h.vllm().PID
			if c.core {
				pid = h.core()
			}
			h.midStream(c.name, func() { _ = syscall.Kill(pid, c.sig) }, c.exit)
		})
	}
}

// TestStartsThatFail are misconfigurations: the message is the launcher's, its
// status says whose fault it is, and nothing is left.
func TestStartsThatFail(t *testing.T) {
	for name, c := range map[string]struct {
		from, to string
		code     int
		want     []string
	}{
		"an unknown flag": {`"--enforce-eager"`, `"--enforce-eagre"`, 2, []string{"vllm.args: this vLLM has no flag --enforce-eagre", "did you mean --enforce-eager?"}},
		"a missing model": {`/models/tiny/model"`, `/models/tiny/none"`, 1, []string{"vllm cannot run (exit status 1)", "its last lines:", "models/tiny/none"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := launch(t, section(t, strings.NewReplacer(c.from, c.to), "  restart: {give_up_after: 1}\n"))
			code, said := runToEnd(t, h.launcher.Cmd)
			if code != c.code {
				t.Errorf("exit code: got %d, want %d", code, c.code)
			}
			for _, want := range c.want {
				if !strings.Contains(said, want) {
					t.Errorf("no %q in what the launcher said:\n%s", want, said)
				}
			}
			if left := h.launcher.Processes(); len(left) > 0 {
				t.Errorf("processes are left: %v", left)
			}
		})
	}
}

// TestAKilledLauncherLeavesNoEngine: SIGTERM is swallowed while the core starts,
// and the workers of a killed main process live on; neither is left.
func TestAKilledLauncherLeavesNoEngine(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"SIGKILL": syscall.SIGKILL, "SIGTERM": syscall.SIGTERM} {
		t.Run(name+" while the core starts", func(t *testing.T) {
			h := launch(t, section(t, unchanged, "  shutdown_timeout: 5s\n"))
			if err := h.launcher.Cmd.Start(); err != nil {
				t.Fatal(err)
			}
			stack.Eventually(t, readyWithin, "the engine's core to be started", func() bool {
				for _, line := range h.launcher.Processes() {
					if strings.HasPrefix(line, "VLLM::EngineCore") {
						return true
					}
				}
				return false
			})
			_ = h.launcher.Cmd.Process.Signal(sig)
			_ = h.launcher.Cmd.Wait()
			if got := h.launcher.Cmd.ProcessState.ExitCode(); sig == syscall.SIGTERM && got != 0 {
				t.Errorf("exit code: got %d, want 0", got)
			}
			stack.Eventually(t, 10*time.Second, "every process to be gone", func() bool { return len(h.launcher.Processes()) == 0 })
		})
	}
}

// runToEnd runs a command that ends by itself.
func runToEnd(t *testing.T, cmd *exec.Cmd) (code int, said string) {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "said")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	cmd.Stderr = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(readyWithin, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer kill.Stop()
	_ = cmd.Wait()
	b, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("exit %s", strconv.Itoa(cmd.ProcessState.ExitCode()))
	return cmd.ProcessState.ExitCode(), string(b)
}
