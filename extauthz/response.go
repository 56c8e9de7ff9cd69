package extauthz

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"

	"tollgate/internal/admission"
	"tollgate/internal/openai"
	"tollgate/internal/ticket"
)

// credentials never reach vLLM.
var credentials = []string{"authorization", "x-api-key"}

// pass lets a request go on, with its ticket in the dynamic metadata: clients
// can forge headers, not metadata.
func pass(t admission.Ticket) *authv3.CheckResponse {
	return &authv3.CheckResponse{
		Status: &rpcstatus.Status{Code: int32(codes.OK)},
		HttpResponse: &authv3.CheckResponse_OkResponse{
			OkResponse: &authv3.OkHttpResponse{HeadersToRemove: credentials},
		},
		DynamicMetadata: ticket.Struct(t.LeaseID, t.KeyID),
	}
}

// refusal answers the client itself. A non-empty body and a content type are
// needed, or Envoy fills in its own.
func refusal(endpoint string, d *admission.DenialError) *authv3.CheckResponse {
	code, headers, body := openai.Answer(openai.Endpoint(endpoint), d)
	set := make([]*corev3.HeaderValueOption, 0, len(headers))
	for _, h := range headers {
		set = append(set, &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: h.Name, Value: h.Value},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		})
	}
	return &authv3.CheckResponse{
		Status: &rpcstatus.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status:  &typev3.HttpStatus{Code: typev3.StatusCode(code)}, //nolint:gosec // an HTTP status
			Headers: set,
			Body:    string(body),
		}},
		DynamicMetadata: &structpb.Struct{Fields: map[string]*structpb.Value{
			ticket.Reason: structpb.NewStringValue(string(d.Reason)),
		}},
	}
}
