package fleet_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
	"tollgate/internal/vllmsim"
)

// TestEachRequestReachesAnEngineOfItsModel: none is refused, none is at an engine that
// does not serve its model, and the ledger equals each engine's counters.
func TestEachRequestReachesAnEngineOfItsModel(t *testing.T) {
	a, b, c, s := three(t, "")
	before := len(s.Records())
	models := []string{"m1", "m2", "m3", "legal"}
	var refused atomic.Int64
	n := scale(1000, 10000)
	crowd(n, 16, func(i int) {
		// Other words each time: what an engine has in its cache stays with it.
		body := strings.Replace(chat(models[i%len(models)], i%3 == 0, 3, ""), "count for me", fmt.Sprint(i, " things to count"), 1)
		got := s.Post(stack.ChatPath, body)
		if got.StatusCode != http.StatusOK {
			refused.Add(1)
			t.Logf("%s: %d %s", models[i%len(models)], got.StatusCode, got.Bytes)
		}
	})
	if refused.Load() != 0 {
		t.Errorf("%d of %d refused", refused.Load(), n)
	}
	for path, body := range map[string]string{
		"/tokenize": `{"model":"m2","prompt":"one two"}`, "/v1/messages/count_tokens": `{"model":"m3","messages":[{"role":"user","content":"one"}]}`,
		"/v1/embeddings": `{"model":"m2","input":"one"}`,
	} {
		for range 5 {
			if got := s.Post(path, body); got.StatusCode != http.StatusOK {
				t.Errorf("%s: %d %s", path, got.StatusCode, got.Bytes)
			}
		}
		n += 5
	}
	s.Idle(wait)
	serves := map[string]map[string]bool{
		a.Addr: {"m1": true}, b.Addr: {"m1": true, "m2": true}, c.Addr: {"m3": true, "legal": true},
	}
	records := s.Records()
	if len(records)-before != n {
		t.Errorf("%d rows for %d requests", len(records)-before, n)
	}
	prompt, output := map[string]int64{}, map[string]int64{}
	per := map[string]int{}
	for id, r := range records {
		if !serves[r.Engine][r.Model] {
			t.Errorf("request %s for %s was served by %s", id, r.Model, r.Engine)
		}
		prompt[r.Engine] += r.Counts.Prompt
		output[r.Engine] += r.Counts.Completion
		per[r.Engine+" "+r.Model]++
	}
	for _, e := range []*stack.Engine{a, b, c} {
		if got := e.Sim.Stats(); got.PromptTokens != prompt[e.Addr] || got.GenerationTokens != output[e.Addr] {
			t.Errorf("%s counted %d and %d tokens, the ledger has %d and %d", e.Addr, got.PromptTokens, got.GenerationTokens, prompt[e.Addr], output[e.Addr])
		}
	}
	if per[a.Addr+" m1"] == 0 || per[b.Addr+" m1"] == 0 {
		t.Errorf("m1 was not shared by its engines: %v", per)
	}
}

// live is one stream of the test below.
type live struct {
	id     string
	cut    bool
	finish bool
}

// TestEnginesComeAndGoUnderStreams: while streams run engines are added, drained,
// removed and killed, and tollgate is restarted. Only streams of the killed engine are
// cut, and requests that begin meanwhile are answered.
func TestEnginesComeAndGoUnderStreams(t *testing.T) {
	for range scale(1, 5) {
		comeAndGo(t)
	}
}

// outWithin is how soon a killed engine is out of the choice.
const outWithin = 3 * time.Second

func comeAndGo(t *testing.T) {
	t.Helper()
	a := stack.NewEngine(t, vllmsim.Options{Models: []string{"m1"}})
	b := stack.NewEngine(t, vllmsim.Options{Models: []string{"m1"}})
	d := stack.NewEngine(t, vllmsim.Options{Models: []string{"m1"}})
	s := stack.Start(t, stack.Options{Engine: a.Addr, Config: fmt.Sprintf("engines: [%q]\n", b.Addr)})
	add(t, s, d.Addr)
	stack.Eventually(t, wait, "three engines", func() bool { return up(s, a.Addr) && up(s, b.Addr) && up(s, d.Addr) })

	streams, done := open(s, 200)
	e := stack.NewEngine(t, vllmsim.Options{Models: []string{"m1", "m9"}})
	add(t, s, e.Addr)
	served(t, s, "m9")
	if got := s.Admin(http.MethodDelete, "/admin/engines/"+d.Addr, ""); got.StatusCode != http.StatusOK {
		t.Errorf("drain: %d %s", got.StatusCode, got.Bytes)
	}
	before := d.Sim.Stats().Requests
	b.Stop()
	killed, out := time.Now(), time.Duration(0)
	var gone sync.WaitGroup
	gone.Go(func() {
		stack.Eventually(t, wait, "the killed engine to be out", func() bool { return s.Metric("tollgate_engine_up", "engine", b.Addr) == 0 })
		out = time.Since(killed)
	})
	var failed atomic.Int64
	crowd(100, 8, func(int) {
		if got := ask(s, "m1"); got.StatusCode != http.StatusOK {
			failed.Add(1)
			t.Logf("while an engine is dead: %d %s", got.StatusCode, got.Bytes)
		}
	})
	gone.Wait()
	if failed.Load() != 0 {
		t.Errorf("%d of 100 requests failed", failed.Load())
	}
	if after := d.Sim.Stats().Requests; after != before {
		t.Errorf("a draining engine got %d requests", after-before)
	}
	restart(s)
	done.Wait()
	s.Idle(wait)
	judge(t, s, streams, b.Addr)
	stack.Eventually(t, wait, "the drained engine to be gone", func() bool {
		return !strings.Contains(string(s.Admin(http.MethodGet, "/admin/engines", "").Bytes), d.Addr)
	})
	t.Logf("the killed engine was out after %s", out)
	if out > outWithin {
		t.Errorf("the killed engine was out after %s", out)
	}
}

