package extproc_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
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

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const key = "sk-aaaaaaaaaaaaaaaaaaaaaaaa"

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
		Claim: claim, Limits: openai.Limits{MaxN: 4, MaxPrompts: 4}, Bodies: b.bodies,
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
}

func (b *bench) open(lease string) *stream {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 10*time.Second)
	b.t.Cleanup(cancel)
	s, err := b.client.Process(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	return &stream{b, s, lease}
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
	m.MetadataContext = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{ticket.Namespace: {Fields: map[string]*structpb.Value{"lease": structpb.NewStringValue(s.lease)}}}}
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

func TestOnlyWhatARequestNeedsIsSwitchedOn(t *testing.T) {
	b := newBench(t)
	s := b.open(b.ticket())
	got := s.say(requestHeaders()).GetModeOverride()
	if got.GetRequestBodyMode() != filterv3.ProcessingMode_STREAMED || got.GetResponseHeaderMode() != filterv3.ProcessingMode_SEND ||
		got.GetResponseBodyMode() != filterv3.ProcessingMode_NONE {
		t.Errorf("at the request headers: %v", got)
	}
	s.say(requestBody(chat))
	if got := s.say(responseHeaders("200", "text/event-stream", "via_upstream")).GetModeOverride(); got.GetResponseBodyMode() != filterv3.ProcessingMode_STREAMED {
		t.Errorf("a stream: %v", got)
	}
	refused := b.upTo()
	if got := refused.say(responseHeaders("404", "application/json", "via_upstream")).GetModeOverride(); got.GetResponseBodyMode() != filterv3.ProcessingMode_NONE {
		t.Errorf("an error pays for its body: %v", got)
	}
}

func TestVLLMGetsWhatWasChecked(t *testing.T) {
	b := newBench(t)
	s := b.open(b.ticket())
	s.say(requestHeaders())
	common := s.say(requestBody(chat)).GetRequestBody().GetResponse()
	body := common.GetBodyMutation().GetBody()
	var got map[string]any
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"model": "tiny", "stream": true, "messages": []any{map[string]any{"role": "user", "content": "hi"}},
		"stream_options": map[string]any{"include_usage": true, "continuous_usage_stats": true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestBodiesOfManyRequestsAreNotMixedUp(t *testing.T) {
	b := newBench(t)
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for i := range 40 {
				text := strings.Repeat(string(rune('a'+worker)), 1+(worker*40+i)*997%200_000)
				body := `{"model":"tiny","stream":true,"messages":[{"role":"user","content":"` + text + `"}]}`
				if i%5 == 4 { // refused after it was rewritten
					body = strings.Replace(body, "tiny", "huge", 1)
				}
				s := b.open(b.ticket())
				s.say(requestHeaders())
				answer := s.say(requestBody(body))
				got := string(answer.GetRequestBody().GetResponse().GetBodyMutation().GetBody())
				if i%5 == 4 {
					if answer.GetImmediateResponse() == nil {
						t.Errorf("not refused: %.200v", answer)
					}
				} else if want := `{"stream_options":{"include_usage":true,"continuous_usage_stats":true},` + body[1:]; got != want {
					t.Errorf("body %d of %d: got %d bytes, want %d, or others", i, worker, len(got), len(want))
				}
				_ = s.CloseSend()
				_, _ = s.Recv()
			}
		})
	}
	all.Wait()
}

func TestTheEndIsReleasedWhenItIsRecorded(t *testing.T) {
	b := newBench(t)
	s := b.upTo()
	s.say(responseHeaders("200", "text/event-stream", "via_upstream"))
	out := s.say(responseBody(event("1"), false)).GetResponseBody().GetResponse().GetBodyMutation().GetBody()
	if strings.Contains(string(out), "usage") || !strings.Contains(string(out), `"content":"x"`) {
		t.Errorf("the client sees %q", out)
	}
	final := `data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}` + "\n\n"
	if m := s.say(responseBody(final, false)).GetResponseBody().GetResponse().GetBodyMutation(); !m.GetClearBody() {
		t.Errorf("the usage chunk is shown: %v", m)
	}
	if rec, err := b.book.Get(t.Context(), s.lease); err != nil || !rec.Open() {
		t.Errorf("settled before the end: %+v, %v", rec, err)
	}
	if m := s.say(responseBody("data: [DONE]\n\n", false)).GetResponseBody(); m.GetResponse() != nil {
		t.Errorf("the last event was changed: %v", m)
	}
	rec, err := b.book.Get(t.Context(), s.lease)
	if err != nil || rec.Reason != ledger.Complete || rec.Counts.Completion != 2 || rec.Counts.Prompt != 3 {
		t.Errorf("after the end: %+v, %v", rec, err)
	}
	s.say(responseBody("", true))
	_ = s.CloseSend()
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream's end: %v, want EOF", err)
	}
}

func TestAStreamThatEndsEarlyIsClosedOnce(t *testing.T) {
	b := newBench(t)
	s := b.upTo()
	s.say(responseHeaders("200", "text/event-stream", "via_upstream"))
	s.say(responseBody(event("5"), false))
	_ = s.CloseSend() // the client has gone
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream's end: %v, want EOF", err)
	}
	rec, err := b.book.Get(t.Context(), s.lease)
	if err != nil || rec.Reason != ledger.Aborted || rec.Counts.Completion != 5 || rec.Quality != ledger.Exact {
		t.Errorf("got %+v, %v", rec, err)
	}
	if got, _ := b.limits.Totals(t.Context()); got.Leases != 0 {
		t.Errorf("leases: %d", got.Leases)
	}
}

