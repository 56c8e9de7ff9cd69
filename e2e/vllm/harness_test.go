//go:build vllm

package vllm_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
	"tollgate/internal/supervisor"
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
	launcher *stack.Launcher
	t        *testing.T
	engine   string // URL of vLLM itself
}

// launch makes a launcher on free ports and does not start it.
func launch(t *testing.T, vllm string) *host {
	t.Helper()
	return launchWith(t, vllm, "")
}

// launchWith is launch with more sections of YAML.
func launchWith(t *testing.T, vllm, more string) *host {
	t.Helper()
	engine := fmt.Sprintf("127.0.0.1:%d", stack.FreePort(t))
	s := stack.Start(t, stack.Options{Engine: engine, NoStart: true, VLLM: vllm, Config: "drain_timeout: 5s\nrequest: {body_timeout: 5m}\n" + more})
	return &host{s, stack.NewLauncher(t, s.Dir, s.URL), t, "http://" + engine}
}

// start waits for the ready line.
func start(t *testing.T, vllm string) *host {
	t.Helper()
	return launch(t, vllm).run(t)
}

// run starts a host and waits for the ready line.
func (h *host) run(t *testing.T) *host {
	t.Helper()
	h.launcher.Start()
	t.Cleanup(h.stop)
	t.Logf("%.1f s from the command to the ready line", h.launcher.Ready(readyWithin).Seconds())
	return h
}

// stop asks the launcher to stop and checks that nothing is left of it.
func (h *host) stop() {
	h.launcher.Signal(syscall.SIGTERM)
	if code := h.launcher.Exit(time.Minute); code != 0 {
		h.t.Errorf("exit code of the launcher: %d, want 0", code)
	}
	if h.t.Failed() {
		b, _ := os.ReadFile(h.Path("logs/vllm.log"))
		h.t.Logf("the end of vllm.log:\n%s", b[max(0, len(b)-6000):])
	}
}

// vllm is the launcher's state of the engine.
func (h *host) vllm() supervisor.Status {
	h.t.Helper()
	return h.launcher.Child("vllm")
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
	for pid := range h.launcher.Processes() {
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
