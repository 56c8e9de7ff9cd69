package extproc_test

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/structpb"

	"tollgate/extproc"
	"tollgate/internal/admission"
	"tollgate/internal/apikey"
	"tollgate/internal/ledger"
	"tollgate/internal/limit"
	"tollgate/internal/openai"
	"tollgate/internal/rpc"
	"tollgate/internal/ticket"
)

type keys struct{ ring *apikey.Ring }

func (k keys) Current() *apikey.Ring { return k.ring }

type catalog struct{}

func (catalog) Model(name string) (int64, bool) { return 1024, name == "tiny" }
func (catalog) Names() []string                 { return []string{"tiny"} }
func (catalog) Ready() bool                     { return true }
func (catalog) Only() string                    { return "" }

// bench is the adapter on an in-memory wire, and the gate behind it.
type bench struct {
	t      *testing.T
	gate   *admission.Gate
	limits *limit.Memory
	book   *ledger.Book
	client extprocv3.ExternalProcessorClient
	bodies *extproc.Budget
	meters meters
}

func newBench(t *testing.T) *bench {
	t.Helper()
	return benchOf(t, `[{"key": "`+key+`", "id": "a", "user": "ann"}]`)
}

// benchOf is one with other keys.
func benchOf(t *testing.T, file string) *bench {
	t.Helper()
	ring, err := apikey.Parse("keys.json", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	b := &bench{t: t, limits: limit.NewMemory(), book: ledger.NewBook(), bodies: extproc.NewBudget(1<<20, 1<<20)}
	u := limit.Unlimited
	b.gate = admission.NewGate(admission.Options{
		Keys: keys{ring}, Limits: b.limits, Ledger: b.book, Catalog: catalog{}, Estimator: limit.NewEstimator(16),
		Metrics: admission.NewMetrics(reg, reg), Caps: limit.Caps{Global: u, Concurrent: u, Requests: 600, Tokens: u, Quota: u},
	})
	t.Cleanup(func() { _ = b.limits.Close() })
	b.serve(b.gate, reg)
	return b
}

// serve puts the adapter before what claims.
func (b *bench) serve(claim extproc.Claimer, reg prometheus.Registerer) {
	server := grpc.NewServer(rpc.ServerOptions()...)
	extproc.Register(server, extproc.NewServer(extproc.Options{
		Claim: claim, Limits: openai.Limits{MaxN: 4, MaxPrompts: 4}, Bodies: b.bodies, Meters: &b.meters,
		Metrics: extproc.NewMetrics(reg), Log: hclog.NewNullLogger(),
	}))
	lis := bufconn.Listen(1 << 20)
	go func() { _ = server.Serve(lis) }()
	conn, err := grpc.NewClient("passthrough:bufconn", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		b.t.Fatal(err)
	}
	b.client = extprocv3.NewExternalProcessorClient(conn)
	b.t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
	})
}

// stream is one HTTP request as Envoy tells of it.
type stream struct {
	*bench
	extprocv3.ExternalProcessor_ProcessClient
	lease string
	meter string // the instance that has registered the request
}

func (b *bench) open(lease string) *stream {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 10*time.Second)
	b.t.Cleanup(cancel)
	s, err := b.client.Process(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	return &stream{bench: b, ExternalProcessor_ProcessClient: s, lease: lease}
}

func (b *bench) ticket() string {
	b.t.Helper()
	tk, err := b.gate.Admit(b.t.Context(), admission.Arrival{
		Class: admission.Inference, Method: "POST", Endpoint: "/v1/chat/completions", RequestID: "r1",
		Addr: netip.MustParseAddr("192.0.2.1"), Authorization: []string{"Bearer " + key},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return tk.LeaseID
}

// say sends a message, the metadata on every one as Envoy does, and returns
// the answer.
func (s *stream) say(m *extprocv3.ProcessingRequest) *extprocv3.ProcessingResponse {
	s.t.Helper()
	if err := s.Send(s.with(m)); err != nil {
		s.t.Fatal(err)
	}
	out, err := s.Recv()
	if err != nil {
		s.t.Fatalf("no answer to %T: %v", m.Request, err)
	}
	return out
}

// with adds the metadata to a message.
func (s *stream) with(m *extprocv3.ProcessingRequest) *extprocv3.ProcessingRequest {
	about := map[string]*structpb.Struct{ticket.Namespace: {Fields: map[string]*structpb.Value{"lease": structpb.NewStringValue(s.lease)}}}
	if s.meter != "" {
		about["tollgate.meter.by"] = &structpb.Struct{Fields: map[string]*structpb.Value{"instance": structpb.NewStringValue(s.meter)}}
	}
	m.MetadataContext = &corev3.Metadata{FilterMetadata: about}
	return m
}

func head(pairs ...string) *extprocv3.HttpHeaders {
	h := &corev3.HeaderMap{}
	for i := 0; i < len(pairs); i += 2 {
		h.Headers = append(h.Headers, &corev3.HeaderValue{Key: pairs[i], RawValue: []byte(pairs[i+1])})
	}
	return &extprocv3.HttpHeaders{Headers: h}
}

func requestHeaders() *extprocv3.ProcessingRequest {
	return &extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_RequestHeaders{
		RequestHeaders: head(":method", "POST", ":path", "/chat/completions?x=1", "x-request-id", "r1"),
	}}
}

func requestBody(body string) *extprocv3.ProcessingRequest {
	return &extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_RequestBody{
		RequestBody: &extprocv3.HttpBody{Body: []byte(body), EndOfStream: true},
	}}
}

func responseHeaders(status, kind, details string) *extprocv3.ProcessingRequest {
	attrs, _ := structpb.NewStruct(map[string]any{"response.code_details": details})
	return &extprocv3.ProcessingRequest{
		Request:    &extprocv3.ProcessingRequest_ResponseHeaders{ResponseHeaders: head(":status", status, "content-type", kind)},
		Attributes: map[string]*structpb.Struct{"envoy.filters.http.ext_proc": attrs},
	}
}

func responseBody(chunk string, end bool) *extprocv3.ProcessingRequest {
	return &extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_ResponseBody{
		ResponseBody: &extprocv3.HttpBody{Body: []byte(chunk), EndOfStream: end},
	}}
}

const chat = `{"model":"tiny","stream":true,"priority":1,"messages":[{"role":"user","content":"hi"}]}`

// upTo opens a stream and leads it to the answer's headers.
func (b *bench) upTo() *stream {
	b.t.Helper()
	s := b.open(b.ticket())
	s.say(requestHeaders())
	s.say(requestBody(chat))
	return s
}

func event(tokens string) string {
	return `data: {"choices":[{"index":0,"delta":{"content":"x"}}],"usage":{"prompt_tokens":3,"completion_tokens":` + tokens + "}}\n\n"
}
