package rig

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"tollgate/bench/internal/load"
	"tollgate/bench/internal/upstream"
)

// Options say what a rig is made of.
type Options struct {
	Self     string // the harness's own program, for the upstream, the driver and the bare server
	Envoy    string // the binary
	Tollgate string // the binary
	Meter    string // the library of the meter inside Envoy; empty: tollgate meters
	Dir      string // working folder
	Workers  int    // of Envoy
	Listen   string // HOST:PORT of the upstream; empty: a free port
}

// Rig is an upstream and what stands before it.
type Rig struct {
	o        Options
	Upstream *Proc
	addr     string // host:port of the upstream
	stacks   []*Stack
}

// New starts the upstream.
func New(ctx context.Context, o Options) (*Rig, error) {
	r := &Rig{o: o, addr: o.Listen}
	if r.addr == "" {
		port, err := FreePort(ctx)
		if err != nil {
			return nil, err
		}
		r.addr = fmt.Sprintf("127.0.0.1:%d", port)
	}
	var err error
	r.Upstream, err = spawn("upstream", filepath.Join(o.Dir, "upstream.log"), o.Dir, []string{o.Self, "upstream", r.addr})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	err = r.Upstream.until(ctx, func() bool {
		code, _, err := get(ctx, "http://"+r.addr+"/health", "")
		return err == nil && code == http.StatusOK
	})
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// readyTimeout bounds the start of one process.
const readyTimeout = 30 * time.Second

// Close stops everything.
func (r *Rig) Close() {
	for _, s := range r.stacks {
		s.Stop()
	}
	if r.Upstream != nil {
		r.Upstream.Stop()
	}
}

// Reset starts a new account at the upstream.
func (r *Rig) Reset(ctx context.Context) error {
	_, _, err := get(ctx, "http://"+r.addr+upstream.PathReset, "")
	return err
}

// Truth is the upstream's account since the last reset.
func (r *Rig) Truth(ctx context.Context) (*upstream.Truth, error) {
	_, b, err := get(ctx, "http://"+r.addr+upstream.PathTruth, "")
	if err != nil {
		return nil, err
	}
	t := &upstream.Truth{}
	if err := json.Unmarshal(b, t); err != nil {
		return nil, fmt.Errorf("read truth: %w", err)
	}
	return t, nil
}

// Driver is a running job.
type Driver struct {
	cmd   *exec.Cmd
	stdin io.Closer
	out   *bufio.Reader
	log   *bytes.Buffer
}

// Drive starts a job in a process of its own. The job travels on stdin: it has
// a key in it.
func (r *Rig) Drive(ctx context.Context, j load.Job) (*Driver, error) {
	cmd := exec.CommandContext(ctx, r.o.Self, "drive") //nolint:gosec // ourselves
	cmd.Env = append(os.Environ(), ChildEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	d := &Driver{cmd: cmd, log: &bytes.Buffer{}}
	cmd.Stderr = d.log
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start driver: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start driver: %w", err)
	}
	d.stdin, d.out = in, bufio.NewReaderSize(out, 1<<20)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start driver: %w", err)
	}
	if err := json.NewEncoder(in).Encode(j); err != nil {
		return nil, errors.Join(fmt.Errorf("give the driver its job: %w", err), cmd.Wait())
	}
	return d, nil
}

// PID of the driver.
func (d *Driver) PID() int { return d.cmd.Process.Pid }

// Kill ends the driver at once; Held and Result then fail.
func (d *Driver) Kill() { _ = d.cmd.Process.Kill() }

// Held waits until all streams of a holding job are open. One that fails, or
// ends by itself, is an error.
func (d *Driver) Held() error {
	line, err := d.out.ReadString('\n')
	if err == nil && line != HeldLine {
		res := &load.Result{}
		if err = json.Unmarshal([]byte(line), res); err == nil {
			err = fmt.Errorf("%d of %d streams did not stay: %v", res.Failed()+res.Complete, res.Requests, res.Errors)
		}
	}
	if err != nil {
		_ = d.stdin.Close()
		return errors.Join(fmt.Errorf("open streams: %w: %s", err, d.log), d.cmd.Wait())
	}
	return nil
}

// HeldLine is what the driver prints when all streams of a job are open.
const HeldLine = "held\n"

// Result ends a holding job, waits for any other, and returns what it brought.
func (d *Driver) Result(hold bool) (*load.Result, error) {
	if hold {
		_ = d.stdin.Close()
	}
	res := &load.Result{}
	derr := json.NewDecoder(d.out).Decode(res)
	_ = d.stdin.Close()
	if err := d.cmd.Wait(); err != nil {
		return nil, fmt.Errorf("drive: %w: %s", err, d.log)
	}
	if derr != nil {
		return nil, fmt.Errorf("read the driver's result: %w", derr)
	}
	return res, nil
}
