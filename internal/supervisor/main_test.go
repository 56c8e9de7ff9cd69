package supervisor_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"tollgate/internal/supervisor"
)

// actAs makes the test binary play a child: its value is a line of [act].
const actAs = "SUPERVISOR_TEST_ACT"

func TestMain(m *testing.M) {
	if role := os.Getenv(actAs); role != "" {
		os.Exit(act(strings.Fields(role))) //nolint:forbidigo // it plays a process
	}
	goleak.VerifyTestMain(m)
}

// act is the fake child.
func act(role []string) int {
	switch role[0] {
	case "exit":
		code, _ := strconv.Atoi(role[1])
		say("last words of", role[1])
		return code
	case "segv":
		// The Go runtime would turn a SIGSEGV into an exit status.
		err := syscall.Exec("/bin/sh", []string{"sh", "-c", "kill -SEGV $$"}, nil)
		say(err)
		return 98
	case "serve": // until SIGTERM
		term := make(chan os.Signal, 1)
		signal.Notify(term, syscall.SIGTERM)
		say("serving", os.Getpid())
		<-term
		say("terminated")
		return 0
	case "deaf": // ignores SIGTERM, has a deaf grandchild
		signal.Ignore(syscall.SIGTERM)
		if len(role) == 1 {
			child := respawn("deaf alone")
			say("grandchild", child)
		}
		say("serving", os.Getpid())
		for {
			<-time.After(time.Hour)
		}
	case "orphan": // leaves a deaf grandchild behind
		say("grandchild", respawn("deaf alone"))
		return 0
	case "swallow": // the first two SIGTERM are lost, as while an engine starts
		term := make(chan os.Signal, 1)
		signal.Notify(term, syscall.SIGTERM)
		say("serving", os.Getpid())
		for range 3 {
			<-term
		}
		return 0
	case "watch":
		if err := supervisor.Watch(os.Stdin); err != nil {
			return 1
		}
		return 0
	case "away":
		return actAway(role[1])
	case "host":
		return actHost(role[1:])
	case "launcher": // a launcher with one child that has a grandchild
		return actLauncher()
	}
	return 99
}

func actLauncher() int {
	self, _ := os.Executable()
	_ = os.Setenv(actAs, "watch")
	guard, err := supervisor.NewGuard([]string{self}, hclog.NewNullLogger())
	if err != nil {
		return 1
	}
	c := supervisor.New(supervisor.Spec{
		Name: "child", Command: fake("deaf"), Output: os.Stdout, Log: hclog.NewNullLogger(), Guard: guard,
		StopTimeout: time.Minute,
	})
	_ = c.Run(context.Background())
	return 0
}

// say prints what a child prints.
func say(words ...any) { fmt.Fprintln(os.Stdout, words...) }

// respawn starts this binary in another role, in our group, and forgets it.
func respawn(role string) int {
	self, _ := os.Executable()
	cmd := exec.Command(self)
	cmd.Env = []string{actAs + "=" + role}
	if err := cmd.Start(); err != nil {
		return 0
	}
	return cmd.Process.Pid
}

// fake is the command of a role.
func fake(role string) func() (supervisor.Command, error) {
	return func() (supervisor.Command, error) {
		self, err := os.Executable()
		return supervisor.Command{Path: self, Env: []string{actAs + "=" + role}}, err
	}
}

// output collects what children print and lets a test wait for a line.
type output struct {
	mu    sync.Mutex
	text  strings.Builder
	lines chan string
}

func newOutput() *output { return &output{lines: make(chan string, 1000)} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for line := range strings.Lines(string(p)) {
		o.lines <- strings.TrimSpace(line)
	}
	return o.text.Write(p)
}

func (o *output) tail(int) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Split(strings.TrimSpace(o.text.String()), "\n")
}

// pid waits for a line "WORD PID".
func (o *output) pid(t *testing.T, word string) int {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case line := <-o.lines:
			if rest, ok := strings.CutPrefix(line, word+" "); ok {
				pid, err := strconv.Atoi(rest)
				if err != nil || pid == 0 {
					t.Fatalf("bad line %q", line)
				}
				return pid
			}
		case <-deadline:
			t.Fatalf("no line %q", word)
		}
	}
}

// alive says whether a process runs; a zombie does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	i := strings.LastIndexByte(string(b), ')')
	return !strings.HasPrefix(string(b[i+1:]), " Z")
}

func awaitGone(t *testing.T, pids ...int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for _, pid := range pids {
		for alive(pid) {
			if time.Now().After(deadline) {
				t.Fatalf("process %d is still alive", pid)
			}
			<-time.After(5 * time.Millisecond)
		}
	}
}

// run runs the child until the test's end and gives Run's result.
func run(t *testing.T, c *supervisor.Child) (stop context.CancelFunc, result <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	finished := make(chan struct{})
	go func() { defer close(finished); done <- c.Run(ctx) }()
	t.Cleanup(func() { cancel(); c.Kill(); <-finished })
	return cancel, done
}

func await(t *testing.T, result <-chan error) error {
	t.Helper()
	select {
	case err := <-result:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("Run does not return")
		return nil
	}
}

func TestALauncherThatIsKilledLeavesNothing(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = []string{actAs + "=launcher"}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // also when the test fails on its way
	o := newOutput()
	lines := bufio.NewScanner(pipe)
	for range 2 {
		if lines.Scan() {
			_, _ = io.WriteString(o, lines.Text()+"\n")
		}
	}
	grandchild, child := o.pid(t, "grandchild"), o.pid(t, "serving")
	if !alive(child) || !alive(grandchild) {
		t.Fatal("the child did not start")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	awaitGone(t, child, grandchild)
}

func TestThePIDFileKeepsASecondLauncherAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "vllm.pid")
	first, err := supervisor.AcquirePIDFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := supervisor.AcquirePIDFile(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("second launcher: got %v", err)
	}
	if err := first.Set(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	if pid, ok := supervisor.Running(path); pid != os.Getpid() || !ok {
		t.Errorf("running: got %d, %v", pid, ok)
	}
	if err := first.Clear(); err != nil {
		t.Fatal(err)
	}
	if _, ok := supervisor.Running(path); ok {
		t.Error("running after Clear")
	}
	if err := first.Release(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the file is left: %v", err)
	}
	again, err := supervisor.AcquirePIDFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_ = again.Release()
}

func TestAPIDFileIsTrustedOnlyWhenTheProcessIsOurs(t *testing.T) {
	stranger := exec.Command("sleep", "60")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stranger.Process.Kill(); _ = stranger.Wait() })
	path := filepath.Join(t.TempDir(), "vllm.pid")
	p, err := supervisor.AcquirePIDFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Set(stranger.Process.Pid); err != nil {
		t.Fatal(err)
	}
	ours, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_ = p.Release()

	// The process that a killed launcher left behind.
	if err := os.WriteFile(path, ours, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := supervisor.AcquirePIDFile(path); err == nil || !strings.Contains(err.Error(), "sleep 60") {
		t.Errorf("left-over process: got %v, want its command line", err)
	}
	// The same number, but of a process that started at another time, and files
	// that say nothing but a number.
	lines := strings.SplitN(string(ours), "\n", 3)
	for name, text := range map[string]string{
		"another start": lines[0] + "\n1" + lines[1] + "\n" + lines[2], "number only": lines[0] + "\n", "garbage": "x\n", "empty": "",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := supervisor.AcquirePIDFile(path)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_ = p.Release()
	}
	if err := unix.Kill(stranger.Process.Pid, 0); err != nil {
		t.Errorf("the stranger was touched: %v", err)
	}
}
