package supervisor_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"tollgate/internal/supervisor"
)

// away starts a deaf process in a session of its own. How it gets lost says how
// else it hides: "cleared" has no environment, as one that has written a title
// over it; "orphan" has lost its parent too.
func away(how string) {
	self, _ := os.Executable()
	line := "trap '' TERM HUP; exec env " + actAs + "='deaf alone' " + self
	args := []string{"sh", "-c", line}
	if how != "plain" {
		args = append([]string{"env", "-i"}, args...)
	}
	args = append([]string{"setsid"}, args...)
	if how == "orphan" {
		args = []string{"sh", "-c", `"$@" & exit 0`, "sh", "setsid", "env", "-i", "sh", "-c", line}
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout = os.Stdout
	if err := cmd.Start(); err != nil {
		say("cannot start:", err)
		return
	}
	if how == "orphan" {
		_ = cmd.Wait()
	}
}

// actAway is an engine whose workers have sessions of their own.
func actAway(how string) int {
	away(how)
	<-time.After(300 * time.Millisecond) // as long as it takes to be ready
	say("leader", os.Getpid())
	for {
		<-time.After(time.Hour)
	}
}

// actHost is a launcher that runs one child, says how it stands with it, and is
// told what to do on its standard input.
func actHost(role []string) int {
	how := role[0]
	if len(role) > 1 {
		supervisor.WithoutCgroups()
	}
	self, _ := os.Executable()
	_ = os.Setenv(actAs, "watch")
	guard, err := supervisor.NewGuard([]string{self}, hclog.NewNullLogger())
	if err != nil {
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	starts, there := 0, make(chan struct{}, 10)
	c := supervisor.New(supervisor.Spec{
		Name: "child", Output: relay(there), Log: hclog.NewNullLogger(), Guard: guard, StopTimeout: time.Second, Restart: quick,
		Command: func() (supervisor.Command, error) {
			starts++
			say("start", starts)
			cmd, err := fake("away " + how)()
			cmd.Env, cmd.Forks = append(cmd.Env, "PATH="+os.Getenv("PATH")), true
			return cmd, err
		},
		Ready: func(ctx context.Context) error {
			select {
			case <-there:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
		OnChange: func(st supervisor.Status) {
			if st.State == supervisor.Ready {
				say("ready", starts)
			}
		},
	})
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	for commands := bufio.NewScanner(os.Stdin); commands.Scan(); {
		switch commands.Text() {
		case "stop":
			cancel()
			<-done
			say("stopped", starts)
		case "close":
			guard.Close()
			return 0
		}
	}
	return 0
}

// relay passes output on and tells when both processes have spoken.
type relay chan struct{}

func (r relay) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("leader ")) {
		r <- struct{}{}
	}
	return os.Stdout.Write(p)
}

// played is a launcher of [actHost] seen from outside.
type played struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin interface{ Write([]byte) (int, error) }
	out   *output
}

func playHost(t *testing.T, how string) *played {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &played{t: t, cmd: exec.Command(self), out: newOutput()}
	p.cmd.Env = []string{actAs + "=host " + how, "PATH=" + os.Getenv("PATH")}
	p.cmd.Stdout = p.out
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	p.cmd.WaitDelay = 10 * time.Second // the remaining processes hold the output open
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	return p
}

func (p *played) tell(word string) {
	p.t.Helper()
	if _, err := p.stdin.Write([]byte(word + "\n")); err != nil {
		p.t.Fatal(err)
	}
}

// family is the leader and its worker, both alive.
func (p *played) family() (leader, worker int) {
	p.t.Helper()
	worker, leader = p.out.pid(p.t, "serving"), p.out.pid(p.t, "leader")
	p.out.pid(p.t, "ready")
	if !alive(leader) || !alive(worker) {
		p.t.Fatal("they did not start")
	}
	return leader, worker
}

// hidings are how a worker gets lost, each also on a host without cgroups.
var hidings = []string{"plain", "cleared", "orphan", "plain bare", "cleared bare", "orphan bare"}

func TestAWorkerInASessionOfItsOwnDiesWithItsEngine(t *testing.T) {
	for _, how := range hidings {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			p := playHost(t, how)
			leader, worker := p.family()
			_ = syscall.Kill(leader, syscall.SIGKILL)
			p.out.pid(t, "start")
			if alive(worker) {
				t.Error("the worker of the last life lives at the next start")
			}
			leader, second := p.family()
			p.tell("stop")
			p.out.pid(t, "stopped")
			awaitGone(t, leader, worker, second)
			p.tell("close")
			if err := p.cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNoWorkerOutlivesALauncherThatIsKilled(t *testing.T) {
	for _, how := range hidings {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			p := playHost(t, how)
			leader, worker := p.family()
			_ = p.cmd.Process.Kill()
			awaitGone(t, leader, worker)
		})
	}
}

func TestOutputLeavesNothingBehind(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	o := newOutput()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Second, cancel)
	_, err = supervisor.Output(ctx, supervisor.Command{
		Path: self, Env: []string{actAs + "=away plain", "PATH=" + os.Getenv("PATH")}, Stderr: &out,
	}, o, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	awaitGone(t, o.pid(t, "serving"))
	exit, err := supervisor.Output(t.Context(), supervisor.Command{
		Path: "/bin/sh", Args: []string{"-c", "echo out; echo err >&2; exit 3"}, Stderr: &out,
	}, o, nil)
	if err != nil || exit.Code != 3 || strings.TrimSpace(out.String()) != "err" {
		t.Errorf("got %+v, %v, %q", exit, err, out.String())
	}
}
