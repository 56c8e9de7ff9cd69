package traces_test

import (
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
)

// A span outlives the tollgate that began it: where the stream goes on while it is
// started again, and where the stream ends while it is away.
func TestASpanOutlivesTollgate(t *testing.T) {
	stack.NeedModule(t)
	t.Setenv("E2E_METER", "module")
	r := start(t, "", "")
	open := func(tokens int) *stack.Answer {
		a, _ := r.Open(r.HTTP1, stack.Key, stack.Chat(true, tokens, `"delay_ms":20`))
		if _, err := io.ReadFull(a.Body, make([]byte, 500)); err != nil {
			t.Fatal(err)
		}
		return a
	}
	short, long := open(40), open(200)
	r.Tollgate.Kill()
	time.Sleep(time.Second) // the engine is done with the short one, and nobody is there
	r.Tollgate.Start()
	for name, a := range map[string]*stack.Answer{"ended meanwhile": short, "goes on": long} {
		rest, err := io.ReadAll(a.Body)
		if err != nil || !strings.Contains(string(rest), "[DONE]") {
			t.Errorf("%s: %v after %q", name, err, rest)
		}
		rec := r.Settled(a.RequestID())
		span := r.span(a.RequestID())
		if rec.Reason != ledger.Complete || span.Failed != "" {
			t.Errorf("%s: row %v, span %+v", name, rec.Reason, span)
		}
		r.agrees(span, rec)
		r.passedOn(span, a.RequestID())
		r.once(a.RequestID())
	}
}

// A stream that dies with its tollgate has a span, which the next one sends.
func TestAStreamThatDiesWithTollgateHasASpan(t *testing.T) {
	t.Setenv("E2E_METER", "ext_proc")
	r := start(t, "", "")
	a, _ := r.Open(r.HTTP1, stack.Key, stack.Chat(true, 400, `"delay_ms":10`))
	if _, err := io.ReadFull(a.Body, make([]byte, 20000)); err != nil { // beyond the first checkpoint
		t.Fatal(err)
	}
	r.Tollgate.Kill()
	r.Tollgate.Start()
	rec := r.Settled(a.RequestID())
	span := r.span(a.RequestID())
	if rec.Reason != ledger.GatewayCrash || span.Failed != "gateway_crash" || rec.Counts.Completion == 0 {
		t.Errorf("row %+v, span %+v", rec, span)
	}
	r.agrees(span, rec)
	r.passedOn(span, a.RequestID())
	time.Sleep(3 * time.Second) // Envoy's log entry has come meanwhile
	r.once(a.RequestID())
}

// Whatever the collector does, no request fails or waits for it.
func TestNoRequestNeedsTheCollector(t *testing.T) {
	const n = 60
	ask := func(r *rig) (slowest time.Duration) {
		t.Helper()
		var mu sync.Mutex
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				for range n / 4 {
					began := time.Now()
					a := r.Post(stack.ChatPath, stack.Chat(true, 5, ""))
					took := time.Since(began)
					mu.Lock()
					slowest = max(slowest, took)
					mu.Unlock()
					if a.StatusCode != http.StatusOK || !strings.Contains(string(a.Bytes), "[DONE]") {
						t.Errorf("status %d: %s", a.StatusCode, a.Bytes)
					}
				}
			})
		}
		group.Wait()
		return slowest
	}
	t.Run("hung", func(t *testing.T) {
		lis, err := net.Listen("tcp", "127.0.0.1:0") // accepts and never answers
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = lis.Close() }()
		r := behind(t, t.TempDir(), nil, lis.Addr().String(), "", "")
		t.Logf("%d requests, the slowest took %v", n, ask(r))
	})
	t.Run("away and back", func(t *testing.T) {
		dir := t.TempDir()
		c := stack.NewCollector(t, dir)
		r := behind(t, dir, c, c.GRPC, "", "")
		t.Logf("%d requests, the slowest took %v", n, ask(r))
		stack.Eventually(t, 30*time.Second, "spans to be lost", func() bool { return r.Metric("tollgate_spans_total", "outcome", "failed") > 0 })
		log, err := os.ReadFile(r.Path("logs/gateway.log"))
		if lines := strings.Count(string(log), "the trace collector does not take spans"); lines != 1 {
			t.Errorf("%d lines in the log, %v", lines, err)
		}
		c.Start()
		a := r.Post(stack.ChatPath, stack.Chat(true, 5, ""))
		r.span(a.RequestID())
		c.Kill()
		ask(r)
	})
}
