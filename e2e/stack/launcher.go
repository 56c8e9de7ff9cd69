package stack

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/internal/config"
	"tollgate/internal/supervisor"
	"tollgate/internal/unixsock"
)

// Launcher is a `launcher up` in a folder that holds its config.yaml, with all that
// it starts. The test's end kills it.
type Launcher struct {
	tb   testing.TB
	Dir  string
	URL  string // of the edge, as the ready line says it
	Cmd  *exec.Cmd
	done chan struct{}
	at   time.Time // of the start
}

// NewLauncher starts nothing yet. Cmd may be changed before [Launcher.Start].
func NewLauncher(tb testing.TB, dir, url string) *Launcher {
	tb.Helper()
	l := &Launcher{tb: tb, Dir: dir, URL: url}
	l.prepare()
	return l
}

func (l *Launcher) prepare() {
	Binary(l.tb, "tollgate")                                                        // beside the launcher
	l.Cmd = exec.Command(Binary(l.tb, "launcher"), "up", "--config", "config.yaml") //nolint:gosec // built for the test
	l.Cmd.Dir = l.Dir
	l.Cmd.Env = append(os.Environ(), "ENVOY_BIN="+EnvoyBinary(l.tb))
	l.Cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// Start runs the launcher and waits for nothing. It may be called again after the end.
func (l *Launcher) Start() {
	l.tb.Helper()
	if l.Cmd.Process != nil {
		l.prepare()
	}
	printed, err := os.Create(filepath.Join(l.Dir, "launcher.out"))
	if err != nil {
		l.tb.Fatal(err)
	}
	defer func() { _ = printed.Close() }()
	said, err := os.OpenFile(filepath.Join(l.Dir, "launcher.err"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		l.tb.Fatal(err)
	}
	defer func() { _ = said.Close() }()
	l.Cmd.Stdout, l.Cmd.Stderr = printed, said
	l.at = time.Now()
	if err := l.Cmd.Start(); err != nil {
		l.tb.Fatal(err)
	}
	cmd, done := l.Cmd, make(chan struct{})
	l.done = done
	go func() {
		defer close(done)
		_ = cmd.Wait()
	}()
	l.tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		if l.tb.Failed() {
			said := l.Said()
			l.tb.Logf("the launcher said:\n%s", said[max(0, len(said)-6000):])
		}
	})
}

// Ready waits for the ready line and the example below it, and returns how long that
// took from the start.
func (l *Launcher) Ready(limit time.Duration) time.Duration {
	l.tb.Helper()
	Eventually(l.tb, limit, "the launcher's ready line", func() bool {
		printed := l.Printed()
		if !strings.Contains(printed, "curl ") && l.Ended() {
			l.tb.Fatalf("the launcher has ended:\n%s", printed)
		}
		return strings.HasPrefix(printed, "ready "+l.URL+"\n") && strings.Contains(printed, "curl ")
	})
	return time.Since(l.at)
}

// Printed is the standard output since the last start.
func (l *Launcher) Printed() string { return l.read("launcher.out") }

// Said is the standard error of all starts.
func (l *Launcher) Said() string { return l.read("launcher.err") }

func (l *Launcher) read(name string) string {
	b, _ := os.ReadFile(filepath.Join(l.Dir, name)) //nolint:gosec // a file of the test's folder
	return string(b)
}

// Signal sends a signal to the launcher alone.
func (l *Launcher) Signal(sig syscall.Signal) {
	l.tb.Helper()
	if err := l.Cmd.Process.Signal(sig); err != nil {
		l.tb.Errorf("signal the launcher: %v", err)
	}
}

// Done is closed when the launcher has ended.
func (l *Launcher) Done() <-chan struct{} { return l.done }

// Ended tells that the launcher has ended.
func (l *Launcher) Ended() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// Exit waits for the launcher's end and for the end of all that it started, and
// returns its exit code.
func (l *Launcher) Exit(limit time.Duration) int {
	l.tb.Helper()
	select {
	case <-l.done:
	case <-time.After(limit):
		l.tb.Fatalf("the launcher still runs after %v", limit)
	}
	Eventually(l.tb, 10*time.Second, "every process to be gone", func() bool { return len(l.Processes()) == 0 })
	return l.Cmd.ProcessState.ExitCode()
}

// Processes are those that work in the folder, by their command lines.
func (l *Launcher) Processes() map[int]string {
	found := map[int]string{}
	folders, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, f := range folders {
		cwd, err := os.Readlink(f)
		if err != nil || !strings.HasPrefix(cwd+"/", l.Dir+"/") {
			continue
		}
		line, _ := os.ReadFile(filepath.Join(filepath.Dir(f), "cmdline"))
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		found[pid] = strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))
	}
	return found
}

// Child is the state of a child by the control API, the zero value where the
// launcher does not answer or has no such child. The state folder is Dir/state.
func (l *Launcher) Child(name string) supervisor.Status {
	l.tb.Helper()
	client := unixsock.HTTPClient(filepath.Join(l.Dir, "state", config.LauncherSocket), 5*time.Second)
	resp, err := client.Get("http://launcher/state")
	if err != nil {
		return supervisor.Status{}
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Children []supervisor.Status `json:"children"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		l.tb.Fatal(fmt.Errorf("read the launcher's state: %w", err))
	}
	for _, c := range answer.Children {
		if c.Name == name {
			return c
		}
	}
	return supervisor.Status{}
}
