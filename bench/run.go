package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tollgate/bench/internal/lane"
	"tollgate/bench/internal/rig"
	"tollgate/envoy"
)

var (
	errVoid   = errors.New("the figures are void, see above")
	errMissed = errors.New("a goal was missed, see above")
)

// Lanes that are not one job on all targets.
const (
	laneIdle     = "idle"
	laneCapacity = "capacity"
	laneStart    = "start"
	laneSoak     = "soak"
)

var (
	headline = []string{lane.Streams, lane.Two, lane.Short}
	all      = append(append([]string{}, headline...), lane.Long, lane.Burst, lane.Scale1, lane.Scale64, lane.Scale1000,
		lane.Body1K, lane.Body220K, lane.Body8M, laneIdle, laneCapacity, laneStart, laneSoak)
)

type runCmd struct {
	Lanes    []string          `placeholder:"LANE,…" help:"Lanes to run, in that order (default: the headline: streams,two,short). All: --full."`
	Full     bool              `help:"Run all lanes, the soak last."`
	Rounds   int               `default:"5" help:"Rounds of each lane."`
	Duration time.Duration     `default:"3s" help:"Length of one run."`
	Soak     time.Duration     `default:"20m" help:"Length of the soak."`
	Idle     []int             `default:"1000,10000" help:"Numbers of idle streams."`
	Workers  int               `default:"2" help:"Worker threads of every Envoy."`
	Only     []string          `placeholder:"TARGET,…" help:"Only these targets. Without both columns of plain Envoy nothing is controlled, and the figures are void."`
	Network  bool              `help:"Measure Tollgate over TCP and TLS, too, beside the Unix sockets."`
	Target   map[string]string `placeholder:"NAME=URL[,KEY]" mapsep:"none" help:"Another gateway before the upstream; repeatable. Needs --listen, and --pid for its CPU."`
	PID      map[string]int    `name:"pid" placeholder:"NAME=PID" help:"The process of a --target; repeatable."`
	Binary   string            `placeholder:"PATH" help:"The tollgate to measure; built from this tree by default."`
	Tollgate map[string]string `placeholder:"NAME=PATH" help:"Another tollgate binary to compare; repeatable."`
	Listen   string            `placeholder:"HOST:PORT" help:"Where the upstream listens, for gateways of others; a free port by default."`
	JSON     string            `default:".cache/bench.json" help:"File for all figures; empty writes none."`
	From     string            `placeholder:"FILE" help:"Measure nothing: judge and print an earlier --json again."`
	Dir      string            `help:"Working folder, kept; a temporary one by default."`
	Gate     bool              `help:"Fail when a goal is missed."`
}

// Run measures and prints.
func (c *runCmd) Run(ctx context.Context, s *streams) error {
	if c.From != "" {
		return c.again(s.out)
	}
	lanes, err := c.chosen()
	if err != nil {
		return err
	}
	dir, cleanup, err := c.folder()
	if err != nil {
		return err
	}
	defer cleanup()
	o, err := c.prepare(ctx, dir)
	if err != nil {
		return err
	}
	o.Workers, o.Listen = c.Workers, c.Listen
	m := machine(ctx, o.Envoy)
	r, err := rig.New(ctx, o)
	if err != nil {
		return err
	}
	defer r.Close()
	b := &lane.Bench{Rig: r, Rounds: c.Rounds, Duration: c.Duration, Progress: s.err}
	if err := c.targets(ctx, b); err != nil {
		return err
	}
	if err := b.WarmUp(ctx); err != nil {
		return err
	}
	for _, name := range lanes {
		if err := c.lane(ctx, b, name); err != nil {
			return err
		}
	}
	m.Load += " before, " + loadAverage() + " after"
	return c.report(b, m, s.out)
}

// chosen are the lanes to run.
func (c *runCmd) chosen() ([]string, error) {
	switch {
	case c.Full:
		return all, nil
	case len(c.Lanes) == 0:
		return headline, nil
	}
	for _, name := range c.Lanes {
		if !slices.Contains(all, name) {
			return nil, fmt.Errorf("there is no lane %q; there are %s", name, strings.Join(all, ", "))
		}
	}
	return c.Lanes, nil
}

