package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// termEvery is the time between two SIGTERM to a child that is not ready: between
	// the start of its engine and readiness, an inference server loses the signal.
	termEvery = time.Second
	// killWait is how long we wait for the end of a killed family.
	killWait = 10 * time.Second
	// crashLines is how many last lines of the log we show after a crash.
	crashLines = 20
)

// Spec describes a [Child]. Name, Command, Output and Log are needed.
type Spec struct {
	Name string
	// Command is called before every start.
	Command func() (Command, error)
	// Output takes standard output and error; it is used by one goroutine at a
	// time. Tail gives the last lines of it, for messages; nil: none.
	Output io.Writer
	Tail   func(n int) []string
	Log    hclog.Logger
	Guard  *Guard   // nil: the child outlives a killed launcher
	PID    *PIDFile // nil: none is written

	// Ready returns nil when the child is ready. It is tried every ReadyInterval
	// (zero: 200 ms), which is also its timeout, at least 5 s. Nil: ready at
	// once. Not ready within ReadyTimeout is a crash; zero: wait for ever.
	Ready         func(context.Context) error
	ReadyInterval time.Duration
	ReadyTimeout  time.Duration
	// OnReady runs after Ready and before the state says so. Optional.
	OnReady func(context.Context)
	// Live is asked every LiveInterval, each time for at most LiveTimeout, while
	// the child is ready. LiveMisses errors in a row kill it. Nil: not asked.
	Live                      func(context.Context) error
	LiveInterval, LiveTimeout time.Duration
	LiveMisses                int

	// StopTimeout is how long SIGTERM may take before the family is killed.
	StopTimeout time.Duration
	Restart     Restart
	// Permanent reports whether another attempt would end like this exit; it is asked
	// only while the child was never ready. Optional.
	Permanent func(Exit) bool
	// Lasting keeps a child that was ready once from being given up: it is started again
	// every BackoffMax.
	Lasting bool
	// OnChange is called with every new status, in order. It must not call the child.
	OnChange func(Status)
}

// Child is one supervised process. Create it with [New] and call Run once; the other
// methods may be called at any time, from any goroutine.
type Child struct {
	spec    Spec
	start   func(Command, io.Writer, *Guard) (process, error)
	restart chan time.Duration // how long the stop may take
	killed  chan struct{}
	killing sync.Once

	mu      sync.Mutex
	status  Status        // guarded by mu
	changed chan struct{} // guarded by mu; closed at the next change
	ended   error         // guarded by mu; set when Run returned
	over    bool          // guarded by mu
}

// New returns a child that is not started.
func New(s Spec) *Child {
	if s.ReadyInterval <= 0 {
		s.ReadyInterval = 200 * time.Millisecond
	}
	return &Child{
		spec: s, start: start,
		restart: make(chan time.Duration, 1), killed: make(chan struct{}),
		status:  Status{Name: s.Name, State: Stopped, Since: time.Now()},
		changed: make(chan struct{}),
	}
}

// Status is the state now.
func (c *Child) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

// Restart stops the child and starts it again; it does not count as a crash.
// One that waits after a crash is started at once.
func (c *Child) Restart() { c.RestartWithin(c.spec.StopTimeout) }

// RestartWithin is [Child.Restart] with a stop that may take as long as is said.
func (c *Child) RestartWithin(stop time.Duration) {
	select {
	case c.restart <- stop:
	default:
	}
}

// Kill kills the family now and for good; Run then returns nil.
func (c *Child) Kill() { c.killing.Do(func() { close(c.killed) }) }

// ErrEnded is what [Child.WaitReady] returns when Run has ended without an error.
var ErrEnded = errors.New("stopped before it was ready")

