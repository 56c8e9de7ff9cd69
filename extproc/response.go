package extproc

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"tollgate/internal/admission"
	"tollgate/internal/envoycode"
	"tollgate/internal/openai"
	"tollgate/internal/wire"
)

// Answers that never differ are encoded once.
var (
	// wantRequestBody asks for the body in the pieces in which it comes, and for
	// the headers of the answer. BUFFERED would save nothing (a body that is here by now
	// comes as one message either way), and Envoy would hold bodies that nobody counts.
	// The client's content-length goes: it is not that of the checked body, which
	// goes to the engine in chunks.
	// Nothing is asked of the answer's body yet: chosen here, Envoy would drop
	// content-length even from errors.
	wantRequestBody = prepare(&extprocv3.ProcessingResponse{
		Response: wantRequestBodyOf,
		ModeOverride: &filterv3.ProcessingMode{
			RequestBodyMode:    filterv3.ProcessingMode_STREAMED,
			ResponseHeaderMode: filterv3.ProcessingMode_SEND,
		},
	})
	// keepFromMeter is wantRequestBody for a request that a meter inside Envoy has
	// registered: the answer is metered here, to its last byte.
	keepFromMeter = prepare(&extprocv3.ProcessingResponse{
		Response: wantRequestBodyOf,
		ModeOverride: &filterv3.ProcessingMode{
			RequestBodyMode:     filterv3.ProcessingMode_STREAMED,
			ResponseHeaderMode:  filterv3.ProcessingMode_SEND,
			ResponseTrailerMode: filterv3.ProcessingMode_SEND,
		},
		DynamicMetadata: planFor(extprocHas),
	})
	// wantRequestAlone asks for the body of a request whose answer the meter inside
	// Envoy will have.
	wantRequestAlone = prepare(&extprocv3.ProcessingResponse{
		Response: wantRequestBodyOf,
		ModeOverride: &filterv3.ProcessingMode{
			RequestBodyMode:     filterv3.ProcessingMode_STREAMED,
			ResponseHeaderMode:  filterv3.ProcessingMode_SKIP,
			ResponseTrailerMode: filterv3.ProcessingMode_SKIP,
		},
	})
	// requestPieceHeld takes a piece of the request's body away from Envoy.
	requestPieceHeld = prepare(&extprocv3.ProcessingResponse{
		Response: &extprocv3.ProcessingResponse_RequestBody{RequestBody: &extprocv3.BodyResponse{
			Response: &extprocv3.CommonResponse{BodyMutation: &extprocv3.BodyMutation{
				Mutation: &extprocv3.BodyMutation_ClearBody{ClearBody: true},
			}},
		}},
	})
	requestTrailersGoOn = prepare(&extprocv3.ProcessingResponse{
		Response: &extprocv3.ProcessingResponse_RequestTrailers{RequestTrailers: &extprocv3.TrailersResponse{}},
	})
	requestBodyGoesOn = prepare(&extprocv3.ProcessingResponse{
		Response: &extprocv3.ProcessingResponse_RequestBody{RequestBody: &extprocv3.BodyResponse{}},
	})
	responseHeadersGoOn = prepare(&extprocv3.ProcessingResponse{
		Response: &extprocv3.ProcessingResponse_ResponseHeaders{ResponseHeaders: &extprocv3.HeadersResponse{}},
	})
	responseBodyGoesOn = prepare(&extprocv3.ProcessingResponse{
		Response: &extprocv3.ProcessingResponse_ResponseBody{ResponseBody: &extprocv3.BodyResponse{}},
	})
	responseTrailersGoOn = prepare(&extprocv3.ProcessingResponse{
		Response: &extprocv3.ProcessingResponse_ResponseTrailers{ResponseTrailers: &extprocv3.TrailersResponse{}},
	})
)

var wantRequestBodyOf = &extprocv3.ProcessingResponse_RequestHeaders{RequestHeaders: &extprocv3.HeadersResponse{
	Response: &extprocv3.CommonResponse{HeaderMutation: &extprocv3.HeaderMutation{RemoveHeaders: []string{"content-length"}}},
}}

