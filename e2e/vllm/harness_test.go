//go:build vllm

package vllm_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/config"
	"tollgate/internal/ledger"
	"tollgate/internal/supervisor"
	"tollgate/internal/unixsock"
)

func TestMain(m *testing.M) {
	m.Run() // its status becomes the program's
	stack.Clean()
}

// readyWithin is how long a start may take: half a minute on an idle machine.
const readyWithin = 5 * time.Minute

// host is a launcher with everything behind it.
type host struct {
	*stack.Stack
	t      *testing.T
	engine string // URL of vLLM itself
	cmd    *exec.Cmd
	done   chan struct{}
	took   time.Duration // from the command to the ready line
}

// launch starts a launcher on free ports and does not wait for it.
func launch(t *testing.T, vllm string) *host {
	t.Helper()
	engine := fmt.Sprintf("127.0.0.1:%d", stack.FreePort(t))
	h := &host{t: t, engine: "http://" + engine, done: make(chan struct{})}
	h.Stack = stack.Start(t, stack.Options{Engine: engine, NoStart: true, VLLM: vllm, Config: "drain_timeout: 5s\nrequest: {body_timeout: 5m}"})
	stack.Binary(t, "tollgate") // beside the launcher
	h.cmd = exec.Command(stack.Binary(t, "launcher"), "up", "--config", "config.yaml")
	h.cmd.Dir = h.Dir
	h.cmd.Env = append(os.Environ(), "ENVOY_BIN="+stack.EnvoyBinary(t))
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return h
}

// start waits for the ready line.
func start(t *testing.T, vllm string) *host {
	t.Helper()
	h := launch(t, vllm)
	stdout, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	said, err := os.Create(h.Path("launcher.err"))
	if err != nil {
		t.Fatal(err)
	}
	h.cmd.Stderr = said
	began := time.Now()
	err = h.cmd.Start()
	_ = said.Close()
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	go func() {
		defer close(h.done)
		sc := bufio.NewScanner(stdout)
		for sc.Scan() {
			if strings.HasPrefix(sc.Text(), "ready ") {
				h.took = time.Since(began)
				close(ready)
			}
		}
		_ = h.cmd.Wait()
	}()
	t.Cleanup(h.stop)
	select {
	case <-ready:
		t.Logf("%.1f s from the command to the ready line", h.took.Seconds())
	case <-h.done:
		t.Fatal("the launcher has ended")
	case <-time.After(readyWithin):
		t.Fatal("not ready in time")
	}
	return h
}

// stop asks the launcher to stop and checks that nothing is left of it.
func (h *host) stop() {
	_ = h.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-h.done:
	case <-time.After(time.Minute):
		h.t.Error("the launcher does not stop")
		_ = h.cmd.Process.Kill()
		<-h.done
	}
	if code := h.cmd.ProcessState.ExitCode(); code != 0 {
		h.t.Errorf("exit code of the launcher: %d, want 0", code)
	}
	if left := h.processes(); len(left) > 0 {
		h.t.Errorf("processes are left: %v", left)
	}
	if h.t.Failed() {
		for _, name := range []string{"launcher.err", "logs/vllm.log"} {
			b, _ := os.ReadFile(h.Path(name))
			h.t.Logf("the end of %s:\n%s", name, b[max(0, len(b)-6000):])
		}
	}
}

// processes are those that work in the host's folder, by their command lines.
func (h *host) processes() map[int]string {
	left := map[int]string{}
	names, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, p := range names {
		cwd, err := os.Readlink(p)
		if err != nil || cwd != h.Dir && !strings.HasPrefix(cwd, h.Dir+"/") {
			continue
		}
		line, _ := os.ReadFile(filepath.Join(filepath.Dir(p), "cmdline"))
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(p)))
		left[pid] = strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))
	}
	return left
}

// vllm is what the launcher says of the engine.
func (h *host) vllm() supervisor.Status {
	h.t.Helper()
	return h.child("vllm")
}

