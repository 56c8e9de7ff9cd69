package stack

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"tollgate/envoy"
)

// Process is one program of the stack, which a test may kill and start again.
type Process struct {
	tb      testing.TB
	name    string
	log     string   // file that holds stdout and stderr
	logs    []string // further files of its own
	command func() *exec.Cmd

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
	once sync.Once
}

// NewProcess is a program that is not part of a stack; nothing is started yet. What it
// prints goes to the file log, and command is called at each start.
func NewProcess(tb testing.TB, name, log string, command func() *exec.Cmd) *Process {
	tb.Helper()
	return &Process{tb: tb, name: name, log: log, command: command}
}

// Start runs the program; the test's end kills it.
func (p *Process) Start() {
	p.tb.Helper()
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.tb.Fatal(err)
	}
	cmd := p.command()
	cmd.Stdout, cmd.Stderr = out, out
	// The test's death must not leave it behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	err = cmd.Start()
	_ = out.Close()
	if err != nil {
		p.tb.Fatalf("start %s: %v", p.name, err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	p.mu.Lock()
	p.cmd, p.done = cmd, done
	p.mu.Unlock()
	p.once.Do(func() {
		p.tb.Cleanup(func() {
			p.Kill()
			if fault := p.fault(); fault != "" {
				// At the beginning of a line: scripts/go_test.py gives it no second try.
				_, _ = os.Stdout.WriteString(fault + " (" + p.name + ")\n")
				p.tb.Errorf("%s: %s", p.name, fault)
			}
			if p.tb.Failed() {
				p.tb.Logf("last lines of %s:\n%s", p.name, p.Tail(6))
			}
		})
	})
}

// PID of the running program.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Pid
}

