// Package rig sets up what is measured: the upstream, the gateways that are
// compared, each in processes of its own on free loopback ports, and the driver.
package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ChildEnv is set to 1 for the harness's own programs, so that a test binary
// knows that it is one of them.
const ChildEnv = "TOLLGATE_BENCH_CHILD"

// Proc is one process of the rig.
type Proc struct {
	Name string
	pid  int
	log  string
	cmd  *exec.Cmd // nil when it is somebody else's
	done chan struct{}
}

// spawn starts a program in a folder; its output goes to log.
func spawn(name, log, dir string, argv []string, env ...string) (*Proc, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) //nolint:gosec // in the rig's folder
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", name, err)
	}
	defer func() { _ = out.Close() }()
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:gosec // programs of the rig
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	cmd.Env = append(append(os.Environ(), ChildEnv+"=1"), env...)
	// The harness's death must not leave it behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &Proc{Name: name, pid: cmd.Process.Pid, log: log, cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Attach names a process of somebody else's, whose CPU time is to be read. It
// cannot be stopped.
func Attach(name string, pid int) *Proc { return &Proc{Name: name, pid: pid} }

// PID of the process.
func (p *Proc) PID() int { return p.pid }

// stopGrace is what a process gets to stop by itself.
const stopGrace = 5 * time.Second

// Stop asks the process to stop, kills it when it does not, and waits until it
// is gone. A second call does nothing.
func (p *Proc) Stop() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(stopGrace, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	<-p.done
}

// tail is the end of what the process has printed.
func (p *Proc) tail() string {
	b, _ := os.ReadFile(p.log)
	return string(bytes.TrimSpace(b[max(0, len(b)-1000):]))
}

// errGone is a process that ended while it was needed.
var errGone = errors.New("process has ended")

// until polls ok until it is true, the process ends or ctx does.
func (p *Proc) until(ctx context.Context, ok func() bool) error {
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	for !ok() {
		select {
		case <-t.C:
		case <-p.done:
			return fmt.Errorf("start %s: %w: %s", p.Name, errGone, p.tail())
		case <-ctx.Done():
			return fmt.Errorf("start %s: %w: %s", p.Name, ctx.Err(), p.tail())
		}
	}
	return nil
}

// ports are those that FreePort has returned.
var ports sync.Map

// FreePort is a loopback TCP port that is free now, another one each time: the
// kernel may well give the one that it has just got back.
func FreePort(ctx context.Context) (int, error) {
	for {
		port, err := freePort(ctx)
		if _, given := ports.LoadOrStore(port, true); err != nil || !given {
			return port, err
		}
	}
}

func freePort(ctx context.Context) (int, error) {
	lis, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a port: %w", err)
	}
	defer func() { _ = lis.Close() }()
	addr, ok := lis.Addr().(*net.TCPAddr)
	if !ok {
		return 0, errors.New("find a port: not TCP")
	}
	return addr.Port, nil
}

// get reads a page.
func get(ctx context.Context, url, key string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, nil, fmt.Errorf("make request: %w", err)
	}
	if key != "" {
		req.Header.Set("authorization", "Bearer "+key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("get: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, fmt.Errorf("get: %w", err)
	}
	return resp.StatusCode, b, nil
}

// ModuleRoot is the folder of go.mod above the working directory.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find module: %w", err)
	}
	for dir != "/" {
		if b, err := os.ReadFile(filepath.Join(dir, "go.mod")); err == nil && strings.HasPrefix(string(b), "module tollgate\n") { //nolint:gosec // looked for
			return dir, nil
		}
		dir = filepath.Dir(dir)
	}
	return "", errors.New("find module: run it inside the repository")
}