// child is what the launcher says of one of its children.
func (h *host) child(name string) supervisor.Status {
	h.t.Helper()
	resp, err := unixsock.HTTPClient(h.Cfg.InState(config.LauncherSocket), 5*time.Second).Get("http://launcher/state")
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Children []supervisor.Status `json:"children"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		h.t.Fatal(err)
	}
	for _, c := range answer.Children {
		if c.Name == name {
			return c
		}
	}
	h.t.Fatalf("the launcher has no %s", name)
	return supervisor.Status{}
}

// in is the same host for a subtest, which its failures belong to.
func (h *host) in(t *testing.T) *host {
	t.Helper()
	own := *h
	own.t = t
	return &own
}

const (
	chat  = "/v1/chat/completions"
	hello = `"messages":[{"role":"user","content":"count for me"}]`
	withT = `{"model":"tiny","max_tokens":8,"temperature":0,` + hello + `}`
)

// testLimit bounds a wait for what takes a second.
const testLimit = 30 * time.Second

const long = `{"model":"tiny","stream":true,"max_tokens":4000,"temperature":0,` + hello + `}`

// back waits for the next life and checks the last one's end: noticed, its
// group killed, and another started within a second of it.
func (h *host) back(how string, before supervisor.Status, old []int) supervisor.Status {
	h.t.Helper()
	var after supervisor.Status
	began := time.Now()
	stack.Eventually(h.t, readyWithin, "the engine to be started again", func() bool {
		after = h.vllm()
		return after.Restarts > before.Restarts && after.PID != 0 && after.PID != before.PID
	})
	if gap := after.Since.Sub(after.LastExit.At); gap > time.Second {
		h.t.Errorf("%s: restarted %v after the exit, want at most 1 s", how, gap)
	}
	for _, pid := range old {
		if alive(pid) {
			h.t.Errorf("%s: process %d of the last life is alive", how, pid)
		}
	}
	stack.Eventually(h.t, readyWithin, "the engine to be ready again", func() bool { return h.vllm().State == supervisor.Ready })
	stack.Eventually(h.t, 30*time.Second, "a request to be served", func() bool { return h.Post(chat, withT).StatusCode == http.StatusOK })
	h.t.Logf("%s: %v, served again after %.1f s", how, after.LastExit, time.Since(began).Seconds())
	return after
}

// alive says whether a process runs; one that nobody has collected does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

// engineGroup are the processes of a group.
func (h *host) engineGroup(leader int) (pids []int) {
	for pid := range h.processes() {
		if group, err := syscall.Getpgid(pid); err == nil && group == leader {
			pids = append(pids, pid)
		}
	}
	return pids
}

// midStream kills the engine while an answer flows: the client must not take
// what it has for a whole answer, the record holds what was counted, and others
// are told to come back.
func (h *host) midStream(how string, kill func(), exit func(*supervisor.Exit) bool) {
	h.t.Helper()
	before := h.vllm()
	old := h.engineGroup(before.PID)
	answer, cancel := h.Open(h.HTTP1, stack.Key, long)
	defer cancel()
	in := bufio.NewReader(answer.Body)
	for range 20 {
		if _, err := in.ReadString('\n'); err != nil {
			h.t.Fatalf("%s: the stream has ended: %v", how, err)
		}
	}
	kill()
	rest, err := io.ReadAll(in)
	if err == nil && !strings.Contains(string(rest), `"error"`) {
		h.t.Errorf("%s: the client saw a clean end: %.300s", how, rest[max(0, len(rest)-300):])
	}
	h.unavailable(how)
	rec := h.RecordWhen(answer.RequestID(), "named", func(r ledger.Record) bool { return !r.Open() && r.Reason != ledger.Aborted })
	if rec.Reason != ledger.UpstreamAbort && rec.Reason != ledger.UpstreamError || rec.Quality != ledger.Exact || rec.Counts.Completion < 5 {
		h.t.Errorf("%s: the record is %s, %s, %d tokens", how, rec.Reason, rec.Quality, rec.Counts.Completion)
	}
	after := h.back(how, before, old)
	if !exit(after.LastExit) {
		h.t.Errorf("%s: exit: %+v", how, after.LastExit)
	}
	h.t.Logf("%s: the client saw %v, the record is %s with %d tokens", how, err, rec.Reason, rec.Counts.Completion)
}

// unavailable waits for the answer that new requests get meanwhile.
func (h *host) unavailable(how string) {
	h.t.Helper()
	var a *stack.Answer
	stack.Eventually(h.t, testLimit, "new requests to be refused", func() bool {
		a = h.Post(chat, withT)
		return a.StatusCode == http.StatusServiceUnavailable // a dying vLLM says 500 by itself
	})
	if a.Header.Get("Retry-After") == "" || a.ErrorCode() != "engine_unavailable" {
		h.t.Errorf("%s: meanwhile: retry-after %q, %.300s", how, a.Header.Get("Retry-After"), a.Bytes)
	}
	stack.Eventually(h.t, testLimit, "/health and the metric to say so", func() bool {
		return h.Do(h.HTTP1, http.MethodGet, "/health", "").StatusCode == http.StatusServiceUnavailable && h.Metric("tollgate_engine_up") == 0
	})
}
