package supervisor

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// lookEvery is how often a guard searches for new processes of its families and reaps
// orphans that have ended.
const lookEvery = 30 * time.Second

// Guard kills everything that was started here when this process ends, however it ends.
// It runs a small watcher (this binary again, see [Watch]) in a session of its own that
// holds the other end of a pipe, and kills every registered family when the pipe
// closes. It also makes this process the parent of orphans (sub-reaper) and reaps them.
// A nil guard does nothing.
type Guard struct {
	argv []string
	log  hclog.Logger
	quit chan struct{}
	wg   sync.WaitGroup

	// starting is held while a process is started and not yet registered, because it
	// would be taken for an orphan.
	starting sync.Mutex

	mu       sync.Mutex
	families []*family   // guarded by mu
	watcher  *os.Process // guarded by mu; the last that was started
	pipe     *os.File    // guarded by mu; nil while there is no watcher
}

// NewGuard starts the watcher: argv is this binary and the arguments that make
// it call [Watch] on its standard input.
func NewGuard(argv []string, log hclog.Logger) (*Guard, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become sub-reaper: %w", err)
	}
	g := &Guard{argv: argv, log: log, quit: make(chan struct{})}
	cmd, err := g.start()
	if err != nil {
		return nil, fmt.Errorf("start watcher: %w", err)
	}
	g.wg.Go(func() { g.keep(cmd) })
	g.wg.Go(g.look)
	return g, nil
}

// start starts a watcher and tells it of all families.
func (g *Guard) start() (*exec.Cmd, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	g.starting.Lock()
	defer g.starting.Unlock()
	// The watcher has another name than the launcher: a user who kills all launchers by
	// name must not kill the process that cleans up after them.
	cmd := exec.Command("/proc/self/exe", g.argv[1:]...) //nolint:gosec // our own binary
	cmd.Args[0] = "tollgate-watcher"
	cmd.Stdin = r
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pipe, g.watcher = w, cmd.Process
	for _, f := range g.families {
		g.introduce(f)
	}
	select {
	case <-g.quit: // closed meanwhile
		g.hangUp()
	default:
	}
	return cmd, nil
}

// keep replaces a watcher that dies.
func (g *Guard) keep(cmd *exec.Cmd) {
	for {
		var exited error
		if cmd != nil {
			exited = cmd.Wait()
		}
		g.mu.Lock()
		g.hangUp()
		g.mu.Unlock()
		select {
		case <-g.quit:
			return
		case <-time.After(time.Second):
		}
		g.log.Warn("watcher ended, starting another", "error", exited)
		next, err := g.start()
		if err != nil {
			g.log.Error("cannot start watcher", "error", err)
		}
		cmd = next
	}
}

// introduce tells the watcher about a family. The next watcher learns it where there is
// none now. REQUIRES: mu held.
func (g *Guard) introduce(f *family) {
	text := fmt.Appendf(nil, "+ %d %d %s %s\n", f.leader.pid, f.leader.start, f.mark, f.cgroup)
	f.mu.Lock()
	for k := range f.known {
		text = fmt.Appendf(text, "k %s %d %d\n", f.mark, k.pid, k.start)
	}
	f.mu.Unlock()
	g.tell(text)
}

// tellTimeout bounds a write to the watcher. A watcher reads at once and the pipe holds
// hundreds of messages, so a write that takes longer means that the watcher is stopped.
const tellTimeout = 2 * time.Second

// tell writes to the watcher and replaces one that does not read. It kills that one
// before it closes the pipe; otherwise the watcher would kill all families when it
// continues. REQUIRES: mu held.
func (g *Guard) tell(text []byte) {
	if g.pipe == nil {
		return
	}
	_ = g.pipe.SetWriteDeadline(time.Now().Add(tellTimeout)) // a pipe has deadlines
	if _, err := g.pipe.Write(text); errors.Is(err, os.ErrDeadlineExceeded) {
		_ = g.watcher.Kill() // fails where it has ended
		g.hangUp()
	}
}

// hangUp closes the pipe; the watcher then kills the families. REQUIRES: mu held.
func (g *Guard) hangUp() {
	if g.pipe != nil {
		_ = g.pipe.Close()
		g.pipe = nil
	}
}