// open begins so many streams of twelve seconds, and returns when each has begun.
func open(s *stack.Stack, n int) (streams []live, done *sync.WaitGroup) {
	streams, done = make([]live, n), &sync.WaitGroup{}
	begun := make(chan struct{}, n)
	for i := range streams {
		done.Go(func() {
			got, _ := s.Open(s.HTTP1, stack.Key, chat("m1", true, 200, `"delay_ms":60`))
			begun <- struct{}{}
			streams[i].id = got.RequestID()
			body, err := io.ReadAll(got.Body)
			streams[i].cut = err != nil
			streams[i].finish = got.StatusCode == http.StatusOK && strings.Contains(string(body), "data: [DONE]")
		})
	}
	for range streams {
		<-begun
	}
	return streams, done
}

// restart stops tollgate and starts it again. With the meter inside Envoy streams go on
// without it; else it waits for them.
func restart(s *stack.Stack) {
	running := s.Metric("tollgate_leases_live")
	s.Tollgate.Signal(syscall.SIGTERM)
	s.Tollgate.Wait(30 * time.Second)
	s.Tollgate.Start()
	s.Ready()
	s.TB().Logf("tollgate was restarted under %v streams; metered inside Envoy: %v", running, s.Module)
}

// judge finds streams that were cut and did not run at the killed engine.
func judge(t *testing.T, s *stack.Stack, streams []live, killed string) {
	t.Helper()
	records := s.Records()
	by := map[string]int{}
	cut := 0
	for _, l := range streams {
		r, ok := records[l.id]
		if !ok {
			t.Errorf("stream %s has no record", l.id)
			continue
		}
		by[r.Engine]++
		switch {
		case r.Engine == killed:
			cut++
		case l.cut || !l.finish || r.Reason != ledger.Complete:
			t.Errorf("stream %s at %s was cut: %v, finished: %v, %s", l.id, r.Engine, l.cut, l.finish, r.Reason)
		}
	}
	if cut == 0 || len(by) < 3 {
		t.Errorf("streams by engine: %v; the test needs all three, the killed one too", by)
	}
}

// TestARequestFindsTheEngineThatAnswers: three engines of one model, two of which have
// just died and refuse the connection. The third answers; there is one row, and
// nothing stays reserved.
func TestARequestFindsTheEngineThatAnswers(t *testing.T) {
	a := stack.NewEngine(t, vllmsim.Options{Models: []string{"m1"}})
	b := stack.NewEngine(t, vllmsim.Options{Models: []string{"m1"}})
	c := stack.NewEngine(t, vllmsim.Options{Models: []string{"m1"}})
	s := stack.Start(t, stack.Options{Engine: a.Addr, Config: fmt.Sprintf("engines: [%q, %q]\n", b.Addr, c.Addr)})
	stack.Eventually(t, wait, "three engines", func() bool { return up(s, a.Addr) && up(s, b.Addr) && up(s, c.Addr) })
	a.Stop()
	b.Stop()
	admin := stack.AdminOf(t, s.Path("state/run/envoy-admin.sock"))
	const n = 20
	for range n {
		if got := ask(s, "m1"); got.StatusCode != http.StatusOK {
			t.Fatalf("%d %s", got.StatusCode, got.Bytes)
		}
	}
	if stats := admin("/stats?filter=^cluster.vllm.upstream_rq_retry$"); strings.HasSuffix(strings.TrimSpace(stats), ": 0") {
		t.Errorf("nothing was tried twice, so this test shows nothing: %s", stats)
	}
	s.Idle(wait)
	rows := 0
	for id, r := range s.Records() {
		rows++
		if r.Engine != c.Addr || r.Reason != ledger.Complete {
			t.Errorf("%s: at %s, %s", id, r.Engine, r.Reason)
		}
	}
	if got := c.Sim.Stats().Requests; rows != n || got != n {
		t.Errorf("%d rows and %d requests at the engine for %d requests", rows, got, n)
	}
}

