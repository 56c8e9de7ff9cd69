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

	"tollgate/internal/admission"
	"tollgate/internal/openai"
	"tollgate/internal/route"
	"tollgate/internal/ticket"
	"tollgate/internal/wire"
)

// answer is a CheckResponse. The ticket goes into the dynamic metadata: clients
// can forge headers, not metadata.
type answer struct {
	refuse *authv3.CheckResponse // nil lets the request go on
	passed []byte                // of an open route; nil is [passed]
	ticket ticket.Ticket
}

// Encode implements [rpc.Encoder].
func (a *answer) Encode() (mem.BufferSlice, error) {
	said := passed
	if a.passed != nil {
		said = a.passed
	}
	if a.refuse != nil {
		var err error
		if said, err = proto.Marshal(a.refuse); err != nil {
			return nil, fmt.Errorf("encode refusal: %w", err)
		}
	}
	const usual = 128 // bytes
	metadata := a.ticket.Append(make([]byte, 0, usual))
	b := make([]byte, 0, len(said)+wire.SizeBytes(responseMetadata, len(metadata)))
	if b = append(b, said...); len(metadata) > 0 {
		b = append(wire.AppendHead(b, responseMetadata, len(metadata)), metadata...)
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

// responseMetadata is CheckResponse.dynamic_metadata.
const responseMetadata = 4

// passed is what does not differ between answers that let a request go on:
// credentials never reach vLLM.
var passed = letPass()

// openTo are the answers on open routes, for strangers and for insiders: the
// header is set in both, over whatever the client sent.
var openTo = map[bool][]byte{false: letPass(insider("no")), true: letPass(insider("yes"))}

func insider(value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: route.InsiderHeader, Value: value},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

func letPass(headers ...*corev3.HeaderValueOption) []byte {
	b, err := proto.Marshal(&authv3.CheckResponse{
		Status: &rpcstatus.Status{Code: int32(codes.OK)},
		HttpResponse: &authv3.CheckResponse_OkResponse{
			OkResponse: &authv3.OkHttpResponse{Headers: headers, HeadersToRemove: []string{"authorization", "x-api-key"}},
		},
	})
	if err != nil {
		panic(err) // a message of ours, built at start
	}
	return b
}

// pass lets a request go on.
func pass(class admission.Class, t admission.Ticket) *answer {
	if class == admission.Open {
		return &answer{passed: openTo[t.Insider]}
	}
	return &answer{ticket: ticket.Ticket{LeaseID: t.LeaseID, KeyID: t.KeyID}}
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
	return &answer{ticket: ticket.Ticket{Reason: string(d.Reason)}, refuse: &authv3.CheckResponse{
		Status: &rpcstatus.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status:  &typev3.HttpStatus{Code: typev3.StatusCode(code)}, //nolint:gosec // an HTTP status
			Headers: set,
			Body:    string(body),
		}},
	}}
}
