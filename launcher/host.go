package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/hashicorp/go-hclog"

	"tollgate/envoy"
	"tollgate/internal/config"
	"tollgate/internal/control"
	"tollgate/internal/logfile"
	"tollgate/internal/supervisor"
	"tollgate/internal/systemd"
	"tollgate/internal/unixsock"
)

// tailLines is how many last lines of a child are kept in memory.
const tailLines = 50

// errAsked is the cause of a stop that a user asked for.
var errAsked = errors.New("asked to stop")

// host is a running launcher with all that it starts. [newHost] makes it and close ends
// it.
type host struct {
	process
	cfg     *config.Config
	self    string // this binary
	console *console
	log     hclog.Logger    // for people and launcher.log
	record  hclog.Logger    // for launcher.log alone; the console shows the same in other words
	file    *logfile.Writer // launcher.log
	guard   *supervisor.Guard
	locks   []*supervisor.PIDFile
	flags   flagSet      // of the engine; written before the first start
	meter   *envoy.Meter // nil: tollgate meters; as flags
	madeKey string       // path of the engine's key where the launcher made it; as flags

	// stopping ends when a stop begins; its cause says why. killing ends when the stop
	// must be immediate.
	stopping context.Context //nolint:containedctx // they are the host's life, and many wait for them
	stop     context.CancelCauseFunc
	killing  context.Context //nolint:containedctx // as above
	kill     context.CancelFunc

	program   atomic.Pointer[string] // tollgate's path
	upgrading sync.Mutex             // one upgrade at a time
	trial     atomic.Bool            // a new one is tried out: its failure ends nothing

	told    atomic.Bool            // systemd knows that everything is ready
	missing atomic.Pointer[string] // which engines do not answer, and why; nil: not known

	mu    sync.Mutex
	units []*unit // guarded by mu; in the order of start
	wg    sync.WaitGroup
}

// unit is a child with its log.
type unit struct {
	child *supervisor.Child
	log   *logfile.Writer
	stop  context.CancelFunc // nil before start
	done  chan struct{}
}

// newHost takes the state folder for this launcher alone and begins to listen
// to signals.
func newHost(p *process, cfg *config.Config) (*host, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own binary: %w", err)
	}
	if p.getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1) // the launcher mostly waits; threads that wake each other cost more than its work
	}
	h := &host{process: *p, cfg: cfg, self: self, console: newConsole(p.stderr)}
	if err := unixsock.Folder(cfg.RunDir()); err != nil {
		return nil, fmt.Errorf("use state_dir: %w", err)
	}
	lock, err := supervisor.AcquirePIDFile(filepath.Join(cfg.StateDir, "launcher.pid"))
	if err != nil {
		return nil, fmt.Errorf("take state_dir %s: %w", cfg.StateDir, err)
	}
	h.locks = append(h.locks, lock)
	if err := lock.Set(os.Getpid()); err != nil {
		return nil, errors.Join(err, lock.Release())
	}
	if err := h.openLog(); err != nil {
		return nil, errors.Join(err, lock.Release())
	}
	if h.guard, err = supervisor.NewGuard([]string{self, "watch"}, h.log); err != nil {
		return nil, errors.Join(err, h.file.Close(), lock.Release())
	}
	h.stopping, h.stop = context.WithCancelCause(context.Background())
	h.killing, h.kill = context.WithCancel(context.Background())
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP) // before the first child starts
	h.wg.Go(func() { h.listen(signals) })
	h.wg.Go(h.tellManager)
	return h, nil
}

// listen makes the first signal a stop and the second one a kill.
func (h *host) listen(signals chan os.Signal) {
	defer signal.Stop(signals)
	for {
		select {
		case <-h.killing.Done():
			return
		case s := <-signals:
			switch {
			case s == syscall.SIGHUP && !h.console.terminal:
				h.reload()
			case h.stopping.Err() == nil:
				h.log.Info("stopping; once more stops at once", "signal", s.String())
				h.stop(errAsked)
			case s != syscall.SIGHUP:
				h.log.Warn("stopping at once", "signal", s.String())
				h.kill()
				for _, u := range h.all() {
					u.child.Kill()
				}
				return
			}
		}
	}
}

// reload passes SIGHUP on to tollgate, which reads its keys again and keeps the last
// good ones. systemd is told only after a start: Ready would end that, too.
func (h *host) reload() {
	if h.told.Load() {
		systemd.Reloading()
		defer func() { systemd.Ready(h.state()) }()
	}
	for _, u := range h.all() {
		if st := u.child.Status(); st.Name == tollgateName && st.PID > 0 {
			_ = syscall.Kill(st.PID, syscall.SIGHUP)
		}
	}
}

// add makes a child with a log of the given file name under log.dir. All are
// added before the first is started.
func (h *host) add(spec supervisor.Spec, logName string) error {
	log, err := h.logFile(logName)
	if err != nil {
		return err
	}
	spec.Output, spec.Tail, spec.Log, spec.Guard = log, log.Tail, h.log, h.guard
	h.mu.Lock()
	defer h.mu.Unlock()
	h.units = append(h.units, &unit{child: supervisor.New(spec), log: log, done: make(chan struct{})})
	return nil
}

