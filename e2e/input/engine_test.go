package input_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
	"tollgate/internal/vllmsim"
)

var engineDown = stack.Problem{Status: 503, Type: "server_error", Code: "engine_unavailable"}

// serveEngine answers on an address until the returned function is called.
func serveEngine(t *testing.T, address string) (stop func()) {
	t.Helper()
	lis, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = vllmsim.New(vllmsim.Options{Models: []string{"tiny"}}).Serve(ctx, lis)
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func TestAnEngineThatIsDown(t *testing.T) {
	address := "127.0.0.1:" + itoa(stack.FreePort(t))
	s := stack.Start(t, stack.Options{Engine: address, NoStart: true, Config: "rate_limit: {requests_per_minute: 1000, tokens_per_minute: 100000}"})
	s.Tollgate.Start()
	s.Envoy.Start()
	stack.Eventually(t, 20*time.Second, "the edge to answer", func() bool {
		resp, err := s.HTTP1.Get(s.URL + "/health")
		if err != nil {
			return false
		}
		defer func() { _ = resp.Body.Close() }()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode == http.StatusServiceUnavailable && strings.Contains(string(body), `"unavailable"`)
	})
	refused := func(when string) {
		for path, body := range map[string]string{stack.ChatPath: hello, "/v1/embeddings": `{"model":"tiny","input":"x"}`, "/tokenize": `{"model":"tiny","prompt":"x"}`} {
			a := s.Post(path, body)
			if a.StatusCode == http.StatusServiceUnavailable && a.Header.Get("Retry-After") == "" {
				t.Errorf("%s: no retry-after on %s", when, path)
			}
			stack.WantProblem(t, a, engineDown)
		}
		wantAnthropic(t, s.Post("/v1/messages", `{"model":"tiny","max_tokens":3,"messages":[{"role":"user","content":"hi"}]}`), 503, "overloaded_error")
	}
	up := func(when string) {
		began := time.Now()
		stack.Eventually(t, 3*time.Second, "the engine to be used "+when, func() bool {
			a := s.Post(stack.ChatPath, hello)
			return a.StatusCode == http.StatusOK && a.Err == nil
		})
		t.Logf("%s: recovered in %v", when, time.Since(began))
	}
	refused("before its start")
	stop := serveEngine(t, address)
	up("after its start")
	stop()
	for range 20 { // from the first moment on
		stack.WantProblem(t, s.Post(stack.ChatPath, hello), engineDown)
	}
	stack.Eventually(t, 5*time.Second, "health to know", func() bool { return s.Do(s.HTTP1, "GET", "/health", "").StatusCode == http.StatusServiceUnavailable })
	refused("after its end")
	serveEngine(t, address)
	up("after its return")
	s.Idle(2 * time.Second)
	if got := s.Metric("tollgate_witness_disagreements_total"); got != 0 {
		t.Errorf("the witnesses disagreed %v times", got)
	}
}

func TestASilentEngine(t *testing.T) {
	s := stack.Start(t, stack.Options{Config: "request: {idle_timeout: 1s}"})
	timeout := stack.Problem{Status: 504, Type: "server_error", Code: "timeout"}
	t.Run("before headers", func(t *testing.T) {
		for _, stream := range []bool{false, true} {
			a := s.Post(stack.ChatPath, stack.Chat(stream, 5, `"hang":true`))
			stack.WantProblem(t, a, timeout)
			rec := s.RecordWhen(a.RequestID(), "named", func(r ledger.Record) bool { return !r.Open() && r.Reason != ledger.Aborted })
			if rec.Reason != ledger.Timeout || rec.Counts.Completion != 0 || rec.Status != http.StatusGatewayTimeout {
				t.Errorf("record: %s, %d tokens, status %d; want timeout, 0, 504", rec.Reason, rec.Counts.Completion, rec.Status)
			}
		}
		wantAnthropic(t, s.Post("/v1/messages", `{"model":"tiny","max_tokens":3,"messages":[{"role":"user","content":"hi"}],"sim":{"hang":true}}`), 504, "timeout_error")
	})
	t.Run("in a stream", func(t *testing.T) {
		a := s.Post(stack.ChatPath, stack.Chat(true, 20, `"pause_after":3`))
		if a.StatusCode != http.StatusOK || a.Err == nil || strings.Contains(string(a.Bytes), "[DONE]") {
			t.Errorf("got %d, %v, want a 200 that is cut", a.StatusCode, a.Err)
		}
		rec := s.RecordWhen(a.RequestID(), "named", func(r ledger.Record) bool { return !r.Open() && r.Reason != ledger.Aborted })
		if rec.Reason != ledger.Timeout || rec.Counts.Completion != 3 || rec.Quality != ledger.Exact {
			t.Errorf("record: %s %s with %d tokens; want timeout exact 3", rec.Reason, rec.Quality, rec.Counts.Completion)
		}
	})
	s.Idle(2 * time.Second)
}