// launch calls start, which starts the leader of the family and returns its PID, and
// registers the family.
func (g *Guard) launch(f *family, start func() (int, error)) error {
	if g == nil {
		pid, err := start()
		f.lead(pid)
		return err
	}
	g.starting.Lock()
	defer g.starting.Unlock()
	pid, err := start()
	if err != nil {
		return err
	}
	f.lead(pid)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.families = append(g.families, f)
	g.introduce(f)
	return nil
}

func (g *Guard) remove(f *family) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.families = slices.DeleteFunc(g.families, func(other *family) bool { return other == f })
	g.tell(fmt.Appendf(nil, "- %s\n", f.mark))
}

// scan calls look with all processes of this moment and with what each family claims.
func (g *Guard) scan(f *family, look func([]procStat, *claims)) {
	if g == nil {
		look(processes(), nil)
		return
	}
	g.starting.Lock()
	defer g.starting.Unlock()
	look(processes(), g.claims(f))
}

// claims returns what all families except f claim.
func (g *Guard) claims(f *family) *claims {
	g.mu.Lock()
	families, watcher := slices.Clone(g.families), g.watcher.Pid
	g.mu.Unlock()
	c := &claims{adopts: f.adopts, processes: map[int]bool{watcher: true}, marks: map[string]bool{}, known: map[identity]bool{}}
	for _, other := range families {
		if other == f {
			continue
		}
		c.processes[other.leader.pid], c.marks[other.mark] = true, true
		other.mu.Lock()
		for k := range other.known {
			c.known[k] = true
		}
		other.mu.Unlock()
	}
	return c
}

// look records which processes belong to which family while their parents live, and
// reaps orphans that have ended.
func (g *Guard) look() {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-g.quit:
			return
		case <-t.C:
		}
		g.mu.Lock()
		families := slices.Clone(g.families)
		g.mu.Unlock()
		for _, f := range families {
			g.observe(f)
		}
		g.reap()
	}
}

// observe records the processes of a family and passes them on to the watcher.
func (g *Guard) observe(f *family) {
	fresh := 0
	g.scan(f, func(all []procStat, c *claims) { _, fresh = f.observe(all, true, c) })
	if g == nil || fresh == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if slices.Contains(g.families, f) {
		g.introduce(f)
	}
}

// reap collects orphans. It leaves the leaders and the watcher to the goroutines that
// wait for them.
func (g *Guard) reap() {
	g.starting.Lock()
	defer g.starting.Unlock()
	ours := g.claims(&family{}).processes
	self := os.Getpid()
	for _, s := range processes() {
		if s.parent == self && s.state == 'Z' && !ours[s.pid] {
			_, _ = unix.Wait4(s.pid, nil, unix.WNOHANG, nil)
		}
	}
}

// Close ends the watcher, which kills what is still registered. The caller has
// stopped its children first.
func (g *Guard) Close() {
	close(g.quit)
	g.mu.Lock()
	g.hangUp()
	_ = g.watcher.Signal(syscall.SIGCONT) // a stopped watcher would not notice the end of its pipe
	g.mu.Unlock()
	g.wg.Wait()
}

// Watch is the watcher: it reads what a [Guard] writes until the pipe closes,
// then kills the families that are left. Signals from a terminal do not reach it
// and others are ignored: it ends with the launcher and not before.
func Watch(r io.Reader) error {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
	families := map[string]*family{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		text := lines.Text()
		var f family
		var id identity
		var mark, group string
		switch {
		case strings.HasPrefix(text, "+"):
			if n, _ := fmt.Sscanf(text, "+ %d %d %s %q", &f.leader.pid, &f.leader.start, &f.mark, &group); n >= 3 && families[f.mark] == nil {
				families[f.mark] = &family{leader: f.leader, mark: f.mark, cgroup: cgroup(group), known: map[identity]struct{}{}}
			}
		case strings.HasPrefix(text, "k"):
			if n, _ := fmt.Sscanf(text, "k %s %d %d", &mark, &id.pid, &id.start); n == 3 && families[mark] != nil {
				families[mark].known[id] = struct{}{}
			}
		case strings.HasPrefix(text, "-"):
			if n, _ := fmt.Sscanf(text, "- %s", &mark); n == 1 {
				delete(families, mark)
			}
		}
	}
	var errs []error
	for _, f := range families {
		if left := f.sweep(sweepRounds, nil); len(left) > 0 {
			errs = append(errs, fmt.Errorf("kill what process %d has started: %d processes are left", f.leader.pid, len(left)))
		}
		f.cgroup.remove()
	}
	return errors.Join(append(errs, lines.Err())...)
}
