package supervisor

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Command is what to execute. Path is looked up in PATH if it has no slash.
type Command struct {
	Path string
	Args []string // without the name
	Env  []string // all of it: nothing is inherited
	Dir  string   // empty: ours
	// Main is a part of the command line of the process that SIGTERM is meant
	// for, where the one started is only a wrapper. Empty: the one started.
	Main string
}

// process is a running command with its group.
type process interface {
	pid() int
	// terminate asks the main process, and only it, to end.
	terminate()
	// kill kills the whole group. It may be called more than once.
	kill()
	// done is closed when the leader has ended, the group is killed, and the
	// output is copied.
	done() <-chan struct{}
	// exit is valid after done.
	exit() Exit
}

// outputGrace is how long to wait for the end of the output when the group is
// gone; a process that left the group may still hold the pipe.
const outputGrace = time.Second

type osProcess struct {
	cmd    *exec.Cmd
	main   string
	ended  chan struct{}
	result Exit // written before ended is closed

	mu     sync.Mutex
	reaped bool // guarded by mu; the number may be another's from here on
}

// start executes the command in a new group, with its output copied to out.
func start(c Command, out io.Writer, guard *Guard) (process, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = w.Close() }()
	cmd := exec.Command(c.Path, c.Args...) //nolint:gosec // what the configuration names
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = c.Env, c.Dir, w, w
	if cmd.Env == nil {
		cmd.Env = []string{} // nil would inherit ours
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid: true,
		// The belt beside the guard's braces: it covers the moment between the
		// start and the registration. It reaches the leader only.
		Pdeathsig: syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	guard.add(cmd.Process.Pid)
	p := &osProcess{cmd: cmd, main: c.Main, ended: make(chan struct{})}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		drain(out, r)
	}()
	go func() {
		defer close(p.ended)
		p.wait()
		select {
		case <-copied:
		case <-time.After(outputGrace):
			_ = r.SetReadDeadline(time.Now())
			<-copied
		}
		_ = r.Close()
		guard.remove(p.pid())
	}()
	return p, nil
}

// drain copies until the end. A writer that fails loses output; it must not
// stop the child on a full pipe.
func drain(out io.Writer, r io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		_, _ = out.Write(buf[:n])
		if err != nil {
			return
		}
	}
}

// wait collects the leader and the group. The leader stays a zombie until the
// group has been killed: as long as it does, nobody else can have the number.
func (p *osProcess) wait() {
	for {
		err := unix.Waitid(unix.P_PID, p.pid(), nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	left := killGroup(p.pid(), killRounds)
	p.mu.Lock()
	p.reaped = true
	p.mu.Unlock()
	_ = p.cmd.Wait() // its error only repeats the state
	p.result = Exit{Code: p.cmd.ProcessState.ExitCode(), At: time.Now(), Left: len(left)}
	if ws, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		p.result.Signal = ws.Signal().String()
	}
}

func (p *osProcess) pid() int              { return p.cmd.Process.Pid }
func (p *osProcess) done() <-chan struct{} { return p.ended }
func (p *osProcess) exit() Exit            { return p.result }

func (p *osProcess) terminate() { p.signal(p.target(), unix.SIGTERM) }
func (p *osProcess) kill()      { p.signal(-p.pid(), unix.SIGKILL) }

// signal does nothing once the leader's number is free again.
func (p *osProcess) signal(pid int, sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		_ = unix.Kill(pid, sig)
	}
}

// target is the oldest process of the group whose command line holds main. The
// wrapper's holds it too, so the leader counts only when it is alone.
func (p *osProcess) target() int {
	best := procStat{pid: p.pid()}
	if p.main == "" {
		return best.pid
	}
	for _, s := range members(p.pid()) {
		if s.pid == p.pid() || !strings.Contains(commandLine(s.pid), p.main) {
			continue
		}
		if best.start == 0 || s.start < best.start {
			best = s
		}
	}
	return best.pid
}