func TestACutEndsASilentStreamWithAnError(t *testing.T) {
	b := newBench(t)
	s := b.upTo()
	s.say(responseHeaders("200", "text/event-stream", "via_upstream"))
	s.say(responseBody(event("4"), false))
	b.gate.Cancel("r1")
	if _, err := s.Recv(); status.Code(err) != codes.Unavailable {
		t.Fatalf("got %v, want UNAVAILABLE: a clean end would let the rest pass", err)
	}
	// The stream's own goroutine settles after the cut's status has gone out.
	deadline := time.Now().Add(30 * time.Second)
	for {
		rec, err := b.book.Get(t.Context(), s.lease)
		if err == nil && rec.Reason == ledger.Cancelled && rec.Counts.Completion == 4 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("never settled: %+v, %v", rec, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestACutThatComesBeforeTheStream(t *testing.T) {
	b := newBench(t)
	s := b.open(b.ticket())
	b.gate.Cancel("r1")
	if err := s.Send(s.with(requestHeaders())); err != nil {
		t.Fatal(err)
	}
	for {
		out, err := s.Recv()
		if err == nil && out.GetImmediateResponse() == nil {
			continue // to the headers, before the cut could be written
		}
		if err != nil && status.Code(err) != codes.Unavailable {
			t.Errorf("got %v, want UNAVAILABLE", err)
		}
		break
	}
	deadline := time.Now().Add(30 * time.Second)
	for got, _ := b.limits.Totals(t.Context()); got.Leases != 0; got, _ = b.limits.Totals(t.Context()) {
		if time.Now().After(deadline) {
			t.Fatalf("leases: %d", got.Leases)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// broken is a claimer with a fault, once.
type broken struct {
	extproc.Claimer
	left int
}

func (c *broken) Claim(ctx context.Context, leaseID string) (*admission.Session, error) {
	if c.left--; c.left >= 0 {
		panic("a fault of ours, " + leaseID)
	}
	return c.Claimer.Claim(ctx, leaseID)
}

func panics(t *testing.T, reg prometheus.Gatherer) float64 {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if m.GetName() == "stream_panics_total" {
			return m.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return -1
}

func TestAPanicEndsOneStreamOnly(t *testing.T) {
	b := newBench(t)
	reg := prometheus.NewRegistry()
	b.serve(&broken{b.gate, 1}, reg)
	s := b.open(b.ticket())
	if err := s.Send(s.with(requestHeaders())); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); status.Code(err) != codes.Internal || strings.Contains(err.Error(), s.lease) {
		t.Errorf("got %v, want INTERNAL without a word of why", err)
	}
	if n := panics(t, reg); n != 1 {
		t.Errorf("panics counted: %v", n)
	}
	s = b.upTo()
	s.say(responseHeaders("200", "text/event-stream", "via_upstream"))
	s.say(responseBody(event("5"), true))
}

func TestWhatIsRefusedHere(t *testing.T) {
	for name, c := range map[string]struct {
		ticket bool
		body   string
		status int32
		kept   int64 // requests that still count
	}{
		"no ticket":     {false, "", 503, 0},
		"no JSON":       {true, "{", 400, 1},
		"another model": {true, strings.Replace(chat, "tiny", "huge", 1), 404, 1},
		"too many n":    {true, strings.Replace(chat, `"stream"`, `"n":9,"stream"`, 1), 400, 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			lease := "0123456789abcdef"
			if c.ticket {
				lease = b.ticket()
			}
			s := b.open(lease)
			answer := s.say(requestHeaders())
			if c.ticket {
				answer = s.say(requestBody(c.body))
			}
			im := answer.GetImmediateResponse()
			if int32(im.GetStatus().GetCode()) != c.status || !strings.HasPrefix(im.GetDetails(), "tollgate_") || !json.Valid(im.GetBody()) {
				t.Errorf("got %v", answer)
			}
			_ = s.CloseSend()
			_, _ = s.Recv()
			if got, _ := b.limits.Totals(t.Context()); got.Leases != 0 || got.Reserved != 0 {
				t.Errorf("left over: %+v", got)
			}
			view, err := b.limits.Key(t.Context(), "a", limit.Caps{})
			if err != nil || view.RequestsWindow != c.kept {
				t.Errorf("requests that count: %d, want %d (%v)", view.RequestsWindow, c.kept, err)
			}
			if b.bodies.Used() != 0 {
				t.Errorf("body bytes are still held: %d", b.bodies.Used())
			}
		})
	}
}

func TestALocalReplyPasses(t *testing.T) {
	b := newBench(t)
	s := b.open("")
	if got := s.say(responseHeaders("413", "text/plain", "request_payload_too_large")); got.GetResponseHeaders() == nil {
		t.Errorf("got %v", got)
	}
	if got := s.say(responseBody("too large", true)); got.GetResponseBody() == nil || got.GetResponseBody().GetResponse() != nil {
		t.Errorf("got %v", got)
	}
}

func TestNoAnswerPassesToARequestThatWasNotChecked(t *testing.T) {
	for _, status := range []string{"200", "302", "400", "500"} {
		b := newBench(t)
		s := b.open(b.ticket())
		s.say(requestHeaders())
		if err := s.Send(s.with(responseHeaders(status, "application/json", "via_upstream"))); err != nil {
			t.Fatal(err)
		}
		if out, err := s.Recv(); err == nil {
			t.Errorf("an answer of %s passed: %v", status, out)
		}
	}
}