// logFile opens a log under log.dir.
func (h *host) logFile(logName string) (*logfile.Writer, error) {
	return logfile.Open(logfile.Options{
		Path: filepath.Join(h.cfg.Log.Dir, logName), MaxBytes: int64(h.cfg.Log.MaxSizeMB) << 20,
		MaxTotal: int64(h.cfg.Log.MaxTotalMB) << 20,
		KeepDays: h.cfg.Log.KeepDays, CheckInterval: h.cfg.Log.CheckInterval, Tail: tailLines,
	})
}

// openLog opens the launcher's own log, beside those of its children, in their form.
// The console shows it too, in another form.
func (h *host) openLog() (err error) {
	if h.file, err = h.logFile("launcher.log"); err != nil {
		return err
	}
	level := hclog.LevelFromString(h.cfg.Log.Level)
	h.record = hclog.New(&hclog.LoggerOptions{Name: "launcher", Level: level, JSONFormat: true, Output: h.file})
	log := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "launcher", Level: level, Output: h.console})
	log.RegisterSink(hclog.NewSinkAdapter(&hclog.LoggerOptions{Level: level, JSONFormat: true, Output: h.file}))
	h.log = log
	return nil
}

// all are the children, in the order of start.
func (h *host) all() []*unit {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.units)
}

func (h *host) unit(name string) *unit {
	units := h.all()
	i := slices.IndexFunc(units, func(u *unit) bool { return u.child.Status().Name == name })
	if i < 0 {
		return nil
	}
	return units[i]
}

// start runs a child until its stop is called. A child that is given up stops
// everything.
func (h *host) start(name string) *unit {
	u := h.unit(name)
	ctx, cancel := context.WithCancel(context.WithoutCancel(h.stopping))
	u.stop = cancel
	h.wg.Go(func() {
		defer close(u.done)
		if err := u.child.Run(ctx); err != nil {
			h.stop(err)
		}
	})
	return u
}

// end stops a child and waits for its end; it does nothing where the child was not
// started.
func (u *unit) end() {
	if u == nil || u.stop == nil {
		return
	}
	u.stop()
	<-u.done
}

// waiting names the children that are not ready, and shows the last line of the first.
func (h *host) waiting() string {
	var names []string
	last := ""
	for _, u := range h.all() {
		st := u.child.Status()
		if st.State == supervisor.Ready {
			continue
		}
		names = append(names, st.Name+" "+string(st.State))
		if tail := u.log.Tail(1); last == "" && len(tail) > 0 {
			last = ": " + tail[0]
		}
	}
	if text := h.missing.Load(); len(names) == 0 && text != nil {
		return *text
	}
	return strings.Join(names, ", ") + last
}

// serveControl serves the control API until the returned function is called.
func (h *host) serveControl(adapters *control.Adapters) (stop func(), err error) {
	l, token, err := listenControl(h.cfg)
	if err != nil {
		return nil, err
	}
	handler := control.Handler(control.Options{
		LogDir: h.cfg.Log.Dir, Token: token, Adapters: adapters, Log: h.log,
		Children: func() []supervisor.Status {
			var all []supervisor.Status
			for _, u := range h.all() {
				st := u.child.Status()
				st.LostLines = u.log.Dropped()
				all = append(all, st)
			}
			return all
		},
		Restart: func(name string) error {
			u := h.unit(name)
			if u == nil {
				return control.ErrNoChild
			}
			u.child.Restart()
			return nil
		},
		Upgrade: h.upgradeHere(), Meter: h.meterHost(),
	})
	ctx, cancel := context.WithCancel(context.WithoutCancel(h.stopping))
	done := make(chan struct{})
	h.wg.Go(func() {
		defer close(done)
		if err := control.Serve(ctx, l, handler); err != nil {
			h.stop(err)
		}
	})
	return func() { cancel(); <-done }, nil
}

// close stops the remaining children in reverse order and releases everything.
func (h *host) close() {
	for _, u := range slices.Backward(h.all()) {
		u.end()
	}
	h.kill() // ends the goroutine of listen
	h.wg.Wait()
	for _, u := range h.all() {
		if err := u.log.Close(); err != nil {
			h.log.Warn("cannot close log", "error", err)
		}
	}
	if h.madeKey != "" {
		_ = os.Remove(h.madeKey)
	}
	h.guard.Close()
	for _, l := range slices.Backward(h.locks) {
		if err := l.Release(); err != nil {
			h.log.Warn("cannot release", "error", err)
		}
	}
	if err := context.Cause(h.stopping); err != nil && !errors.Is(err, errAsked) {
		h.record.Error("ended", "error", err)
	} else {
		h.record.Info("ended")
	}
	_ = h.file.Close()
}

// upgradeHere is what the control API calls; nil where no tollgate runs.
func (h *host) upgradeHere() func(context.Context, string) (control.Upgraded, error) {
	if h.unit(tollgateName) == nil {
		return nil
	}
	return h.upgrade
}

// meterHost says where answers are metered; nil where no gateway runs.
func (h *host) meterHost() func() string {
	if h.unit(tollgateName) == nil {
		return nil
	}
	return func() string {
		if h.meter != nil {
			return config.MeterModule
		}
		return config.MeterExtProc
	}
}