// planFor tells the meter what to do.
func planFor(plan string) *structpb.Struct {
	inner := &structpb.Struct{Fields: map[string]*structpb.Value{"plan": structpb.NewStringValue(plan)}}
	return &structpb.Struct{Fields: map[string]*structpb.Value{meterTold: structpb.NewStructValue(inner)}}
}

// The ways to see an answer's body, as encoded ProcessingModes.
var (
	bodyNone     = []byte{} // NONE is zero
	bodyStreamed = wire.AppendVarint(nil, modeResponseBody, uint64(filterv3.ProcessingMode_STREAMED))
)

// responseHeaders answers response headers: the rate headers go out, and the
// body comes in the mode chosen.
func responseHeaders(set []openai.Header, mode []byte) *outbound {
	return &outbound{prepared: answerHeaders(set, mode)}
}

// streamHeaders answers the headers of an event stream. Events may be taken out
// of it, so a length that somebody in between has put on it is no longer true.
func streamHeaders(set []openai.Header) *outbound {
	return &outbound{prepared: answerHeaders(set, bodyStreamed, "content-length")}
}

func mutation(set []openai.Header) *extprocv3.HeaderMutation {
	if len(set) == 0 {
		return nil
	}
	m := &extprocv3.HeaderMutation{SetHeaders: make([]*corev3.HeaderValueOption, 0, len(set))}
	for _, h := range set {
		m.SetHeaders = append(m.SetHeaders, &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: h.Name, RawValue: []byte(h.Value)},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		})
	}
	return m
}

// replaceRequest sends vLLM the checked body, or the client's own bytes where
// nothing was changed and Envoy still has them: then there is nothing to send.
func (x *exchange) replaceRequest(original []byte) *outbound {
	body, buffer := x.request.Body, &x.rewritten
	if len(body) == len(original) && len(body) > 0 && &body[0] == &original[0] {
		if x.joined == nil {
			return requestBodyGoesOn
		}
		buffer = &x.joined
	}
	**buffer = body
	x.out = outbound{request: *buffer}
	*buffer = nil // gRPC gives it back
	return &x.out
}

// replaceChunk sends other bytes in place of one chunk. They are copied when
// the answer is encoded, so the meter may reuse its buffer.
func (x *exchange) replaceChunk(forward []byte) *outbound {
	x.out = outbound{chunk: forward, clear: len(forward) == 0}
	return &x.out
}

// clearedChunk answers a chunk that nobody gets.
var clearedChunk = &outbound{prepared: clearChunk}

// clearChunk is the answer that removes a chunk.
var clearChunk = prepare(&extprocv3.ProcessingResponse{
	Response: &extprocv3.ProcessingResponse_ResponseBody{ResponseBody: &extprocv3.BodyResponse{
		Response: &extprocv3.CommonResponse{BodyMutation: &extprocv3.BodyMutation{
			Mutation: &extprocv3.BodyMutation_ClearBody{ClearBody: true},
		}},
	}},
}).prepared

// unknownRoute answers what ext_authz has not seen: built once and only read.
var unknownRoute = &outbound{message: &extprocv3.ProcessingResponse{
	Response: &extprocv3.ProcessingResponse_ImmediateResponse{ImmediateResponse: &extprocv3.ImmediateResponse{
		Status:  &typev3.HttpStatus{Code: typev3.StatusCode_NotFound},
		Headers: mutation([]openai.Header{{Name: "content-type", Value: "application/json"}}),
		Body:    openai.Body("", "Unknown path.", "invalid_request_error", "", "not_found"),
		Details: envoycode.Details(admission.BadRequest),
	}},
}}

// immediate answers the client at once. The details tell Envoy's local reply
// mapper that the body is ours and must not be rewritten.
func immediate(ep openai.Endpoint, d *admission.DenialError) *outbound {
	code, headers, body := openai.Answer(ep, d)
	return &outbound{message: &extprocv3.ProcessingResponse{
		Response: &extprocv3.ProcessingResponse_ImmediateResponse{ImmediateResponse: &extprocv3.ImmediateResponse{
			Status:  &typev3.HttpStatus{Code: typev3.StatusCode(code)}, //nolint:gosec // an HTTP status
			Headers: mutation(headers),
			Body:    body,
			Details: envoycode.Details(d.Reason),
		}},
	}}
}
