package extauthz

import (
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"tollgate/internal/admission"
	"tollgate/internal/openai"
	"tollgate/internal/ticket"
	"tollgate/internal/wire"
)

// answer is a CheckResponse: the one that lets a request go on is encoded
// without building it, a refusal is built.
type answer struct {
	pass   []byte
	refuse *authv3.CheckResponse
}

// Encode implements [rpc.Encoder].
func (a *answer) Encode() (mem.BufferSlice, error) {
	b := a.pass
	if a.refuse != nil {
		var err error
		if b, err = proto.Marshal(a.refuse); err != nil {
			return nil, fmt.Errorf("encode refusal: %w", err)
		}
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

// responseMetadata is CheckResponse.dynamic_metadata.
const responseMetadata = 4

// passed is what does not differ between answers that let a request go on:
// credentials never reach vLLM.
var passed = func() []byte {
	b, err := proto.Marshal(&authv3.CheckResponse{
		Status: &rpcstatus.Status{Code: int32(codes.OK)},
		HttpResponse: &authv3.CheckResponse_OkResponse{
			OkResponse: &authv3.OkHttpResponse{HeadersToRemove: []string{"authorization", "x-api-key"}},
		},
	})
	if err != nil {
		panic(err) // a message of ours, built at start
	}
	return b
}()

// pass lets a request go on, with its ticket in the dynamic metadata: clients
// can forge headers, not metadata.
func pass(t admission.Ticket) *answer {
	const usual = 128 // bytes
	metadata := ticket.Ticket{LeaseID: t.LeaseID, KeyID: t.KeyID}.Append(make([]byte, 0, usual))
	b := make([]byte, 0, len(passed)+wire.SizeBytes(responseMetadata, len(metadata)))
	b = append(b, passed...)
	return &answer{pass: append(wire.AppendHead(b, responseMetadata, len(metadata)), metadata...)}
}

// refusal answers the client itself. A non-empty body and a content type are
// needed, or Envoy fills in its own.
func refusal(endpoint string, d *admission.DenialError) *answer {
	code, headers, body := openai.Answer(openai.Endpoint(endpoint), d)
	set := make([]*corev3.HeaderValueOption, 0, len(headers))
	for _, h := range headers {
		set = append(set, &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: h.Name, Value: h.Value},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		})
	}
	return &answer{refuse: &authv3.CheckResponse{
		Status: &rpcstatus.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status:  &typev3.HttpStatus{Code: typev3.StatusCode(code)}, //nolint:gosec // an HTTP status
			Headers: set,
			Body:    string(body),
		}},
		DynamicMetadata: &structpb.Struct{Fields: map[string]*structpb.Value{
			ticket.Reason: structpb.NewStringValue(string(d.Reason)),
		}},
	}}
}
