package crash_test

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// TestAnEngineThatCannotStart is tried again and given up, with its last words;
// until then /health and the metrics say that there is none.
func TestAnEngineThatCannotStart(t *testing.T) {
	t.Parallel()
	const words = "last words of the engine"
	for name, c := range map[string]struct {
		fault, model string
		says         []string
	}{
		"exit 0":        {"exit 0", "tiny", []string{words, "exit status 0"}},
		"exit 1":        {"exit 1", "tiny", []string{words, "exit status 1"}},
		"exit 137":      {"exit 137", "tiny", []string{words, "exit status 137"}},
		"SIGSEGV":       {"segv", "tiny", []string{words, "segmentation fault"}},
		"missing model": {"", "missing/model", []string{"OSError: missing/model is neither"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, c.model, "  restart: {backoff_min: 1s, backoff_max: 1s, give_up_after: 6}\n")
			h.fault(c.fault)
			h.Start()
			unavailable, down := false, false
			for running := true; running; {
				switch h.health() {
				case 200:
					t.Error("/health says 200 without an engine")
				case 503:
					unavailable = true
				}
				down = down || h.engineUp() == "0"
				select {
				case <-h.Done():
					running = false
				case <-time.After(50 * time.Millisecond):
				}
			}
			if got := h.Exit(time.Second); got != 1 {
				t.Errorf("exit code: got %d, want 1", got)
			}
			if !unavailable || !down {
				t.Errorf("in the meantime /health was 503: %v, tollgate_engine_up was 0: %v", unavailable, down)
			}
			said := h.Said()
			for _, want := range append(c.says, "given up after 6 crashes") {
				if !strings.Contains(said, want) {
					t.Errorf("the launcher does not say %q", want)
				}
			}
		})
	}
}

// TestWhatIsWrongBeforeTheStart ends the launcher before anything runs.
func TestWhatIsWrongBeforeTheStart(t *testing.T) {
	t.Run("an unknown flag", func(t *testing.T) {
		h := newHost(t, "tiny", "  args: [--max-model-lem, '9']\n")
		h.Start()
		if got := h.Exit(20 * time.Second); got != 2 {
			t.Errorf("exit code: got %d, want 2", got)
		}
		if said := h.Said(); !strings.Contains(said, "--max-model-lem") || !strings.Contains(said, "did you mean --max-model-len") || strings.Contains(said, "child started") {
			t.Error("the launcher does not say which flag, or has started something")
		}
	})
	t.Run("the engine's port is taken", func(t *testing.T) {
		h := newHost(t, "tiny", "")
		lis, err := net.Listen("tcp", h.engine)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = lis.Close() }()
		h.Start()
		if got := h.Exit(20 * time.Second); got != 1 {
			t.Errorf("exit code: got %d, want 1", got)
		}
		if said := h.Said(); !strings.Contains(said, "vllm.port "+h.engine+" cannot be listened on") || strings.Contains(said, "child started") {
			t.Error("the launcher does not say which port, or has started something")
		}
	})
}

// TestAPIDFileThatNamesAStranger is what a power cut leaves: the number is
// somebody else's by now.
func TestAPIDFileThatNamesAStranger(t *testing.T) {
	t.Parallel()
	stranger := exec.Command("sleep", "600")
	stranger.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = stranger.Wait() }()
	defer func() { _ = stranger.Process.Kill(); <-ended }()
	h := newHost(t, "tiny", "")
	h.write("state/vllm.pid", fmt.Sprintf("%d\n12345 another-boot\nvllm serve tiny\n", stranger.Process.Pid), 0o600)
	h.up()
	if got := h.stop(); got != 0 {
		t.Errorf("exit code: got %d, want 0", got)
	}
	select {
	case <-ended:
		t.Error("the stranger was killed")
	default:
	}
}

func TestAnEngineThatIgnoresSIGTERM(t *testing.T) {
	t.Parallel()
	h := newHost(t, "tiny", "  shutdown_timeout: 1s\n")
	h.fault("deaf")
	h.up()
	if got := h.stop(); got != 0 {
		t.Errorf("exit code: got %d, want 0", got)
	}
	if !strings.Contains(h.Said(), "does not stop, killing its group") {
		t.Error("the launcher does not say that it had to kill")
	}
}

func TestALauncherThatIsKilledTakesTheEngineWithIt(t *testing.T) {
	t.Parallel()
	h := newHost(t, "tiny", "")
	h.up()
	if n := len(h.Processes()); n < 6 { // itself, its watcher, tollgate, Envoy, and two of the engine
		t.Fatalf("%d processes run, want 6: %v", n, h.Processes())
	}
	h.Signal(syscall.SIGKILL)
	h.Exit(5 * time.Second)
	h.up()
	if up := h.engineUp(); up != "1" {
		t.Errorf("tollgate_engine_up of the next one: got %q, want 1", up)
	}
	h.stop()
}

// TestAHungEngineIsReplaced stops one in its tracks: it accepts connections and
// answers none.
func TestAHungEngineIsReplaced(t *testing.T) {
	t.Parallel()
	h := newHost(t, "tiny", "  stall_timeout: 2s\n")
	h.up()
	before := h.Child("vllm")
	// The whole group: main and core.
	if err := syscall.Kill(-before.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stack.Eventually(t, 60*time.Second, "another engine", func() bool {
		now := h.Child("vllm")
		return now.PID != before.PID && now.State == "ready"
	})
	if got := h.Child("vllm").LastExit; got == nil || !strings.Contains(got.Reason, "hung") {
		t.Errorf("why it was replaced: got %+v", got)
	}
	h.stop()
}
