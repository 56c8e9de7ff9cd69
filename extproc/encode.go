package extproc

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/mem"

	"tollgate/internal/openai"
	"tollgate/internal/rpc"
	"tollgate/internal/wire"
)

// The answers that every request needs, encoded without building them.

// Field numbers of envoy.service.ext_proc.v3.ProcessingResponse and of what is
// in it.
const (
	outResponseHeaders = 2
	outRequestBody     = 3
	outResponseBody    = 4
	outModeOverride    = 9

	modeResponseBody = 4 // ProcessingMode
	responseCommon   = 1 // HeadersResponse, BodyResponse
	commonHeaders    = 2 // CommonResponse
	commonBody       = 3
	mutationSet      = 1 // HeaderMutation
	mutationRemove   = 2
	mutationBody     = 1 // BodyMutation
	optionHeader     = 1 // HeaderValueOption
	optionAction     = 3
	headerKey        = 1 // HeaderValue
	headerRaw        = 3

	smallestPrefix = 64 // bytes: room for the tags and lengths before a body
)

// enginesCORS are vLLM's own words on who may read its answers (it allows all
// origins). Who may is cors.allow_origins, which Envoy says after us.
var enginesCORS = []string{"access-control-allow-origin", "access-control-allow-credentials", "access-control-expose-headers"}

var withoutEnginesCORS = func() (b []byte) {
	for _, name := range enginesCORS {
		b = wire.AppendString(b, mutationRemove, name)
	}
	return b
}()

// answerHeaders is the change to every answer of the engine; mode is the encoded
// ProcessingMode for its body, nil for the mode that the request headers asked for;
// the headers in remove go too.
func answerHeaders(set []openai.Header, mode []byte, remove ...string) []byte {
	const usual = 512 // bytes: six rate headers and the names to remove
	mutation := make([]byte, 0, usual)
	for _, h := range set {
		mutation = appendSet(mutation, h)
	}
	mutation = append(mutation, withoutEnginesCORS...)
	for _, name := range remove {
		mutation = wire.AppendString(mutation, mutationRemove, name)
	}
	common := wire.SizeBytes(commonHeaders, len(mutation))
	headers := wire.SizeBytes(responseCommon, common)
	b := make([]byte, 0, wire.SizeBytes(outResponseHeaders, headers)+wire.SizeBytes(outModeOverride, len(mode)))
	b = wire.AppendHead(b, outResponseHeaders, headers)
	b = wire.AppendHead(b, responseCommon, common)
	b = append(wire.AppendHead(b, commonHeaders, len(mutation)), mutation...)
	if mode != nil {
		b = append(wire.AppendHead(b, outModeOverride, len(mode)), mode...)
	}
	return b
}

// overwrite is what every header that we set does to one of the same name.
var overwrite = wire.AppendVarint(nil, optionAction, uint64(corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD))

// appendSet appends a field of a HeaderMutation that sets a header.
func appendSet(b []byte, h openai.Header) []byte {
	value := wire.SizeBytes(headerKey, len(h.Name)) + wire.SizeBytes(headerRaw, len(h.Value))
	b = wire.AppendHead(b, mutationSet, wire.SizeBytes(optionHeader, value)+len(overwrite))
	b = wire.AppendHead(b, optionHeader, value)
	b = wire.AppendString(b, headerKey, h.Name)
	b = wire.AppendString(b, headerRaw, h.Value)
	return append(b, overwrite...)
}

// chunkAnswer encodes ProcessingResponse{response_body{response{body_mutation{body}}}}
// into a buffer of the pool, which the transport gives back.
func chunkAnswer(body []byte) mem.Buffer {
	inner := wire.SizeBytes(mutationBody, len(body))
	mutation := wire.SizeBytes(commonBody, inner)
	common := wire.SizeBytes(responseCommon, mutation)
	buf := rpc.Buffers.Get(wire.SizeBytes(outResponseBody, common))
	b := (*buf)[:0]
	b = wire.AppendHead(b, outResponseBody, common)
	b = wire.AppendHead(b, responseCommon, mutation)
	b = wire.AppendHead(b, commonBody, inner)
	b = wire.AppendHead(b, mutationBody, len(body))
	b = append(b, body...)
	*buf = b
	return mem.NewBuffer(buf, rpc.Buffers)
}

// requestPrefix encodes everything before the bytes of a new request body.
func requestPrefix(body []byte) []byte {
	inner := wire.SizeBytes(mutationBody, len(body))
	common := wire.SizeBytes(commonBody, inner)
	b := make([]byte, 0, smallestPrefix)
	b = wire.AppendHead(b, outRequestBody, wire.SizeBytes(responseCommon, common))
	b = wire.AppendHead(b, responseCommon, common)
	b = wire.AppendHead(b, commonBody, inner)
	return wire.AppendHead(b, mutationBody, len(body))
}
