package reconcile_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"tollgate/internal/ledger"
	"tollgate/internal/reconcile"
	"tollgate/internal/usage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeEngine counts tokens as vLLM shows them.
type fakeEngine struct {
	*httptest.Server
	mu                 sync.Mutex
	prompt, generation int64
	looks              int
	page               string // in place of the counters
}

func newEngine(t *testing.T) *fakeEngine {
	t.Helper()
	e := &fakeEngine{}
	e.Server = httptest.NewServer(e)
	t.Cleanup(e.Close)
	return e
}

func (e *fakeEngine) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.looks++
	if e.page != "" {
		fmt.Fprint(w, e.page)
		return
	}
	half := e.generation / 2
	fmt.Fprintf(w, `# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="tiny"} %d.0
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="tiny"} %d.0
vllm:generation_tokens_total{engine="1",model_name="tiny"} %d.0
`, e.prompt, half, e.generation-half)
}

func (e *fakeEngine) set(prompt, generation int64) {
	e.mu.Lock()
	e.prompt, e.generation = prompt, generation
	e.mu.Unlock()
}

func (e *fakeEngine) address() string { return strings.TrimPrefix(e.URL, "http://") }

// looked waits for two more scrapes: one that began after now has ended.
func (e *fakeEngine) looked(t *testing.T) {
	t.Helper()
	e.mu.Lock()
	from := e.looks
	e.mu.Unlock()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		e.mu.Lock()
		n := e.looks
		e.mu.Unlock()
		if n >= from+3 {
			return
		}
	}
	t.Fatal("the engine was not looked at")
}

// book is a list of records in the order of their start.
type book struct {
	mu   sync.Mutex
	rows []ledger.Record
}

func (b *book) add(r ledger.Record) {
	b.mu.Lock()
	b.rows = append(b.rows, r)
	b.mu.Unlock()
}