// TestAnEngineThatWasAddedIsThereAfterARestartOfEverything, also when Envoy starts
// while tollgate is down.
func TestAnEngineThatWasAddedIsThereAfterARestartOfEverything(t *testing.T) {
	a := stack.NewEngine(t, vllmsim.Options{Models: []string{"m1"}})
	b := stack.NewEngine(t, vllmsim.Options{Models: []string{"m2"}})
	s := stack.Start(t, stack.Options{Engine: a.Addr})
	add(t, s, b.Addr)
	served(t, s, "m2")

	s.Envoy.Kill()
	s.Envoy.Start()
	s.Ready()
	took := served(t, s, "m2")
	t.Logf("Envoy restarted: m2 after %s", took)
	if took > outWithin { // a second, on a machine with nothing else to do
		t.Errorf("m2 was served %s after Envoy's start", took)
	}

	s.Tollgate.Signal(syscall.SIGTERM)
	s.Tollgate.Wait(wait)
	s.Envoy.Kill()
	s.Envoy.Start()
	stack.Eventually(t, wait, "Envoy to listen without tollgate", func() bool {
		resp, err := s.HTTP1.Get(s.URL + "/health")
		if err == nil {
			_ = resp.Body.Close()
		}
		return err == nil && resp.StatusCode == http.StatusServiceUnavailable
	})
	s.Tollgate.Start()
	s.Ready()
	t.Logf("tollgate started after Envoy: m2 after %s", served(t, s, "m2"))
	if got := ask(s, "m1"); got.StatusCode != http.StatusOK {
		t.Errorf("m1: %d %s", got.StatusCode, got.Bytes)
	}
}

// TestTollgateRestartsUnderEnvoy: Envoy keeps its engines.
func TestTollgateRestartsUnderEnvoy(t *testing.T) {
	_, b, _, s := three(t, "")
	for range 3 {
		s.Tollgate.Kill()
		s.Tollgate.Start()
		s.Ready()
		for _, model := range []string{"m1", "m2", "m3"} {
			served(t, s, model)
		}
	}
	// The model of an engine that dies is known, and degrades the gateway.
	b.Stop()
	stack.Eventually(t, wait, "m2 to be lost", func() bool { return ask(s, "m2").StatusCode == http.StatusServiceUnavailable })
	if got := ask(s, "m1"); got.StatusCode != http.StatusOK {
		t.Errorf("m1 without one of its engines: %d %s", got.StatusCode, got.Bytes)
	}
	stack.Eventually(t, wait, "the health to be degraded", func() bool {
		got := s.Do(s.HTTP1, http.MethodGet, "/health", "")
		return got.StatusCode == http.StatusOK && got.JSON()["status"] == "degraded"
	})
	if got := ask(s, "m77"); got.StatusCode != http.StatusNotFound {
		t.Errorf("a model that nobody has: %d %s", got.StatusCode, got.Bytes)
	}
	b.Start()
	served(t, s, "m2")
}

// TestTheCommandShowsAndChangesEngines runs tollgate engines beside a gateway.
func TestTheCommandShowsAndChangesEngines(t *testing.T) {
	a := stack.NewEngine(t, vllmsim.Options{Models: []string{"m1"}, MaxModelLen: 4096})
	b := stack.NewEngine(t, vllmsim.Options{Models: []string{"m1"}, MaxModelLen: 1024})
	s := stack.Start(t, stack.Options{Engine: a.Addr})
	if code, out, errs := s.Command("engines", "add", b.Addr, "--weight", "2"); code != 0 || !strings.Contains(out, "added") {
		t.Fatalf("%d %s %s", code, out, errs)
	}
	stack.Eventually(t, wait, "the engine to be ready", func() bool { return up(s, b.Addr) })
	code, out, errs := s.Command("engines", "list")
	if code != 0 || !strings.Contains(out, a.Addr) || !strings.Contains(out, b.Addr) || !strings.Contains(errs, "different context lengths") {
		t.Errorf("%d\n%s%s", code, out, errs)
	}
	if code, _, errs := s.Command("engines", "remove", a.Addr); code != 1 || !strings.Contains(errs, "of the configuration file names this engine") {
		t.Errorf("remove what the file names: %d %s", code, errs)
	}
	if code, out, errs := s.Command("engines", "remove", b.Addr); code != 0 {
		t.Errorf("%d %s %s", code, out, errs)
	}
	s.Tollgate.Signal(syscall.SIGTERM)
	s.Tollgate.Wait(wait)
	if code, _, errs := s.Command("engines"); code != 1 || !strings.Contains(errs, "no gateway runs here") {
		t.Errorf("without a gateway: %d %s", code, errs)
	}
}