// again prints an earlier measurement.
func (c *runCmd) again(out io.Writer) error {
	f, err := os.Open(c.From)
	if err != nil {
		return fmt.Errorf("read earlier figures: %w", err)
	}
	defer func() { _ = f.Close() }()
	b, m, err := lane.Read(f)
	if err != nil {
		return err
	}
	c.JSON = "" // the file stays as it is
	return c.report(b, m, out)
}

func (c *runCmd) folder() (dir string, cleanup func(), err error) {
	if c.Dir != "" {
		abs, err := filepath.Abs(c.Dir)
		if err == nil {
			err = os.MkdirAll(abs, 0o700)
		}
		if err != nil {
			return "", nil, fmt.Errorf("make folder: %w", err)
		}
		return abs, func() {}, nil
	}
	if dir, err = os.MkdirTemp("", "tollgate-bench-"); err != nil {
		return "", nil, fmt.Errorf("make folder: %w", err)
	}
	return dir, func() { _ = os.RemoveAll(dir) }, nil
}

func (c *runCmd) lane(ctx context.Context, b *lane.Bench, name string) error {
	switch name {
	case laneIdle:
		for _, n := range c.Idle {
			if err := b.Idle(ctx, n); err != nil {
				return err
			}
		}
		return nil
	case laneCapacity:
		return b.Capacity(ctx)
	case laneStart:
		return b.Starts(ctx)
	case laneSoak:
		return b.Soak(ctx, c.Soak)
	}
	l, ok := lane.Find(name)
	if !ok {
		return fmt.Errorf("there is no lane %q", name)
	}
	return b.Compare(ctx, l)
}

func (c *runCmd) report(b *lane.Bench, m lane.Machine, out io.Writer) error {
	b.Table(out, m)
	if c.JSON != "" {
		if err := os.MkdirAll(filepath.Dir(c.JSON), 0o750); err != nil {
			return fmt.Errorf("write JSON: %w", err)
		}
		f, err := os.Create(c.JSON)
		if err != nil {
			return fmt.Errorf("write JSON: %w", err)
		}
		if err := errors.Join(b.JSON(f, m), f.Close()); err != nil {
			return err
		}
	}
	if len(b.Void()) > 0 {
		return errVoid
	}
	if c.Gate {
		for _, g := range b.Goals() {
			if g.Missed {
				return errMissed
			}
		}
	}
	return nil
}

