package supervisor

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// guarded is a guard of this process, with a binary that plays its watcher.
func guarded(t *testing.T) *Guard {
	t.Helper()
	t.Setenv("SUPERVISOR_TEST_ACT", "watch")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	g, err := NewGuard([]string{self}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) })
	return g
}

func (g *Guard) current() *os.Process {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.watcher
}

// sleeper starts a process and says when it has ended.
func sleeper(t *testing.T) (pid int, ended <-chan struct{}) {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
	})
	return cmd.Process.Pid, done
}

// within runs what must not block.
func within(t *testing.T, limit time.Duration, what string, run func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		run()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(limit):
		t.Fatalf("%s: not within %v", what, limit)
	}
}

// TestAStoppedWatcherIsReplaced: it reads nothing, and neither a start nor an end of
// a child waits for it for long. Nothing that it knew of is killed.
func TestAStoppedWatcherIsReplaced(t *testing.T) {
	g := guarded(t)
	pid, ended := sleeper(t)
	launch := func(f *family) {
		if err := g.launch(f, func() (int, error) { return pid, nil }); err != nil {
			t.Error(err)
		}
	}
	kept := &family{mark: "kept", known: map[identity]struct{}{}}
	launch(kept)
	first := g.current()
	_ = first.Signal(syscall.SIGSTOP)
	within(t, 30*time.Second, "families that come and go", func() {
		for range 4000 { // more than a pipe holds
			f := &family{mark: "0123456789abcdef0123456789abcdef", known: map[identity]struct{}{}}
			launch(f)
			g.remove(f)
		}
	})
	within(t, 30*time.Second, "another watcher", func() {
		for g.current() == first {
			time.Sleep(10 * time.Millisecond)
		}
	})
	select {
	case <-ended:
		t.Error("a family was killed while its launcher lives")
	default:
	}
	within(t, 30*time.Second, "Close", g.Close)
	within(t, 30*time.Second, "what is left is killed", func() { <-ended })
}

// TestAStoppedWatcherWorksAtTheEnd: it is woken for what it is there for.
func TestAStoppedWatcherWorksAtTheEnd(t *testing.T) {
	g := guarded(t)
	pid, ended := sleeper(t)
	if err := g.launch(&family{mark: "left", known: map[identity]struct{}{}}, func() (int, error) { return pid, nil }); err != nil {
		t.Fatal(err)
	}
	_ = g.current().Signal(syscall.SIGSTOP)
	within(t, 30*time.Second, "Close", g.Close)
	within(t, 30*time.Second, "what is left is killed", func() { <-ended })
}
