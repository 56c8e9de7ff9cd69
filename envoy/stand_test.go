package envoy_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	alsdatav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	extprocfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	alsv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"tollgate/envoy"
	"tollgate/internal/config"
	"tollgate/xds"
)

// engine is a vLLM that does what x-test-engine says and remembers headers.
type engine struct {
	mu   sync.Mutex
	last http.Header // guarded by mu
	path string      // guarded by mu
	name string      // the host that was asked for; guarded by mu
	sick bool        // guarded by mu
}

func (g *engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	sick := g.sick
	if r.URL.Path != "/health" {
		g.last, g.path, g.name = r.Header.Clone(), r.URL.RequestURI(), r.Host
	}
	g.mu.Unlock()
	if r.URL.Path == "/health" {
		if sick {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return
	}
	_, _ = io.Copy(io.Discard, r.Body)
	switch r.Header.Get("x-test-engine") {
	case "silent":
		<-r.Context().Done()
	case "hangup":
		panic(http.ErrAbortHandler)
	case "busy":
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "from vLLM")
	case "headers":
		for _, name := range hostile {
			w.Header().Set(name, "1")
		}
		w.Header().Set("x-kept", "yes")
		w.Header().Set("retry-after", "7")
		_, _ = io.WriteString(w, "{}")
	case "stream":
		w.Header().Set("content-type", "text/event-stream")
		_, _ = io.WriteString(w, "data: 1\n\n")
		w.(http.Flusher).Flush()
		<-time.After(time.Second)
		_, _ = io.WriteString(w, "data: [DONE]\n\n")
	default:
		w.Header().Set("content-type", "application/json")
		_, _ = io.WriteString(w, `{"ok":true}`)
	}
}

func (g *engine) seen() (http.Header, string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last, g.path
}

func (g *engine) host() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.name
}

func (g *engine) setSick(sick bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sick = sick
}

// theModel is what the one engine of these tests serves.
const theModel = "m"

// modelFor is the model that a request goes to.
func modelFor(h map[string]string) string {
	switch h["x-test-proc"] {
	case "no-model":
		return ""
	case "other-model":
		return "another"
	}
	return theModel
}

// stand plays tollgate: x-test-authz and x-test-proc say how it answers.
type stand struct {
	authv3.UnimplementedAuthorizationServer
	extprocv3.UnimplementedExternalProcessorServer
	alsv3.UnimplementedAccessLogServiceServer

	mu      sync.Mutex
	checks  []map[string]string             // guarded by mu
	procs   []map[string]string             // guarded by mu
	tickets []string                        // guarded by mu
	entries []*alsdatav3.HTTPAccessLogEntry // guarded by mu
}

func (s *stand) serve(t *testing.T, state string, engines ...envoy.Endpoint) {
	t.Helper()
	lis, err := net.Listen("unix", filepath.Join(state, config.GRPCSocket))
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20))
	authv3.RegisterAuthorizationServer(server, s)
	extprocv3.RegisterExternalProcessorServer(server, s)
	control := xds.New(nil)
	t.Cleanup(control.Stop)
	if err := control.Publish(engines); err != nil {
		t.Fatal(err)
	}
	control.Register(server)
	alsv3.RegisterAccessLogServiceServer(server, s)
	go func() { _ = server.Serve(lis) }()
	t.Cleanup(server.Stop)
	page, err := net.Listen("unix", filepath.Join(state, config.HTTPSocket))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.Header.Get("x-test-page") == "hang" {
			<-r.Context().Done()
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "tollgate's page "+r.Method+" "+r.URL.RequestURI())
	})}
	go func() { _ = srv.Serve(page) }()
	t.Cleanup(func() { _ = srv.Close() })
}

func flat(in []*corev3.HeaderValue) map[string]string {
	out := map[string]string{}
	for _, h := range in {
		v := h.GetValue()
		if len(h.GetRawValue()) > 0 {
			v = string(h.GetRawValue())
		}
		out[h.GetKey()] = v
	}
	return out
}

