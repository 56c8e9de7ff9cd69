// Package traces_test looks at the spans of requests as a real OpenTelemetry collector
// receives them: whose children they are, whose parents, and whether they say what the
// ledger says, whatever becomes of the client, of tollgate or of the collector.
package traces_test

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/e2e/stack"
	"tollgate/internal/config"
	"tollgate/internal/ledger"
	"tollgate/internal/trace"
	"tollgate/internal/vllmsim"
)

func TestMain(m *testing.M) {
	m.Run() // its status becomes the program's
	stack.Clean()
}

const (
	clientTrace = "0af7651916cd43dd8448eb211c80319c"
	clientSpan  = "b7ad6b7169203331"
	traceparent = "00-" + clientTrace + "-" + clientSpan + "-01"
)

// engine is a simulator that remembers the headers of requests.
type engine struct {
	*vllmsim.Sim
	addr string

	mu   sync.Mutex
	seen map[string]http.Header // by request id
}

func startEngine(t *testing.T) *engine {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{Sim: vllmsim.New(vllmsim.Options{Models: []string{"tiny"}, TokenDetails: true}), addr: lis.Addr().String(), seen: map[string]http.Header{}}
	srv := &http.Server{Handler: e, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(lis) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return e
}

func (e *engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		e.mu.Lock()
		e.seen[r.Header.Get("X-Request-Id")] = r.Header.Clone()
		e.mu.Unlock()
	}
	e.Sim.ServeHTTP(w, r)
}

// told are the headers of a name that the engine got with a request.
func (e *engine) told(requestID, name string) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seen[requestID].Values(name)
}

// rig is a gateway with an engine and a collector.
type rig struct {
	*stack.Stack
	t         *testing.T
	engine    *engine
	collector *stack.Collector
}

// hosts runs a test on each host of the meter.
func hosts(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	for _, host := range []string{config.MeterExtProc, config.MeterModule} {
		t.Run(host, func(t *testing.T) {
			if host == config.MeterModule {
				stack.NeedModule(t)
			}
			t.Setenv("E2E_METER", host)
			test(t)
		})
	}
}

// start starts a rig. more is YAML beside the section otel, otel what is in that beside
// the endpoint.
func start(t *testing.T, otel, more string) *rig {
	t.Helper()
	dir := t.TempDir()
	c := stack.StartCollector(t, dir)
	endpoint := c.GRPC
	if strings.Contains(otel, "protocol: http") {
		endpoint = c.HTTP
	}
	return behind(t, dir, c, endpoint, otel, more)
}

// behind starts a rig whose spans go to an endpoint.
func behind(t *testing.T, dir string, c *stack.Collector, endpoint, otel, more string) *rig {
	t.Helper()
	e := startEngine(t)
	s := stack.Start(t, stack.Options{Engine: e.addr, Dir: dir, Config: fmt.Sprintf("otel: {endpoint: %q%s}\n%s", endpoint, otel, more)})
	return &rig{s, t, e, c}
}

// span waits for the span of a request.
func (r *rig) span(requestID string) stack.Span {
	r.t.Helper()
	return r.collector.Find("the span of "+requestID, func(s *stack.Span) bool { return s.Attributes["tollgate.request.id"] == requestID })
}

// agrees holds a span to the ledger, and the row's column to the span.
func (r *rig) agrees(span stack.Span, rec ledger.Record) {
	r.t.Helper()
	got := map[string]any{}
	want := map[string]any{
		"gen_ai.usage.input_tokens": rec.Counts.Prompt, "gen_ai.usage.output_tokens": rec.Counts.Completion,
		"gen_ai.response.model": rec.Model, "gen_ai.request.model": rec.RequestedModel, "tollgate.lease.id": rec.LeaseID,
		"tollgate.key.id": rec.KeyID, "tollgate.engine": rec.Engine, "tollgate.end_reason": string(rec.Reason), "tollgate.quality": string(rec.Quality),
	}
	for name := range want {
		got[name] = span.Attributes[name]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		r.t.Errorf("ledger and span:\n%s", diff)
	}
	if !span.Begin.Equal(rec.StartedAt) && span.Begin.Sub(rec.StartedAt).Abs() > time.Microsecond || span.End.Sub(rec.EndedAt).Abs() > time.Microsecond {
		r.t.Errorf("the span is from %v to %v, the row from %v to %v", span.Begin, span.End, rec.StartedAt, rec.EndedAt)
	}
	if want := strings.TrimSuffix(span.Trace+"-"+span.ID+"-"+span.Parent, "-"); rec.Trace != want {
		r.t.Errorf("the row has %q, want %q", rec.Trace, want)
	}
}

// once checks that a request has one span.
func (r *rig) once(requestID string) {
	r.t.Helper()
	n := 0
	for _, s := range r.collector.Spans() {
		if s.Attributes["tollgate.request.id"] == requestID {
			n++
		}
	}
	if n != 1 {
		r.t.Errorf("%d spans of one request", n)
	}
}

// passedOn checks that the engine was told of the span, once.
func (r *rig) passedOn(span stack.Span, requestID string) {
	r.t.Helper()
	told := r.engine.told(requestID, trace.Header)
	if len(told) != 1 || !strings.HasPrefix(told[0], "00-"+span.Trace+"-"+span.ID+"-") {
		r.t.Errorf("the engine was told %q, the span is %s-%s", told, span.Trace, span.ID)
	}
}
