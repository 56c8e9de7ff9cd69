package supervisor

import (
	"errors"
	"io"
	"io/fs"
	"os/exec"
	"slices"
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
	Env  []string // the whole environment; nothing is inherited
	Dir  string   // empty: the folder of this process
	// Main is a part of the command line of the process that gets SIGTERM, where the
	// started process is only a wrapper. Empty: the started process gets it.
	Main string
	// Forks means that the program starts other processes: unknown orphans are taken for
	// its own. A program without Forks is killed by the kernel as soon as we are.
	Forks bool
	// Stderr takes standard error; nil: it goes where standard output goes.
	Stderr io.Writer
}

// process is a running command with its family.
type process interface {
	pid() int
	// terminate asks only the main process to end.
	terminate()
	// kill kills the whole family. It may be called more than once.
	kill()
	// done is closed when the leader has ended, the family is killed, and the
	// output is copied.
	done() <-chan struct{}
	// exit is valid after done.
	exit() Exit
}

// observer is a process that can record new members of its family.
type observer interface{ observe() }

// outputGrace is how long to wait for the end of the output after the family has ended:
// a process that could not be killed may still hold the pipe.
const outputGrace = time.Second

type osProcess struct {
	cmd    *exec.Cmd
	main   string
	family *family
	guard  *Guard
	ended  chan struct{}
	result Exit // written before ended is closed

	mu     sync.Mutex
	reaped bool // guarded by mu; from here on the PID may belong to another process
}

// start executes the command in a new group, with its output copied to out.
func start(c Command, out io.Writer, guard *Guard) (process, error) {
	cmd := exec.Command(c.Path, c.Args...) //nolint:gosec // what the configuration names
	p := &osProcess{cmd: cmd, main: c.Main, family: newFamily(c.Forks && guard != nil), guard: guard, ended: make(chan struct{})}
	cmd.Dir = c.Dir
	cmd.Env = append(slices.Clone(c.Env), markName+"="+p.family.mark)
	pipes, err := newPipes()
	if err != nil {
		p.family.cgroup.remove()
		return nil, err
	}
	defer pipes.closeWriters()
	if cmd.Stdout, err = pipes.add(out); err == nil {
		cmd.Stderr = cmd.Stdout
		if c.Stderr != nil {
			cmd.Stderr, err = pipes.add(c.Stderr)
		}
	}
	if err == nil {
		err = p.launch(c.Forks)
	}
	if err != nil {
		p.family.cgroup.remove()
		pipes.close()
		return nil, err
	}
	ending := make(chan struct{})
	copied := pipes.copy(ending)
	go func() {
		defer close(p.ended)
		p.wait()
		close(ending)
		select {
		case <-copied:
		case <-time.After(outputGrace):
			pipes.expire()
			<-copied
		}
		pipes.close()
		guard.remove(p.family)
		p.family.cgroup.remove()
	}()
	return p, nil
}

// launch starts the leader in the cgroup of its family, or where that is refused
// without one.
func (p *osProcess) launch(forks bool) error {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if !forks {
		// A program with descendants must live when the watcher learns about it, because
		// the watcher finds them from it.
		attr.Pdeathsig = syscall.SIGKILL
	}
	p.cmd.SysProcAttr = attr
	if dir := p.family.cgroup.open(); dir != nil {
		defer func() { _ = dir.Close() }()
		attr.UseCgroupFD, attr.CgroupFD = true, int(dir.Fd())
	}
	return p.guard.launch(p.family, func() (int, error) {
		err := p.cmd.Start()
		if err != nil && attr.UseCgroupFD && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			p.family.cgroup.remove()
			p.family.cgroup = ""
			again := exec.Command(p.cmd.Path) //nolint:gosec // as before
			again.Args, again.Env, again.Dir, again.Stdout, again.Stderr = p.cmd.Args, p.cmd.Env, p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr
			again.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: attr.Pdeathsig}
			p.cmd = again
			err = p.cmd.Start()
		}
		if err != nil {
			return 0, err
		}
		return p.cmd.Process.Pid, nil
	})
}

// wait collects the leader and the family. The leader stays a zombie until the others
// have been killed: until then no other process can get its PID.
func (p *osProcess) wait() {
	for {
		err := unix.Waitid(unix.P_PID, p.pid(), nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	left := p.family.sweep(sweepRounds, p.guard)
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

func (p *osProcess) observe() { p.guard.observe(p.family) }

// terminate looks at the family before it may fall apart.
func (p *osProcess) terminate() {
	live := p.look()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		_ = unix.Kill(p.target(live), unix.SIGTERM)
	}
}

// kill kills once; wait kills again until no process is left.
func (p *osProcess) kill() {
	p.mu.Lock()
	reaped := p.reaped
	p.mu.Unlock()
	if !reaped {
		p.family.strike(p.guard)
	}
}

// look returns the living processes of the family.
func (p *osProcess) look() (live []procStat) {
	p.guard.scan(p.family, func(all []procStat, c *claims) { live, _ = p.family.observe(all, true, c) })
	return live
}

// target is the oldest process of the family whose command line holds main. The command
// line of the wrapper holds it too, so the leader counts only when it is alone.
func (p *osProcess) target(live []procStat) int {
	best := procStat{pid: p.pid()}
	if p.main == "" {
		return best.pid
	}
	for _, s := range live {
		if s.pid == p.pid() || !strings.Contains(commandLine(s.pid), p.main) {
			continue
		}
		if best.start == 0 || s.start < best.start {
			best = s
		}
	}
	return best.pid
}