// WaitReady waits until the child is ready, Run has ended, or ctx.
func (c *Child) WaitReady(ctx context.Context) error {
	for {
		c.mu.Lock()
		state, changed, over, err := c.status.State, c.changed, c.over, c.ended
		c.mu.Unlock()
		switch {
		case over && err != nil:
			return err
		case over:
			return fmt.Errorf("%s: %w", c.spec.Name, ErrEnded)
		case state == Ready:
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// set changes the status and wakes all waiters.
func (c *Child) set(change func(*Status)) {
	c.mu.Lock()
	before := c.status.State
	change(&c.status)
	if c.status.State != before {
		c.status.Since = time.Now()
	}
	status := c.status
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
	if c.spec.OnChange != nil {
		c.spec.OnChange(status)
	}
}

func (c *Child) state(s State) { c.set(func(st *Status) { st.State = s }) }

// end describes why the process ended.
type end int

const (
	crashed end = iota
	stopped
	restarted
)

// Run starts the child and keeps it running until ctx ends, which stops it, or
// [Child.Kill]; both return nil. A child that is given up is a [*GaveUpError].
func (c *Child) Run(ctx context.Context) (err error) {
	defer func() {
		c.mu.Lock()
		c.ended, c.over = err, true
		c.mu.Unlock()
		c.set(func(st *Status) {
			st.State, st.PID = Stopped, 0
			if err != nil {
				st.State = Failed
			}
		})
	}()
	h, everReady := history{policy: c.spec.Restart}, false
	for {
		why, exit, wasReady := c.live(ctx)
		everReady = everReady || wasReady
		c.set(func(st *Status) { st.PID, st.LastExit = 0, &exit })
		switch why {
		case stopped:
			return nil
		case restarted:
			c.set(func(st *Status) { st.By.add(Asked) })
			continue
		case crashed:
		}
		wait, giveUp := h.crash(time.Now(), wasReady)
		permanent := !wasReady && c.spec.Permanent != nil && c.spec.Permanent(exit)
		if giveUp || permanent || strings.HasPrefix(exit.Reason, cannotStart) {
			if !c.spec.Lasting || !everReady {
				return &GaveUpError{Name: c.spec.Name, Exit: exit, Crashes: len(h.crashes), Tail: c.tail()}
			}
			wait = c.spec.Restart.BackoffMax
		}
		c.spec.Log.Error("child crashed", "child", c.spec.Name, "exit", exit.String(), "restart_in", wait,
			"last_lines", strings.Join(c.tail(), "\n"))
		c.state(Backoff)
		if !c.pause(ctx, wait) {
			return nil
		}
		c.set(func(st *Status) { st.Restarts++; st.By.add(exit.Cause) })
	}
}

// tail returns the last lines of the log, safe to print on a terminal.
func (c *Child) tail() []string {
	if c.spec.Tail == nil {
		return nil
	}
	var lines []string
	for _, line := range c.spec.Tail(crashLines) {
		lines = append(lines, Plain(line))
	}
	return lines
}

// pause waits before the next start; false means not to start.
func (c *Child) pause(ctx context.Context, wait time.Duration) bool {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.restart:
		return true
	case <-ctx.Done():
		return false
	case <-c.killed:
		return false
	}
}

// cannotStart means that the process could not be started, for a reason that does not
// go away by itself.
const cannotStart = "cannot be started"

// live is one process from start to end.
func (c *Child) live(ctx context.Context) (why end, exit Exit, wasReady bool) {
	select {
	case <-ctx.Done():
		return stopped, Exit{Code: -1, At: time.Now()}, false
	case <-c.killed:
		return stopped, Exit{Code: -1, At: time.Now()}, false
	default:
	}
	p, err := c.launch()
	if err != nil {
		exit := Exit{Code: -1, Reason: err.Error(), Cause: Crash, At: time.Now()}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, exec.ErrNotFound) {
			exit.Reason = cannotStart + ": " + exit.Reason
		}
		return crashed, exit, false
	}
	if c.spec.PID != nil {
		if err := c.spec.PID.Set(p.pid()); err != nil {
			c.spec.Log.Warn("cannot write PID file", "child", c.spec.Name, "error", err)
		}
	}
	c.set(func(st *Status) { st.State, st.PID = Starting, p.pid() })
	c.spec.Log.Info("child started", "child", c.spec.Name, "pid", p.pid())

	events := make(chan *deadError)
	monitorCtx, cancel := context.WithCancel(ctx)
	var monitor sync.WaitGroup
	monitor.Go(func() { c.monitor(monitorCtx, events) })
	why, dead, wasReady := c.attend(ctx, p, events)
	cancel()
	monitor.Wait()

	select {
	case <-p.done():
		exit = p.exit()
	default: // attend gave up waiting
		exit = Exit{Code: -1, Reason: "could not be killed", At: time.Now(), Left: 1}
	}
	if why == crashed {
		exit.Cause = Crash
	}
	if dead != nil {
		exit.Reason, exit.Cause = dead.Error(), dead.cause
	}
	if c.spec.PID != nil {
		if err := c.spec.PID.Clear(); err != nil {
			c.spec.Log.Warn("cannot clear PID file", "child", c.spec.Name, "error", err)
		}
	}
	if why != crashed {
		c.spec.Log.Info("child stopped", "child", c.spec.Name, "exit", exit.String())
	}
	return why, exit, wasReady
}

func (c *Child) launch() (process, error) {
	cmd, err := c.spec.Command()
	if err != nil {
		return nil, err
	}
	return c.start(cmd, c.spec.Output, c.spec.Guard)
}

// attend waits until the process has ended, or must end, and then ends it.
func (c *Child) attend(ctx context.Context, p process, events <-chan *deadError) (why end, dead *deadError, wasReady bool) {
	for {
		select {
		case <-p.done():
			return crashed, nil, wasReady
		case <-ctx.Done():
			c.stop(p, wasReady, c.spec.StopTimeout)
			return stopped, nil, wasReady
		case <-c.killed:
			c.slay(p)
			return stopped, nil, wasReady
		case patience := <-c.restart:
			c.stop(p, wasReady, patience)
			return restarted, nil, wasReady
		case dead := <-events:
			if dead != nil {
				c.slay(p)
				return crashed, dead, wasReady
			}
			wasReady = true
			if p, ok := p.(observer); ok {
				p.observe()
			}
			c.state(Ready)
			c.spec.Log.Info("child ready", "child", c.spec.Name, "pid", p.pid())
		}
	}
}

// stop sends SIGTERM to the main process, again every second while the child is still
// starting, and SIGKILL to the family after patience.
func (c *Child) stop(p process, wasReady bool, patience time.Duration) {
	c.state(Draining)
	p.terminate()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	var again <-chan time.Time
	if !wasReady {
		t := time.NewTicker(termEvery)
		defer t.Stop()
		again = t.C
	}
	for {
		select {
		case <-p.done():
			return
		case <-again:
			p.terminate()
		case <-deadline.C:
			c.spec.Log.Warn("child does not stop, killing its group", "child", c.spec.Name, "pid", p.pid())
			c.slay(p)
			return
		case <-c.killed:
			c.slay(p)
			return
		}
	}
}

// slay kills the family and waits for its end for a bounded time: a process that hangs
// in a driver cannot be killed.
func (c *Child) slay(p process) {
	p.kill()
	t := time.NewTimer(killWait)
	defer t.Stop()
	select {
	case <-p.done():
	case <-t.C:
		c.spec.Log.Error("cannot kill child", "child", c.spec.Name, "pid", p.pid())
	}
}