// Check implements [authv3.AuthorizationServer].
func (s *stand) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	a := req.GetAttributes()
	h := flat(a.GetRequest().GetHttp().GetHeaderMap().GetHeaders())
	seen := maps.Clone(h)
	seen["source"] = a.GetSource().GetAddress().GetSocketAddress().GetAddress()
	s.mu.Lock()
	s.checks = append(s.checks, seen)
	s.mu.Unlock()
	switch h["x-test-authz"] {
	case "deny":
		return &authv3.CheckResponse{
			Status: &rpcstatus.Status{Code: int32(codes.PermissionDenied)},
			HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
				Status:  &typev3.HttpStatus{Code: typev3.StatusCode_TooManyRequests},
				Body:    `{"error":"ours"}`,
				Headers: []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: "content-type", Value: "application/json"}}},
			}},
		}, nil
	case "preflight":
		return &authv3.CheckResponse{
			Status: &rpcstatus.Status{Code: int32(codes.PermissionDenied)},
			HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
				Status:  &typev3.HttpStatus{Code: typev3.StatusCode_OK},
				Headers: []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: "access-control-allow-origin", Value: "checked"}}},
			}},
		}, nil
	case "error":
		return nil, status.Error(codes.Unavailable, "no")
	case "hang":
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	case "invalid":
		return &authv3.CheckResponse{Status: &rpcstatus.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
			ResponseHeadersToAdd: []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: "x", Value: "a\nb"}}},
		}}}, nil
	}
	ticket, err := structpb.NewStruct(map[string]any{"lease": "L1"})
	if err != nil {
		return nil, status.Error(codes.Internal, "ticket")
	}
	return &authv3.CheckResponse{Status: &rpcstatus.Status{}, DynamicMetadata: ticket}, nil
}

// Process implements [extprocv3.ExternalProcessorServer].
func (s *stand) Process(stream extprocv3.ExternalProcessor_ProcessServer) error {
	var h map[string]string
	for {
		req, err := stream.Recv()
		if err != nil {
			return nil //nolint:nilerr // a stream's end
		}
		resp := &extprocv3.ProcessingResponse{}
		switch m := req.GetRequest().(type) {
		case *extprocv3.ProcessingRequest_RequestHeaders:
			h = flat(m.RequestHeaders.GetHeaders().GetHeaders())
			s.mu.Lock()
			s.procs = append(s.procs, h)
			s.tickets = append(s.tickets, req.GetMetadataContext().GetFilterMetadata()["envoy.filters.http.ext_authz"].GetFields()["lease"].GetStringValue())
			s.mu.Unlock()
			resp.Response = &extprocv3.ProcessingResponse_RequestHeaders{RequestHeaders: &extprocv3.HeadersResponse{}}
			if model := modelFor(h); model != "" {
				resp.DynamicMetadata = &structpb.Struct{Fields: map[string]*structpb.Value{
					envoy.PlacementNamespace: structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{envoy.ModelKey: structpb.NewStringValue(model)}}),
				}}
			}
			if !m.RequestHeaders.GetEndOfStream() {
				resp.ModeOverride = &extprocfilterv3.ProcessingMode{RequestBodyMode: extprocfilterv3.ProcessingMode_STREAMED}
			}
			switch h["x-test-proc"] {
			case "hang":
				<-stream.Context().Done()
				return nil
			case "error":
				return status.Error(codes.Internal, "no")
			case "refuse":
				resp.Response = &extprocv3.ProcessingResponse_ImmediateResponse{ImmediateResponse: &extprocv3.ImmediateResponse{
					Status: &typev3.HttpStatus{Code: typev3.StatusCode_NotFound}, Body: []byte(`{"error":"ours"}`), Details: "tollgate_model",
					Headers: &extprocv3.HeaderMutation{SetHeaders: []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: "content-type", RawValue: []byte("application/json")}}}},
				}}
			}
		case *extprocv3.ProcessingRequest_RequestBody:
			resp.Response = &extprocv3.ProcessingResponse_RequestBody{RequestBody: &extprocv3.BodyResponse{}}
		case *extprocv3.ProcessingRequest_ResponseHeaders:
			resp.Response = &extprocv3.ProcessingResponse_ResponseHeaders{ResponseHeaders: &extprocv3.HeadersResponse{}}
		case *extprocv3.ProcessingRequest_ResponseTrailers:
			resp.Response = &extprocv3.ProcessingResponse_ResponseTrailers{ResponseTrailers: &extprocv3.TrailersResponse{}}
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

// StreamAccessLogs implements [alsv3.AccessLogServiceServer].
func (s *stand) StreamAccessLogs(stream alsv3.AccessLogService_StreamAccessLogsServer) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		s.mu.Lock()
		s.entries = append(s.entries, m.GetHttpLogs().GetLogEntry()...)
		s.mu.Unlock()
	}
}

func (s *stand) lastCheck() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.checks) == 0 {
		return nil
	}
	return s.checks[len(s.checks)-1]
}

func (s *stand) counts() (checks, procs int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.checks), len(s.procs)
}

// entry waits for the access-log entry of a request id.
func (s *stand) entry(t *testing.T, id string) *alsdatav3.HTTPAccessLogEntry {
	t.Helper()
	var found *alsdatav3.HTTPAccessLogEntry
	eventually(t, "access log entry of "+id, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, e := range s.entries {
			if e.GetRequest().GetRequestId() == id {
				found = e
			}
		}
		return found != nil
	})
	return found
}
