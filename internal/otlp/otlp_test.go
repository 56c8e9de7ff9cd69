package otlp_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/otel/attribute"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // the sender compresses
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"tollgate/internal/otlp"
	"tollgate/internal/trace"
)

// collector takes spans over gRPC.
type collector struct {
	collectorpb.UnimplementedTraceServiceServer
	hang chan struct{} // closed: it answers

	mu      sync.Mutex
	batches []*collectorpb.ExportTraceServiceRequest
	auth    []string
}

func (c *collector) Export(ctx context.Context, r *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	if c.hang != nil {
		select {
		case <-c.hang:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	md, _ := metadata.FromIncomingContext(ctx)
	c.take(r, strings.Join(md["authorization"], ","))
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

func (c *collector) take(r *collectorpb.ExportTraceServiceRequest, auth string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.batches, c.auth = append(c.batches, r), append(c.auth, auth)
}

// spans are all that came.
func (c *collector) spans() (all []*tracepb.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.batches {
		for _, r := range b.GetResourceSpans() {
			for _, s := range r.GetScopeSpans() {
				all = append(all, s.GetSpans()...)
			}
		}
	}
	return all
}

// serve starts a collector on an address, "" for a free one.
func (c *collector) serve(t *testing.T, address string) (*url.URL, func()) {
	t.Helper()
	if address == "" {
		address = "127.0.0.1:0"
	}
	lis, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(s, c)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(lis) }()
	stop := func() { s.Stop(); <-done }
	t.Cleanup(stop)
	return &url.URL{Scheme: "http", Host: lis.Addr().String()}, stop
}

// ServeHTTP takes spans over HTTP.
func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	packed, err := gzip.NewReader(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	body, err := io.ReadAll(packed)
	batch := new(collectorpb.ExportTraceServiceRequest)
	if err != nil || proto.Unmarshal(body, batch) != nil || r.URL.Path != "/v1/traces" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.take(batch, r.Header.Get("authorization"))
}

// logged is a log that a test reads.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func sender(t *testing.T, o otlp.Options) (*otlp.Sender, *prometheus.Registry, *logged) {
	t.Helper()
	reg, out := prometheus.NewRegistry(), new(logged)
	o.Reg, o.Log, o.Version = reg, hclog.New(&hclog.LoggerOptions{Output: out}), "v1"
	s, err := otlp.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s, reg, out
}

func span(t *testing.T) otlp.Span {
	t.Helper()
	id, _ := trace.NewSampler(1).Begin([]string{"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
	begin := time.Unix(1_700_000_000, 5).UTC()
	return otlp.Span{Span: id, Name: "chat tiny", Begin: begin, End: begin.Add(time.Second), Failed: "client_abort", Attributes: []attribute.KeyValue{attribute.Int64("gen_ai.usage.output_tokens", 7)}}
}

func TestASpanArrivesAsItWasSent(t *testing.T) { //nolint:gocyclo // one story, told step by step
	headers := filepath.Join(t.TempDir(), "headers")
	if err := os.WriteFile(headers, []byte("authorization: Bearer hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, overHTTP := range []bool{false, true} {
		c := new(collector)
		target, _ := c.serve(t, "")
		if overHTTP {
			server := httptest.NewServer(c)
			t.Cleanup(server.Close)
			target = &url.URL{Scheme: "http", Host: server.Listener.Addr().String(), Path: "/v1/traces"}
		}
		s, reg, out := sender(t, otlp.Options{Target: target, HTTP: overHTTP, HeadersFile: headers})
		in := span(t)
		s.Send(in)
		root, _ := trace.NewSampler(1).Begin(nil)
		s.Send(otlp.Span{Span: root, Name: "chat", Begin: in.Begin, End: in.End})
		s.Close(t.Context())
		got := c.spans()
		if len(got) != 2 {
			t.Fatalf("over HTTP %v: %d spans, want 2\n%s", overHTTP, len(got), out)
		}
		first, second := got[0], got[1]
		if string(first.GetTraceId()) != string(in.Trace[:]) || string(first.GetSpanId()) != string(in.ID[:]) || string(first.GetParentSpanId()) != string(in.Parent[:]) {
			t.Errorf("identity: %v", first)
		}
		if first.GetName() != in.Name || first.GetStartTimeUnixNano() != uint64(in.Begin.UnixNano()) || first.GetEndTimeUnixNano() != uint64(in.End.UnixNano()) ||
			first.GetStatus().GetMessage() != in.Failed || first.GetAttributes()[0].GetValue().GetIntValue() != 7 {
			t.Errorf("got %v", first)
		}
		if len(second.GetParentSpanId()) != 0 || string(second.GetTraceId()) != string(root.Trace[:]) {
			t.Errorf("a span that begins its trace: %v", second)
		}
		if c.auth[0] != "Bearer hush" {
			t.Errorf("authorization: %q", c.auth[0])
		}
		outcome(t, reg, "sent", 2)
	}
}

// outcome waits for a number of spans that ended so.
func outcome(t *testing.T, reg *prometheus.Registry, name string, atLeast float64) {
	t.Helper()
	read := func() float64 {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if m.GetLabel()[0].GetValue() == name {
					return m.GetCounter().GetValue()
				}
			}
		}
		return -1
	}
	for end := time.Now().Add(30 * time.Second); read() < atLeast; {
		if time.Now().After(end) {
			t.Fatalf("%s: %v, want at least %v", name, read(), atLeast)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestACollectorThatHangsCostsSpansAndOneLine(t *testing.T) {
	t.Parallel()
	c := &collector{hang: make(chan struct{})}
	target, _ := c.serve(t, "")
	s, reg, out := sender(t, otlp.Options{Target: target})
	const n, room = 6000, 4096
	began := time.Now()
	for range n {
		s.Send(span(t))
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("%v for %d spans: somebody waits", took, n)
	}
	outcome(t, reg, "dropped", n-room)
	if lines := strings.Count(out.String(), "\n"); lines != 1 || !strings.Contains(out.String(), "spans are dropped") {
		t.Errorf("the log has %d lines: %s", lines, out)
	}
	close(c.hang)
	outcome(t, reg, "sent", room)
	if !strings.Contains(out.String(), "takes spans again") {
		t.Errorf("the log does not tell of the end: %s", out)
	}
	s.Close(t.Context())
	if got := len(c.spans()); got != room {
		t.Errorf("%d spans came, want %d", got, room)
	}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(""), "none"); err != nil {
		t.Error(err)
	}
}

func TestACollectorThatIsAwayGetsSpansWhenItIsBack(t *testing.T) {
	t.Parallel()
	c := new(collector)
	target, stop := c.serve(t, "")
	stop()
	s, reg, _ := sender(t, otlp.Options{Target: target})
	defer s.Close(t.Context())
	s.Send(span(t))
	outcome(t, reg, "failed", 1)
	c.serve(t, target.Host)
	s.Send(span(t))
	outcome(t, reg, "sent", 1)
}

func TestAStopDoesNotWaitForACollectorThatHangs(t *testing.T) {
	t.Parallel()
	c := &collector{hang: make(chan struct{})}
	target, _ := c.serve(t, "")
	s, _, out := sender(t, otlp.Options{Target: target})
	s.Send(span(t))
	began := time.Now()
	s.Close(t.Context())
	if took := time.Since(began); took > 8*time.Second || !strings.Contains(out.String(), "not sent") {
		t.Errorf("took %v; the log: %s", took, out)
	}
}
