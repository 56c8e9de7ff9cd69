package supervisor_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"tollgate/internal/supervisor"
)

var quick = supervisor.Restart{BackoffMin: time.Millisecond, BackoffMax: time.Millisecond, GiveUpAfter: 3, Within: time.Minute}

func TestEveryUnaskedExitIsACrash(t *testing.T) {
	for role, want := range map[string]supervisor.Exit{
		"exit 0": {Code: 0}, "exit 1": {Code: 1}, "exit 137": {Code: 137}, "segv": {Code: -1, Signal: "segmentation fault"},
	} {
		t.Run(role, func(t *testing.T) {
			o := newOutput()
			starts := 0
			c := supervisor.New(supervisor.Spec{
				Name: "engine", Output: o, Tail: o.tail, Log: hclog.NewNullLogger(), Restart: quick,
				Command: func() (supervisor.Command, error) { starts++; return fake(role)() },
			})
			_, result := run(t, c)
			err := await(t, result)
			var gaveUp *supervisor.GaveUpError
			if !errors.As(err, &gaveUp) {
				t.Fatalf("got %v, want *GaveUpError", err)
			}
			got := gaveUp.Exit
			if got.Cause != supervisor.Crash {
				t.Errorf("cause: got %q", got.Cause)
			}
			got.At, got.Cause = time.Time{}, ""
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("exit (-want +got):\n%s", diff)
			}
			if starts != 3 {
				t.Errorf("starts: got %d, want 3", starts)
			}
			if role != "segv" && !strings.Contains(err.Error(), "last words") {
				t.Errorf("the error does not show the log: %v", err)
			}
			if got := c.Status(); got.State != supervisor.Failed || got.Restarts != 2 || got.PID != 0 {
				t.Errorf("status: got %+v", got)
			}
			if err := c.WaitReady(t.Context()); !errors.As(err, &gaveUp) {
				t.Errorf("WaitReady: got %v", err)
			}
		})
	}
}

func TestStopAsksTheMainProcessFirst(t *testing.T) {
	o := newOutput()
	path := filepath.Join(t.TempDir(), "a.pid")
	pidFile, err := supervisor.AcquirePIDFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c := supervisor.New(supervisor.Spec{
		Name: "child", Command: fake("serve"), Output: o, Log: hclog.NewNullLogger(), StopTimeout: time.Minute, PID: pidFile,
	})
	stop, result := run(t, c)
	pid := o.pid(t, "serving")
	if err := c.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, ok := supervisor.Running(path); got != pid || !ok {
		t.Errorf("PID file: got %d, %v, want %d", got, ok, pid)
	}
	if got, err := syscall.Getpgid(pid); got != pid || err != nil {
		t.Errorf("process group: got %d, %v, want its own", got, err)
	}
	stop()
	if err := await(t, result); err != nil {
		t.Fatal(err)
	}
	if got := c.Status(); got.State != supervisor.Stopped || got.LastExit.Code != 0 {
		t.Errorf("status: got %+v", got)
	}
	if !strings.Contains(strings.Join(o.tail(0), "\n"), "terminated") {
		t.Error("the child's last output is lost")
	}
	if _, ok := supervisor.Running(path); ok {
		t.Error("the PID file still names it")
	}
	if err := pidFile.Release(); err != nil {
		t.Error(err)
	}
	if err := c.WaitReady(t.Context()); !errors.Is(err, supervisor.ErrEnded) {
		t.Errorf("WaitReady after the end: got %v", err)
	}
}

func TestAGroupThatIgnoresSIGTERMIsKilled(t *testing.T) {
	o := newOutput()
	c := supervisor.New(supervisor.Spec{
		Name: "child", Command: fake("deaf"), Output: o, Log: hclog.NewNullLogger(), StopTimeout: 300 * time.Millisecond,
	})
	stop, result := run(t, c)
	grandchild, pid := o.pid(t, "grandchild"), o.pid(t, "serving")
	stop()
	if err := await(t, result); err != nil {
		t.Fatal(err)
	}
	if alive(pid) || alive(grandchild) {
		t.Errorf("alive after Run: child %v, grandchild %v", alive(pid), alive(grandchild))
	}
	if got := c.Status().LastExit.Signal; got != "killed" {
		t.Errorf("signal: got %q, want killed", got)
	}
}