// prepare finds Envoy and builds tollgate.
func (c *runCmd) prepare(ctx context.Context, dir string) (rig.Options, error) {
	o := rig.Options{Dir: dir}
	root, err := rig.ModuleRoot()
	if err != nil {
		return o, err
	}
	if o.Self, err = os.Executable(); err != nil {
		return o, fmt.Errorf("find own program: %w", err)
	}
	if o.Meter, err = meterLibrary(root); err != nil && !errors.Is(err, envoy.ErrNoLibrary) {
		return o, fmt.Errorf("find meter: %w", err)
	}
	if o.Envoy, err = envoyBinary(root); err != nil {
		return o, err
	}
	if c.Binary != "" {
		o.Tollgate, err = filepath.Abs(c.Binary)
		return o, err
	}
	o.Tollgate = filepath.Join(dir, "tollgate-bin")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", o.Tollgate, "./cmd/tollgate") //nolint:gosec // fixed arguments
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return o, fmt.Errorf("build tollgate: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return o, nil
}

// envoyBinary is the Envoy that the launcher would take, or the one that was
// fetched into this repository.
func envoyBinary(root string) (string, error) {
	path, err := envoy.Binary("", os.Getenv)
	if errors.Is(err, envoy.ErrNoBinary) {
		fetched := filepath.Join(root, ".cache", "envoy", envoy.Version, "envoy")
		if p, ferr := envoy.Binary(fetched, os.Getenv); ferr == nil {
			return p, nil
		}
	}
	if err != nil {
		return "", fmt.Errorf("find Envoy: %w", err)
	}
	return path, nil
}

// meterLibrary is the one of the environment, or the newest that was built here.
func meterLibrary(root string) (string, error) {
	return envoy.MeterLibrary("", func(name string) string {
		if given := os.Getenv(name); given != "" || name != envoy.LibraryVariable {
			return given
		}
		return envoy.NewestLibrary(filepath.Join(root, ".cache", "meter"))
	})
}

// targets starts what is compared, in the order in which it is measured: what
// is compared most closely stands side by side.
func (c *runCmd) targets(ctx context.Context, b *lane.Bench) error {
	stacks := map[rig.Kind]*rig.Stack{}
	for _, t := range []struct {
		name  string
		kind  rig.Kind
		strip bool
	}{
		{lane.NameDirect, rig.Direct, false},
		{lane.NamePlain, rig.Plain, false},
		{lane.NamePlainAgain, rig.Plain, false},
		{"apikey", rig.APIKey, false},
		{"bare strip", rig.Bare, true},
		{lane.NameBare, rig.Bare, false},
		{string(rig.ExtProc), rig.ExtProc, true},
		{string(rig.Network), rig.Network, true},
		{lane.NameTollgate, rig.Tollgate, true},
	} {
		if len(c.Only) > 0 && !slices.Contains(c.Only, t.name) || t.kind == rig.Network && !c.Network {
			continue
		}
		if stacks[t.kind] == nil {
			s, err := b.Rig.Start(ctx, t.kind, string(t.kind), "")
			if err != nil {
				return fmt.Errorf("start %s: %w", t.kind, err)
			}
			stacks[t.kind] = s
		}
		b.Targets = append(b.Targets, lane.Target{Name: t.name, Stack: stacks[t.kind], Strip: t.strip})
	}
	return c.others(ctx, b)
}

// others are the targets that the command line names.
func (c *runCmd) others(ctx context.Context, b *lane.Bench) error {
	for name, path := range c.Tollgate {
		abs, err := filepath.Abs(path)
		if err != nil {
			return fmt.Errorf("find %s: %w", path, err)
		}
		s, err := b.Rig.Start(ctx, rig.Tollgate, name, abs)
		if err != nil {
			return fmt.Errorf("start %s: %w", name, err)
		}
		b.Targets = append(b.Targets, lane.Target{Name: name, Stack: s, Strip: true})
	}
	for name, value := range c.Target {
		url, key, _ := strings.Cut(value, ",")
		s := &rig.Stack{Kind: rig.Foreign, URL: strings.TrimRight(url, "/"), Key: key}
		if pid := c.PID[name]; pid > 0 {
			s.Server = rig.Attach(name, pid)
		}
		b.Targets = append(b.Targets, lane.Target{Name: name, Stack: s})
	}
	return nil
}

// machine says where this runs; what cannot be told is left empty.
func machine(ctx context.Context, envoyPath string) lane.Machine {
	m := lane.Machine{
		Date: time.Now().UTC().Format("2006-01-02 15:04 UTC"), Cores: runtime.NumCPU(), Go: runtime.Version(), Load: loadAverage(),
		Revision: said(ctx, "git", "describe", "--always", "--dirty"),
	}
	if _, after, ok := strings.Cut(said(ctx, envoyPath, "--version"), "version: "); ok {
		if parts := strings.Split(after, "/"); len(parts) > 1 {
			m.Envoy = parts[1]
		}
	}
	info, _ := os.ReadFile("/proc/cpuinfo")
	if _, after, ok := strings.Cut(string(info), "model name"); ok {
		name, _, _ := strings.Cut(after, "\n")
		m.CPU = strings.TrimLeft(name, "\t :")
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	return m
}

func said(ctx context.Context, name string, args ...string) string {
	out, _ := exec.CommandContext(ctx, name, args...).Output() //nolint:gosec // git and Envoy
	return strings.TrimSpace(string(out))
}

func loadAverage() string {
	b, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(b), " ")
	return first
}