func (b *book) Each(_ context.Context, f ledger.Filter, fn func(ledger.Record) error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.rows {
		if !f.Match(&r) {
			continue
		}
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

func row(engine string, started time.Time, n int, prompt, completion int64, reason ledger.EndReason, q ledger.Quality) ledger.Record {
	r := ledger.Record{Reason: reason, Quality: q, Counts: usage.Counts{Prompt: prompt, Completion: completion, Cached: -1, Reasoning: -1}, Status: 200}
	r.Engine, r.StartedAt, r.N = engine, started, n
	if reason != "" {
		r.EndedAt = started.Add(10 * time.Millisecond)
	}
	return r
}

func TestCompareCountsAsTheEngineDoes(t *testing.T) {
	e := newEngine(t)
	e.set(1000, 500)
	base, err := reconcile.Take(t.Context(), reconcile.Client(e.address()))
	if err != nil {
		t.Fatal(err)
	}
	http.DefaultClient.CloseIdleConnections()
	at := base.At.Add(time.Millisecond)
	b := &book{rows: []ledger.Record{
		row(e.address(), base.At.Add(-time.Hour), 1, 99, 99, ledger.Complete, ledger.Exact), // before
		row(e.address(), base.At.Add(-time.Millisecond), 1, 50, 60, ledger.Complete, ledger.Exact),
		row(e.address(), at, 3, 10, 30, ledger.Complete, ledger.Exact),
		row(e.address(), at, 1, 7, 3, ledger.ClientAbort, ledger.Exact),
		row(e.address(), at, 1, 8, 100, ledger.ClientAbort, ledger.Estimated),
		row(e.address(), at, 1, 5, 2, "", ""),
		row("10.9.9.9:1", at, 1, 5000, 5000, ledger.Complete, ledger.Exact), // another engine's
	}}
	e.set(1000+30+7+8+5, 500+30+9+40+4)
	got, restarted, err := reconcile.Compare(t.Context(), reconcile.Client(e.address()), b, base, false)
	http.DefaultClient.CloseIdleConnections()
	if err != nil || restarted {
		t.Fatal(restarted, err)
	}
	want := reconcile.Account{Counters: reconcile.Counters{Prompt: 42, Generation: 35}, Finished: 1, Cut: 1, Guessed: 1, Live: 1}
	if diff := cmp.Diff(want, got.Ledger); diff != "" {
		t.Errorf("ledger (-want +got):\n%s", diff)
	}
	if d := got.Drift(); d.Prompt != 8 || d.Generation != 48 || got.Straddling != 1 {
		t.Errorf("drift %+v, straddling %d", d, got.Straddling)
	}
	e.set(3, 2)
	if _, restarted, err = reconcile.Compare(t.Context(), reconcile.Client(e.address()), b, base, false); err != nil || !restarted {
		t.Errorf("counters that went back: restarted %v, %v", restarted, err)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestJudge(t *testing.T) {
	at := func(eng, led reconcile.Counters, cut int) reconcile.Comparison {
		return reconcile.Comparison{Growth: eng, Ledger: reconcile.Account{Counters: led, Cut: cut}}
	}
	ten := reconcile.Counters{Prompt: 10, Generation: 10}
	for name, c := range map[string]struct {
		cmp     reconcile.Comparison
		allowed int64
		ok      bool
		says    string
	}{
		"equal":                {at(ten, ten, 0), 0, true, "equal"},
		"ledger above":         {at(ten, reconcile.Counters{Prompt: 10, Generation: 11}, 5), 0, false, "ledger is 1 tokens above"},
		"ledger above, little": {at(ten, reconcile.Counters{Prompt: 11, Generation: 10}, 0), 1, true, "within 1"},
		"unknown work":         {at(reconcile.Counters{Prompt: 10, Generation: 17}, ten, 0), 0, false, "7 tokens that are in no record"},
		"unknown, allowed":     {at(reconcile.Counters{Prompt: 10, Generation: 17}, ten, 0), 7, true, "within 7"},
		"ahead of cut ones":    {at(reconcile.Counters{Prompt: 10, Generation: 17}, ten, 2), 0, true, "2 cut requests"},
	} {
		if verdict, ok := c.cmp.Judge(c.allowed); ok != c.ok || !strings.Contains(verdict, c.says) {
			t.Errorf("%s: got %q %v, want %q %v", name, verdict, ok, c.says, c.ok)
		}
	}
}

func TestTheWatcherShowsDriftAndBeginsAnewWithTheEngine(t *testing.T) {
	e := newEngine(t)
	e.set(100, 100)
	b := &book{}
	reg := prometheus.NewRegistry()
	path := filepath.Join(t.TempDir(), "reconcile.json")
	w := reconcile.NewWatcher(reconcile.Options{Engines: static(e.address()), Book: b, Path: path, Interval: 5 * time.Millisecond, Reg: reg})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	drift := func(input, output int) {
		t.Helper()
		e.looked(t)
		want := fmt.Sprintf("# HELP engine_token_drift Tokens that the engines counted beyond the ledger since the last restart of either: of cut requests it may be above 0, never below.\n# TYPE engine_token_drift gauge\nengine_token_drift{engine=%[1]q,model=\"tiny\",type=\"input\"} %[2]d\nengine_token_drift{engine=%[1]q,model=\"tiny\",type=\"output\"} %[3]d\n", e.address(), input, output)
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "engine_token_drift"); err != nil {
			t.Error(err)
		}
	}
	drift(0, 0)
	first, err := reconcile.Load(path)
	if err != nil || first[e.address()].Prompt != 100 {
		t.Fatalf("baselines: %+v %v", first, err)
	}
	e.set(120, 105)
	b.add(row("", time.Now(), 2, 10, 5, ledger.Complete, ledger.Exact))
	drift(0, 0)
	e.set(127, 110)
	b.add(row("", time.Now(), 1, 7, 3, ledger.ClientAbort, ledger.Exact))
	drift(0, 2)
	e.set(5, 1) // the engine has restarted
	drift(0, 0)
	if again, err := reconcile.Load(path); err != nil || again[e.address()].Prompt != 5 {
		t.Errorf("baselines after the restart: %+v %v", again, err)
	}
	e.set(12, 4)
	b.add(row("", time.Now(), 1, 7, 5, ledger.Complete, ledger.Exact))
	drift(0, -2)
}

// static are engines that stay.
func static(addresses ...string) func() []reconcile.Engine {
	var out []reconcile.Engine
	for _, a := range addresses {
		out = append(out, reconcile.Engine{Address: a, Model: "tiny"})
	}
	return func() []reconcile.Engine { return out }
}

// Of two engines one is ahead of the ledger by as much as the other is behind: each
// shows its own.
func TestDriftIsPerEngine(t *testing.T) {
	a, b := newEngine(t), newEngine(t)
	rows := &book{}
	reg := prometheus.NewRegistry()
	var mu sync.Mutex
	engines := static(a.address(), b.address())()
	w := reconcile.NewWatcher(reconcile.Options{Engines: func() []reconcile.Engine {
		mu.Lock()
		defer mu.Unlock()
		return engines
	}, Book: rows, Interval: 5 * time.Millisecond, Reg: reg})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	a.looked(t)
	b.looked(t)
	a.set(30, 40) // without a record
	rows.add(row(b.address(), time.Now(), 1, 30, 40, ledger.Complete, ledger.Exact))
	a.looked(t)
	b.looked(t)
	for name, want := range map[string]map[string]float64{
		"engine_token_drift":       {a.address() + " tiny output": 40, b.address() + " tiny output": -40, a.address() + " tiny input": 30, b.address() + " tiny input": -30},
		"engine_tokens_unrecorded": {a.address() + " tiny output": 40, b.address() + " tiny output": 0, a.address() + " tiny input": 30, b.address() + " tiny input": 0},
		"ledger_tokens_excess":     {a.address() + " tiny output": 0, b.address() + " tiny output": 40, a.address() + " tiny input": 0, b.address() + " tiny input": 30},
	} {
		if diff := cmp.Diff(want, values(t, reg, name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	mu.Lock()
	engines = engines[:1] // the other is gone, and so is what was said of it
	mu.Unlock()
	a.looked(t)
	a.looked(t)
	if got := values(t, reg, "engine_token_drift"); len(got) != 2 || got[a.address()+" tiny output"] != 40 {
		t.Errorf("after an engine has gone: %v", got)
	}
}

// values are a metric's, by its labels.
func values(t *testing.T, reg *prometheus.Registry, name string) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				var labels []string
				for _, l := range m.GetLabel() {
					labels = append(labels, l.GetValue())
				}
				out[strings.Join(labels, " ")] = m.GetGauge().GetValue()
			}
		}
	}
	return out
}