func TestOrphansOfACrashAreKilledBeforeTheRestart(t *testing.T) {
	o := newOutput()
	started := make(chan int, 10)
	var c *supervisor.Child
	c = supervisor.New(supervisor.Spec{
		Name: "child", Output: o, Log: hclog.NewNullLogger(), Restart: quick,
		Command: func() (supervisor.Command, error) {
			if st := c.Status(); st.Restarts > 0 {
				pid := o.pid(t, "grandchild")
				if alive(pid) {
					t.Errorf("grandchild %d of the last one lives at the next start", pid)
				}
				started <- pid
			}
			return fake("orphan")()
		},
	})
	_, result := run(t, c)
	_ = await(t, result)
	if len(started) != 2 {
		t.Errorf("restarts: got %d, want 2", len(started))
	}
	awaitGone(t, o.pid(t, "grandchild"))
}

func TestSIGTERMIsRepeatedWhileItStarts(t *testing.T) {
	o := newOutput()
	c := supervisor.New(supervisor.Spec{
		Name: "child", Command: fake("swallow"), Output: o, Log: hclog.NewNullLogger(), StopTimeout: time.Minute,
		Ready: func(context.Context) error { return errors.New("not yet") },
	})
	stop, result := run(t, c)
	o.pid(t, "serving")
	stop()
	if err := await(t, result); err != nil {
		t.Fatal(err)
	}
	if got := c.Status().LastExit; got.Code != 0 || got.Signal != "" {
		t.Errorf("exit: got %v, want 0 after the third SIGTERM", got)
	}
}

func TestKillEndsItAtOnce(t *testing.T) {
	o := newOutput()
	c := supervisor.New(supervisor.Spec{
		Name: "child", Command: fake("deaf"), Output: o, Log: hclog.NewNullLogger(), StopTimeout: time.Hour,
	})
	stop, result := run(t, c)
	grandchild, pid := o.pid(t, "grandchild"), o.pid(t, "serving")
	stop() // the first Ctrl-C
	c.Kill()
	if err := await(t, result); err != nil {
		t.Fatal(err)
	}
	awaitGone(t, pid, grandchild)
}

func TestARestartThatWasAskedForIsNoCrash(t *testing.T) {
	o := newOutput()
	c := supervisor.New(supervisor.Spec{
		Name: "child", Command: fake("serve"), Output: o, Log: hclog.NewNullLogger(), StopTimeout: time.Minute,
		Restart: supervisor.Restart{GiveUpAfter: 1, Within: time.Hour},
	})
	_, _ = run(t, c)
	first := o.pid(t, "serving")
	c.Restart()
	second := o.pid(t, "serving")
	if first == second || alive(first) {
		t.Errorf("first %d (alive %v), second %d", first, alive(first), second)
	}
	if got := c.Status(); got.Restarts != 0 || got.By != (supervisor.Restarts{Asked: 1}) {
		t.Errorf("restarts: got %d unasked, %+v", got.Restarts, got.By)
	}
}

func TestWhatCannotBeExecutedIsGivenUpAtOnce(t *testing.T) {
	notExecutable := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(notExecutable, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/nowhere/vllm", "no-such-program", notExecutable} {
		c := supervisor.New(supervisor.Spec{
			Name: "engine", Output: newOutput(), Log: hclog.NewNullLogger(),
			Restart: supervisor.Restart{BackoffMin: time.Hour, BackoffMax: time.Hour},
			Command: func() (supervisor.Command, error) { return supervisor.Command{Path: path}, nil },
		})
		_, result := run(t, c)
		err := await(t, result)
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v", path, err)
		}
	}
}
