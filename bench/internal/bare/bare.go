// Package bare is the least that an ordinary Go server behind the same Envoy
// configuration can do: it answers the same messages as Tollgate, with the
// generated gRPC code, and decides, counts and records nothing. What Tollgate
// costs beyond it is Tollgate's own.
package bare

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	alsv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"

	"tollgate/bench/internal/script"
)

// maxBody is above the largest body of any lane.
const maxBody = 64 << 20

// Serve answers on a Unix socket until ctx ends.
func Serve(ctx context.Context, socket string) error {
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		return fmt.Errorf("make socket folder: %w", err)
	}
	lis, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s := grpc.NewServer(grpc.MaxRecvMsgSize(maxBody))
	authv3.RegisterAuthorizationServer(s, &server{})
	extprocv3.RegisterExternalProcessorServer(s, &server{})
	alsv3.RegisterAccessLogServiceServer(s, &server{})
	stop := context.AfterFunc(ctx, s.Stop)
	defer stop()
	if err := s.Serve(lis); err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

type server struct {
	authv3.UnimplementedAuthorizationServer
	extprocv3.UnimplementedExternalProcessorServer
	alsv3.UnimplementedAccessLogServiceServer
}

// Check lets everybody pass, with a ticket of the same size as Tollgate's.
func (*server) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return &authv3.CheckResponse{
		Status: &rpcstatus.Status{},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
			HeadersToRemove: []string{"authorization", "x-api-key"},
		}},
		DynamicMetadata: &structpb.Struct{Fields: map[string]*structpb.Value{
			"lease": structpb.NewStringValue("00000000-0000-0000-0000-000000000000"),
			"key":   structpb.NewStringValue("bench"),
		}},
	}, nil
}

// Process asks for what Tollgate asks for and lets it all go on.
func (*server) Process(stream extprocv3.ExternalProcessor_ProcessServer) error {
	strip := false
	for {
		req, err := stream.Recv()
		if err != nil {
			return nil //nolint:nilerr // a stream ends in many ways, all of them normal
		}
		var resp *extprocv3.ProcessingResponse
		switch m := req.GetRequest().(type) {
		case *extprocv3.ProcessingRequest_RequestHeaders:
			strip = wantsStrip(m.RequestHeaders)
			resp = requestHeaders(m.RequestHeaders.GetEndOfStream())
		case *extprocv3.ProcessingRequest_RequestBody:
			resp = &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_RequestBody{RequestBody: &extprocv3.BodyResponse{}}}
		case *extprocv3.ProcessingRequest_ResponseHeaders:
			resp = &extprocv3.ProcessingResponse{
				Response:     &extprocv3.ProcessingResponse_ResponseHeaders{ResponseHeaders: &extprocv3.HeadersResponse{}},
				ModeOverride: &filterv3.ProcessingMode{ResponseBodyMode: filterv3.ProcessingMode_STREAMED},
			}
		case *extprocv3.ProcessingRequest_ResponseBody:
			resp = responseBody(m.ResponseBody.GetBody(), strip)
		case *extprocv3.ProcessingRequest_ResponseTrailers:
			resp = &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_ResponseTrailers{ResponseTrailers: &extprocv3.TrailersResponse{}}}
		default:
			return fmt.Errorf("unexpected message %T", m)
		}
		if err := stream.Send(resp); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
}

func wantsStrip(h *extprocv3.HttpHeaders) bool {
	for _, v := range h.GetHeaders().GetHeaders() {
		if v.GetKey() == script.Header {
			s, err := script.Parse(rawOr(v))
			return err == nil && s.Strip
		}
	}
	return false
}

func rawOr(v *corev3.HeaderValue) string {
	if raw := v.GetRawValue(); len(raw) > 0 {
		return string(raw)
	}
	return v.GetValue()
}

func requestHeaders(end bool) *extprocv3.ProcessingResponse {
	resp := &extprocv3.ProcessingResponse{
		Response:     &extprocv3.ProcessingResponse_RequestHeaders{RequestHeaders: &extprocv3.HeadersResponse{}},
		ModeOverride: &filterv3.ProcessingMode{ResponseHeaderMode: filterv3.ProcessingMode_SEND},
	}
	if !end {
		resp.ModeOverride.RequestBodyMode = filterv3.ProcessingMode_BUFFERED
	}
	return resp
}

// usage is how running usage begins in a chunk, closing what it follows.
var usage = []byte(`,"usage":{`)

func responseBody(chunk []byte, strip bool) *extprocv3.ProcessingResponse {
	body := &extprocv3.BodyResponse{}
	if strip {
		if out, changed := without(chunk); changed {
			body.Response = &extprocv3.CommonResponse{BodyMutation: &extprocv3.BodyMutation{Mutation: &extprocv3.BodyMutation_Body{Body: out}}}
		}
	}
	return &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_ResponseBody{ResponseBody: body}}
}

// without cuts every usage object out. It trusts that the chunk is the
// upstream's of this harness: no nested objects, events not split.
func without(chunk []byte) ([]byte, bool) {
	if !bytes.Contains(chunk, usage) {
		return nil, false
	}
	out := make([]byte, 0, len(chunk))
	for {
		before, after, found := bytes.Cut(chunk, usage)
		out = append(out, before...)
		if !found {
			return out, true
		}
		_, chunk, _ = bytes.Cut(after, []byte("}"))
	}
}

// StreamAccessLogs reads and drops.
func (*server) StreamAccessLogs(stream alsv3.AccessLogService_StreamAccessLogsServer) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return nil //nolint:nilerr // Envoy has gone, or it stops
		}
	}
}
