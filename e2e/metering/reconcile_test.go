package metering_test

import (
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// TestTheLedgerAgreesWithTheEngine compares with vLLM's own counters, as
// `tollgate ledger reconcile` does.
func TestTheLedgerAgreesWithTheEngine(t *testing.T) {
	t.Parallel() // it waits for the service's own pace most of the time
	s := stack.Start(t, stack.Options{})
	reconcile := func(want int, says string, args ...string) {
		t.Helper()
		code, out, errs := s.Command(append([]string{"ledger", "reconcile"}, args...)...)
		if code != want || !strings.Contains(out+errs, says) {
			t.Errorf("reconcile %v: exit %d, want %d with %q:\n%s%s", args, code, want, says, out, errs)
		}
	}
	const msgs = `"messages":[{"role":"user","content":"hello there"}]`
	reconcile(0, "equal")
	for _, c := range []struct{ path, body string }{
		{"/v1/chat/completions", `{"model":"tiny","max_tokens":7,` + msgs + `}`},
		{"/v1/chat/completions", `{"model":"tiny","n":3,"temperature":0.5,"stream":true,"max_tokens":7,` + msgs + `}`},
		{"/v1/completions", `{"model":"tiny","n":2,"temperature":0.5,"max_tokens":5,"prompt":["a","b c","d e f"]}`},
		{"/v1/completions", `{"model":"tiny","stream":true,"max_tokens":5,"prompt":[[1,2,3],[4]]}`},
		{"/v1/responses", `{"model":"tiny","max_output_tokens":5,"input":"hi"}`},
		{"/v1/messages", `{"model":"tiny","stream":true,"max_tokens":5,` + msgs + `}`},
		{"/v1/embeddings", `{"model":"tiny","input":["a b","c"]}`},
		{"/v1/score", `{"model":"tiny","text_1":"a b","text_2":["c","d"]}`},
		{"/tokenize", `{"model":"tiny","prompt":"a b c"}`},
		{"/v1/chat/completions", `{"model":"tiny","max_tokens":-1,` + msgs + `}`},
		{"/v1/chat/completions", `{"model":"tiny",` + msgs + `,"sim":{"error_status":400}}`},
	} {
		s.Post(c.path, c.body)
	}
	reconcile(0, "equal")

	// A cut request: the engine may be ahead, never behind.
	s.Post("/v1/chat/completions", `{"model":"tiny","stream":true,"max_tokens":40,`+msgs+`,"sim":{"cut_after":9,"delay_ms":5,"run_ahead":30}}`)
	reconcile(0, "cut requests")
	stack.Eventually(t, 25*time.Second, "the drift to be looked at", func() bool { return s.Metric("tollgate_engine_token_drift", "type", "output") >= 1 })

	alertsNameMetrics(t, s)

	// A window of its own.
	reconcile(0, "equal", "--window", "300ms")

	// Work that went around the gateway.
	direct := "http://" + s.Cfg.EngineAddresses()[0] + "/v1/chat/completions"
	go func() {
		time.Sleep(100 * time.Millisecond)
		resp, err := http.Post(direct, "application/json", strings.NewReader(`{"model":"tiny","max_tokens":50,`+msgs+`}`))
		if err == nil {
			_ = resp.Body.Close()
		}
	}()
	reconcile(1, "in no record", "--window", "1s")
	reconcile(0, "", "--allowed", "1000")
	reconcile(2, "negative", "--allowed=-1")

	// The engine restarts: its counters are lost, and the service begins anew.
	s.Sim.Reset()
	reconcile(1, "has restarted")
	stack.Eventually(t, 25*time.Second, "the service to notice", func() bool {
		code, out, _ := s.Command("ledger", "reconcile")
		return code == 0 && strings.Contains(out, "equal")
	})
	s.Post("/v1/chat/completions", `{"model":"tiny","max_tokens":7,`+msgs+`}`)
	reconcile(0, "equal")
	if got := s.Metric("tollgate_engine_token_drift"); got < 0 {
		t.Errorf("drift %v: the ledger is above the engine", got)
	}

	// The service restarts.
	s.Tollgate.Kill()
	s.Tollgate.Start()
	s.Ready()
	s.Post("/v1/chat/completions", `{"model":"tiny","max_tokens":9,`+msgs+`}`)
	reconcile(0, "equal")
}

// alertsNameMetrics: an alert on a metric that does not exist never fires.
func alertsNameMetrics(t *testing.T, s *stack.Stack) {
	t.Helper()
	rules, err := os.ReadFile("../../deploy/prometheus/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(s.Scrape + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`\b(tollgate|token|http)_[a-z_]+`).FindAllString(string(rules), -1)
	if len(names) < 4 {
		t.Errorf("the rules name only %v", names)
	}
	// Only where there is a central ledger, a port for other hosts or a collector of traces;
	// their own packages test them by name.
	elsewhere := regexp.MustCompile(`^tollgate_(outbox_|central_|keys_copy_|service_tls_|spans_total$)`)
	for _, name := range names {
		if !elsewhere.MatchString(name) && !strings.Contains(string(page), "\n"+name) {
			t.Errorf("the rules name %s, which is not on the scrape page", name)
		}
	}
}
