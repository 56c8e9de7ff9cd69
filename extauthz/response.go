package extauthz

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"

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
	"tollgate/internal/trace"
	"tollgate/internal/wire"
)

// answer is a CheckResponse. The ticket goes into the dynamic metadata: clients
// can forge headers, not metadata.
type answer struct {
	said    *authv3.CheckResponse // nil: encoded holds it
	encoded []byte
	ticket  ticket.Ticket
	trace   trace.Passed
}

// Encode implements [rpc.Encoder].
func (a *answer) Encode() (mem.BufferSlice, error) {
	said := a.encoded
	if a.said != nil {
		var err error
		if said, err = proto.Marshal(a.said); err != nil {
			return nil, fmt.Errorf("encode check: %w", err)
		}
	}
	const usual = 128 // bytes
	metadata := a.ticket.Append(make([]byte, 0, usual))
	traced := a.traced()
	b := make([]byte, 0, len(said)+wire.SizeBytes(responseOK, len(traced))+wire.SizeBytes(responseMetadata, len(metadata)))
	b = append(b, said...)
	if len(traced) > 0 {
		b = append(wire.AppendHead(b, responseOK, len(traced)), traced...)
	}
	if len(metadata) > 0 {
		b = append(wire.AppendHead(b, responseMetadata, len(metadata)), metadata...)
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

// Fields of a CheckResponse and of the OkHttpResponse in it.
const (
	responseOK       = 3
	responseMetadata = 4
	okRemove         = 5
	okSet            = 2
)

// traced is an OkHttpResponse with what the engine is told of the trace: a reader of
// protobuf adds it to the one that the prepared answer has. Empty where nothing is
// traced.
func (a *answer) traced() []byte {
	if a.trace.Traceparent == "" {
		return nil
	}
	const usual = 128 // bytes
	b := make([]byte, 0, usual)
	value := wire.SizeBytes(headerKey, len(trace.Header)) + wire.SizeBytes(headerValue, len(a.trace.Traceparent))
	b = wire.AppendHead(b, okSet, wire.SizeBytes(optionHeader, value)+len(overwrite))
	b = wire.AppendHead(b, optionHeader, value)
	b = wire.AppendString(b, headerKey, trace.Header)
	b = wire.AppendString(b, headerValue, a.trace.Traceparent)
	b = append(b, overwrite...)
	if a.trace.Restarted {
		b = wire.AppendString(b, okRemove, trace.StateHeader)
	}
	return b
}

const (
	optionHeader = 1 // HeaderValueOption
	optionAction = 3
	headerKey    = 1 // HeaderValue
	headerValue  = 2
)

// overwrite is what a header that is set does to those of its name.
var overwrite = wire.AppendVarint(nil, optionAction, uint64(corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD))

// passed is what does not differ between answers that let a request go on to an
// engine.
var passed = encode(letPass())

// openTo are the answers on open routes, for clients on other machines and for those on
// Envoy's own.
var openTo = map[bool][]byte{
	false: encode(showPage(whereFrom(false))),
	true:  encode(showPage(whereFrom(true))),
}

// whereFrom tells a page whether the client is on the machine of its Envoy, over whatever
// the client sent.
func whereFrom(local bool) openai.Header {
	if local {
		return openai.Header{Name: route.LocalHeader, Value: "yes"}
	}
	return openai.Header{Name: route.LocalHeader, Value: "no"}
}

func encode(m *authv3.CheckResponse) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err) // cannot happen: the message is built at start
	}
	return b
}

// letPass lets a request go on with headers for whom it goes to. Credentials never
// go with it, nor what only a check may say.
func letPass(headers ...openai.Header) *authv3.CheckResponse {
	m := showPage(headers...)
	m.GetOkResponse().HeadersToRemove = append([]string{"authorization", "x-api-key"}, m.GetOkResponse().HeadersToRemove...)
	return m
}

// showPage lets a request go on to a page of tollgate, which looks at the credentials
// itself.
func showPage(headers ...openai.Header) *authv3.CheckResponse {
	var remove []string
	for _, name := range route.Said() {
		if !slices.ContainsFunc(headers, func(h openai.Header) bool { return h.Name == name }) {
			remove = append(remove, name)
		}
	}
	return &authv3.CheckResponse{
		Status: &rpcstatus.Status{Code: int32(codes.OK)},
		HttpResponse: &authv3.CheckResponse_OkResponse{
			OkResponse: &authv3.OkHttpResponse{Headers: options(headers), HeadersToRemove: remove},
		},
	}
}

func options(headers []openai.Header) []*corev3.HeaderValueOption {
	set := make([]*corev3.HeaderValueOption, 0, len(headers))
	for _, h := range headers {
		set = append(set, &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: h.Name, Value: h.Value},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		})
	}
	return set
}

// pass lets a request go on.
func pass(r route.Route, from *admission.Arrival, t admission.Ticket, carried ticket.Ticket) *answer {
	a := &answer{encoded: passed, ticket: carried}
	switch {
	case r.Class == admission.Open:
		a.encoded = openTo[from.Local]
	case r.Page:
		// An invalid address is that of a client behind a Unix socket: said so, over
		// whatever the client sent.
		a.said = showPage(whereFrom(from.Local), openai.Header{Name: route.ClientHeader, Value: from.Addr.String()})
		if r.Class == admission.Listing {
			a.said.GetOkResponse().ResponseHeadersToAdd = options(openai.LimitHeaders(t.Standing))
		}
	}
	return a
}

// handOver lets tollgate's own page refuse: Envoy would send the status of a local
// reply to gRPC as 200.
func handOver(d *admission.DenialError) *answer {
	headers := []openai.Header{{Name: route.RefusalHeader, Value: string(d.Reason)}}
	if d.RetryAfter > 0 {
		headers = append(headers, openai.Header{Name: route.WaitHeader, Value: strconv.FormatInt(d.RetryAfter.Milliseconds()+1, 10)})
	}
	return &answer{said: letPass(headers...), ticket: ticket.Ticket{Reason: string(d.Reason)}}
}

// allowPage answers a preflight.
func allowPage(origin string) *answer {
	return &answer{said: reply(http.StatusOK, []openai.Header{
		{Name: "access-control-allow-origin", Value: origin},
		{Name: "access-control-allow-methods", Value: "GET, HEAD, POST, PATCH, DELETE, OPTIONS"},
		{Name: "access-control-allow-headers", Value: "*, authorization, x-api-key"}, // "*" does not cover authorization
		{Name: "access-control-max-age", Value: "86400"},
		{Name: "vary", Value: "origin"},
	}, nil)}
}

// refusal answers the client itself. A non-empty body and a content type are
// needed, or Envoy fills in its own.
func refusal(shape openai.Endpoint, d *admission.DenialError) *answer {
	code, headers, body := openai.Answer(shape, d)
	return &answer{said: reply(code, headers, body), ticket: ticket.Ticket{Reason: string(d.Reason)}}
}

func reply(code int, headers []openai.Header, body []byte) *authv3.CheckResponse {
	return &authv3.CheckResponse{
		Status: &rpcstatus.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status:  &typev3.HttpStatus{Code: typev3.StatusCode(code)}, //nolint:gosec // an HTTP status
			Headers: options(headers),
			Body:    string(body),
		}},
	}
}
