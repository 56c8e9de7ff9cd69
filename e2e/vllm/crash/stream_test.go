package crash_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
	"tollgate/internal/supervisor"
)

// aStream takes far longer than any test; its client sees the running count.
const aStream = `{"model":"tiny","stream":true,"max_tokens":5000,"messages":[{"role":"user","content":"hi"}],
"stream_options":{"include_usage":true,"continuous_usage_stats":true},"sim":{"delay_ms":20}}`

// TestAnEngineThatDiesInAStream is noticed by everybody: the client, the
// ledger, who comes next, and the launcher, which starts another at once.
func TestAnEngineThatDiesInAStream(t *testing.T) {
	t.Parallel() // it waits most of the time
	h := newHost(t, "tiny", "  restart: {backoff_min: 1s, backoff_max: 1m, give_up_after: 5, within: 1s}\n")
	h.up()
	exit := func(code string) func() { return func() { h.script("/sim/exit?code="+code, "") } }
	signal := func(sig syscall.Signal) func() {
		return func() { _ = syscall.Kill(h.Child("vllm").PID, sig) } // the main process: its core is orphaned
	}
	// vLLM's API process says so to everybody and ends a moment later, with 0.
	coreDies := func() {
		h.script("/sim/script", `{"crash":"engine"}`)
		<-time.After(300 * time.Millisecond)
		h.script("/sim/exit?code=0", "")
	}
	for _, c := range []struct {
		name string
		die  func()
		exit supervisor.Exit // Code and Signal
		says string          // what the client reads at the end; "": the connection is cut
	}{
		{"exit 0", exit("0"), supervisor.Exit{Code: 0}, ""},
		{"exit 1", exit("1"), supervisor.Exit{Code: 1}, ""},
		{"exit 137", exit("137"), supervisor.Exit{Code: 137}, ""},
		{"SIGSEGV of the main process", signal(syscall.SIGSEGV), supervisor.Exit{Code: -1, Signal: "segmentation fault"}, ""},
		{"SIGKILL of the main process", signal(syscall.SIGKILL), supervisor.Exit{Code: -1, Signal: "killed"}, ""},
		{"death of the engine core", coreDies, supervisor.Exit{Code: 0}, `"error"`},
	} {
		t.Run(c.name, func(t *testing.T) { h.in(t).dies(c.die, c.exit, c.says) })
	}
	if got := h.stop(); got != 0 {
		t.Errorf("exit code: got %d, want 0", got)
	}
}

// dies lets the engine die in a stream and looks at all that follows.
func (h *host) dies(die func(), want supervisor.Exit, says string) {
	h.t.Helper()
	h.fault("slow") // the next one loads for some seconds
	stream := h.chat(aStream)
	if stream.status != http.StatusOK {
		h.t.Fatalf("stream: status %d", stream.status)
	}
	var seen bytes.Buffer
	if _, err := io.CopyN(&seen, stream.body, 4096); err != nil {
		h.t.Fatal(err)
	}
	before := h.Child("vllm")
	began := time.Now()
	die()
	_, err := io.Copy(&seen, stream.body)
	end := seen.Bytes()[max(0, seen.Len()-200):]
	switch {
	case says == "" && err == nil:
		h.t.Errorf("the client sees a clean end: %s", end)
	case says != "" && !bytes.Contains(seen.Bytes(), []byte(says)):
		h.t.Errorf("the client sees no %s but %v: %s", says, err, end)
	}

	h.refusesUntilRestarted(began, before)
	after := h.Child("vllm")
	if got := *after.LastExit; got.Code != want.Code || got.Signal != want.Signal || got.Left != 0 {
		h.t.Errorf("exit: got %+v, want %+v", got, want)
	}
	if after.Restarts != before.Restarts+1 {
		h.t.Errorf("restarts: got %d, want %d", after.Restarts, before.Restarts+1)
	}
	h.recorded(stream.header.Get("x-request-id"), lastCount(seen.Bytes()))
	<-time.After(time.Until(after.Since.Add(1100 * time.Millisecond))) // the crash is forgotten
}

// recorded checks the record of a stream whose client last saw a count. What was
// on its way when the connection went may be lost to the client, at 50 tokens a
// second.
func (h *host) recorded(id string, seen int64) {
	h.t.Helper()
	rec := h.record(id)
	if rec.Reason != ledger.UpstreamError && rec.Reason != ledger.UpstreamAbort {
		h.t.Errorf("end reason: got %s", rec.Reason)
	}
	if seen < 5 || rec.Counts.Completion < seen || rec.Counts.Completion > seen+25 {
		h.t.Errorf("completion tokens: recorded %d, the client saw %d", rec.Counts.Completion, seen)
	}
}

// refusesUntilRestarted asks again and again until a new engine answers.
func (h *host) refusesUntilRestarted(began time.Time, before supervisor.Status) {
	h.t.Helper()
	var started, unavailable, down bool
	refused := 0
	stack.Eventually(h.t, 60*time.Second, "an answer from another engine", func() bool {
		if st := h.Child("vllm"); st.State == supervisor.Starting && st.PID != before.PID && !started {
			started = true
			ended, again := st.LastExit.At.Sub(began), st.Since.Sub(st.LastExit.At)
			if ended > 3*time.Second || again > time.Second {
				h.t.Errorf("the death was noticed after %v and the next engine started %v later, want 1 s at most", ended, again)
			}
			h.t.Logf("noticed after %v, the next one started %v later", ended, again)
		}
		unavailable = unavailable || h.health() == http.StatusServiceUnavailable
		down = down || h.engineUp() == "0"
		served := h.served()
		if !served {
			refused++
		}
		return served
	})
	if !started || !unavailable || !down || refused == 0 {
		h.t.Errorf("in the meantime: a start was seen %v, /health was 503 %v, tollgate_engine_up was 0 %v, %d requests were refused",
			started, unavailable, down, refused)
	}
	stack.Eventually(h.t, 10*time.Second, "/health and tollgate_engine_up to be well again", func() bool {
		return h.health() == http.StatusOK && h.engineUp() == "1"
	})
}

// served says whether a request is answered; if not, it must be a 503 that says
// when to come again.
func (h *host) served() bool {
	h.t.Helper()
	a := h.chat(`{"model":"tiny","max_tokens":3,"messages":[{"role":"user","content":"hi"}]}`)
	body, _ := io.ReadAll(a.body)
	switch {
	case a.status == http.StatusOK:
		return true
	case a.status != http.StatusServiceUnavailable:
		h.t.Errorf("without an engine: status %d, %.200s", a.status, body)
	case a.header.Get("retry-after") == "":
		h.t.Errorf("a 503 without retry-after: %.200s", body)
	}
	return false
}

// lastCount is the last completion_tokens in a stream.
func lastCount(stream []byte) (n int64) {
	for line := range strings.Lines(string(stream)) {
		data, ok := strings.CutPrefix(line, "data: {")
		if !ok {
			continue
		}
		var chunk struct {
			Usage *struct {
				Completion int64 `json:"completion_tokens"`
			}
		}
		if json.Unmarshal([]byte("{"+data), &chunk) == nil && chunk.Usage != nil {
			n = chunk.Usage.Completion
		}
	}
	return n
}
