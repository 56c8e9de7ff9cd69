package supervisor

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

const (
	reapEvery    = 5 * time.Second
	killRounds   = 100
	killInterval = 50 * time.Millisecond
)

// Guard sees to it that no group outlives this process, however it ends. It
// runs a small watcher (this binary again, see [Watch]) in a session of its own
// that holds the other end of a pipe and kills every registered group when the
// pipe closes. It also makes this process the parent of orphans (sub-reaper)
// and reaps those of registered groups.
type Guard struct {
	argv []string
	log  hclog.Logger
	quit chan struct{}
	wg   sync.WaitGroup

	mu     sync.Mutex
	groups map[int]uint64 // guarded by mu; group → start time of its leader
	pipe   *os.File       // guarded by mu; nil while there is no watcher
}

// NewGuard starts the watcher: argv is this binary and the arguments that make
// it call [Watch] on its standard input.
func NewGuard(argv []string, log hclog.Logger) (*Guard, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become sub-reaper: %w", err)
	}
	g := &Guard{argv: argv, log: log, quit: make(chan struct{}), groups: map[int]uint64{}}
	cmd, err := g.start()
	if err != nil {
		return nil, fmt.Errorf("start watcher: %w", err)
	}
	g.wg.Go(func() { g.keep(cmd) })
	g.wg.Go(g.reap)
	return g, nil
}

// start starts a watcher and tells it of all groups.
func (g *Guard) start() (*exec.Cmd, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	cmd := exec.Command(g.argv[0], g.argv[1:]...) //nolint:gosec // our own binary
	cmd.Stdin = r
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pipe = w
	for group, start := range g.groups {
		g.tell("+%d %d\n", group, start)
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
		if g.pipe != nil {
			_ = g.pipe.Close()
			g.pipe = nil
		}
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

// tell is called with mu held. Without a watcher the next one will be told.
func (g *Guard) tell(format string, args ...any) {
	if g.pipe != nil {
		_, _ = fmt.Fprintf(g.pipe, format, args...)
	}
}

func (g *Guard) add(group int) {
	if g == nil {
		return
	}
	s, _ := readStat(group) // a leader that is gone already has start time 0: any
	g.mu.Lock()
	defer g.mu.Unlock()
	g.groups[group] = s.start
	g.tell("+%d %d\n", group, s.start)
}

func (g *Guard) remove(group int) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.groups, group)
	g.tell("-%d\n", group)
}

// reap collects zombies that were orphaned within a group. The leaders are left
// to those who wait for them.
func (g *Guard) reap() {
	t := time.NewTicker(reapEvery)
	defer t.Stop()
	for {
		select {
		case <-g.quit:
			return
		case <-t.C:
		}
		self := os.Getpid()
		for _, s := range processes() {
			if s.parent != self || s.state != 'Z' || s.pid == s.group {
				continue
			}
			g.mu.Lock()
			_, mine := g.groups[s.group]
			g.mu.Unlock()
			if mine {
				_, _ = unix.Wait4(s.pid, nil, unix.WNOHANG, nil)
			}
		}
	}
}

// Close ends the watcher, which kills what is still registered. The caller has
// stopped its children first.
func (g *Guard) Close() {
	close(g.quit)
	g.mu.Lock()
	if g.pipe != nil {
		_ = g.pipe.Close()
		g.pipe = nil
	}
	g.mu.Unlock()
	g.wg.Wait()
}

// Watch is the watcher: it reads what a [Guard] writes until the pipe closes,
// then kills the groups that are left. Signals from a terminal do not reach it
// and others are ignored: it ends with the launcher and not before.
func Watch(r io.Reader) error {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
	groups := map[int]uint64{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var group int
		var start uint64
		text := lines.Text()
		if n, _ := fmt.Sscanf(text, "+%d %d", &group, &start); n == 2 {
			groups[group] = start
		} else if n, _ := fmt.Sscanf(text, "-%d", &group); n == 1 && strings.HasPrefix(text, "-") {
			delete(groups, group)
		}
	}
	var errs []error
	for group, start := range groups {
		if s, err := readStat(group); err == nil && start != 0 && s.start != start {
			continue // the number belongs to a stranger by now
		}
		if left := killGroup(group, killRounds); len(left) > 0 {
			errs = append(errs, fmt.Errorf("kill group %d: %d processes are left", group, len(left)))
		}
	}
	return errors.Join(append(errs, lines.Err())...)
}

// killGroup kills a group until nobody of it is alive, at most so many rounds,
// and returns who still is. It reaps those of its members that are our children,
// the leader excepted.
func killGroup(group, rounds int) []procStat {
	for round := 0; ; round++ {
		_ = unix.Kill(-group, unix.SIGKILL)
		live := members(group)
		for _, s := range processes() {
			if s.group == group && s.pid != group && s.state == 'Z' && s.parent == os.Getpid() {
				_, _ = unix.Wait4(s.pid, nil, unix.WNOHANG, nil)
			}
		}
		if len(live) == 0 || round >= rounds {
			return live
		}
		<-time.After(killInterval)
	}
}