// RSS is the resident memory of the running program in bytes.
func (p *Process) RSS() int64 {
	p.tb.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(p.PID()) + "/statm")
	if err != nil {
		p.tb.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	if err != nil {
		p.tb.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// Running tells that the program was started and has not ended.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Signal sends a signal to the program.
func (p *Process) Signal(sig syscall.Signal) {
	p.tb.Helper()
	if err := syscall.Kill(p.PID(), sig); err != nil {
		p.tb.Errorf("signal %s: %v", p.name, err)
	}
}

// Kill ends the program with SIGKILL and waits until it is gone.
func (p *Process) Kill() {
	p.mu.Lock()
	cmd, done := p.cmd, p.done
	p.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Kill()
	<-done
}

// Wait waits until the program has ended by itself and returns its exit code.
func (p *Process) Wait(limit time.Duration) int {
	p.tb.Helper()
	p.mu.Lock()
	cmd, done := p.cmd, p.done
	p.mu.Unlock()
	select {
	case <-done:
		return cmd.ProcessState.ExitCode()
	case <-time.After(limit):
		p.tb.Fatalf("%s is still running after %v", p.name, limit)
		return -1
	}
}

// Output is all that the program has printed.
func (p *Process) Output() string {
	b, _ := os.ReadFile(p.log)
	for _, also := range p.logs {
		more, _ := os.ReadFile(also) //nolint:gosec // a log of the stack's
		b = append(b, more...)
	}
	return string(b)
}

// fault is the line with which a Go program says that it died or raced, "" when
// there is none.
func (p *Process) fault() string {
	for line := range strings.Lines(p.Output()) {
		for _, word := range []string{"panic:", "fatal error:", "WARNING: DATA RACE"} {
			if strings.HasPrefix(line, word) {
				return strings.TrimSpace(line)
			}
		}
	}
	return ""
}

// Tail is the last lines that it has printed.
func (p *Process) Tail(n int) string {
	var lines []string
	sc := bufio.NewScanner(strings.NewReader(p.Output()))
	for sc.Scan() {
		lines = append(lines, sc.Text())
	}
	lines = lines[max(0, len(lines)-n):]
	for i, l := range lines {
		lines[i] = l[:min(len(l), 300)] // Envoy's are long
	}
	return strings.Join(lines, "\n")
}

var build struct {
	sync.Mutex
	dir  string
	done map[string]error
}

// Binary builds a program of this module once per test process and returns its
// path. TOLLGATE_E2E_RACE=1 builds it with the race detector.
func Binary(tb testing.TB, name string) string {
	tb.Helper()
	build.Lock()
	defer build.Unlock()
	if build.done == nil {
		dir, err := os.MkdirTemp("", "tollgate-e2e-") //nolint:usetesting // outlives the test: built once
		if err != nil {
			tb.Fatal(err)
		}
		build.dir, build.done = dir, map[string]error{}
	}
	path := filepath.Join(build.dir, name)
	err, built := build.done[name]
	if !built {
		args := []string{"build", "-o", path}
		if os.Getenv("TOLLGATE_E2E_RACE") == "1" {
			args = append(args, "-race")
		}
		pkg := "tollgate/" + name
		if name == "tollgate" {
			pkg = "tollgate/cmd/tollgate"
		}
		cmd := exec.Command("go", append(args, pkg)...) //nolint:gosec // this module's packages
		cmd.Stderr = os.Stderr
		err = cmd.Run()
		build.done[name] = err
	}
	if err != nil {
		tb.Fatalf("build %s: %v", name, err)
	}
	return path
}

// Clean removes what [Binary] built: for TestMain.
func Clean() {
	build.Lock()
	defer build.Unlock()
	if build.dir != "" {
		_ = os.RemoveAll(build.dir)
		build.dir, build.done = "", nil
	}
}

// EnvoyBinary finds Envoy as the launcher does, or skips the test by name;
// with E2E=require it fails instead.
func EnvoyBinary(tb testing.TB) string {
	tb.Helper()
	root := ModuleRoot(tb)
	path, err := envoy.Binary(filepath.Join(root, ".cache/envoy/1.40.0/envoy"), os.Getenv)
	if err != nil {
		path, err = envoy.Binary("", os.Getenv)
	}
	if err == nil {
		return path
	}
	if os.Getenv("E2E") == "require" {
		tb.Fatalf("no Envoy: %v", err)
	}
	tb.Skipf("no Envoy: %v", err)
	return ""
}

// ModuleRoot is the folder of the go.mod above the test.
func ModuleRoot(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for dir != "/" {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	tb.Fatal("not inside the module")
	return ""
}

// ports are those that FreePort has returned.
var ports sync.Map

// FreePort returns a loopback TCP port that is free now, another one each time:
// the kernel may well give the one that it has just got back.
func FreePort(tb testing.TB) int {
	tb.Helper()
	for {
		port := freePort(tb)
		if _, given := ports.LoadOrStore(port, true); !given {
			return port
		}
	}
}

func freePort(tb testing.TB) int {
	tb.Helper()
	lis, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = lis.Close() }()
	_, port, _ := net.SplitHostPort(lis.Addr().String())
	n, _ := strconv.Atoi(port)
	return n
}

// Eventually waits until ok, polling; after limit the test fails.
func Eventually(tb testing.TB, limit time.Duration, what string, ok func() bool) {
	tb.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.After(limit)
	for {
		if ok() {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			tb.Fatalf("waited %v in vain for %s", limit, what)
		}
	}
}

// Metric reads one value from tollgate's scrape page: the sum over all series
// of the name that carry the labels, given as names and values in turn. For a
// histogram it is the number of observations.
func (s *Stack) Metric(name string, labels ...string) float64 {
	s.tb.Helper()
	resp, err := http.Get(s.Scrape + "/metrics")
	if err != nil {
		s.tb.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		s.tb.Fatal(err)
	}
	sum := 0.0
series:
	for _, m := range families[name].GetMetric() {
		have := map[string]string{}
		for _, l := range m.GetLabel() {
			have[l.GetName()] = l.GetValue()
		}
		for i := 0; i+1 < len(labels); i += 2 {
			if have[labels[i]] != labels[i+1] {
				continue series
			}
		}
		sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
	}
	return sum
}
