package extproc

import (
	"bytes"
	"strconv"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"tollgate/internal/ticket"
)

// generated reads a message by way of the generated code: the reference.
func generated(m *extprocv3.ProcessingRequest) inbound {
	var in inbound
	f := m.GetAttributes()[filter].GetFields()
	carried := m.GetMetadataContext().GetFilterMetadata()[ticket.Namespace].GetFields()
	about := head{
		ticket: ticket.Ticket{
			LeaseID: carried["lease"].GetStringValue(), KeyID: carried["key"].GetStringValue(), Reason: carried["reason"].GetStringValue(),
			Issuer: carried["issuer"].GetStringValue(), Facts: carried["facts"].GetStringValue(),
		},
		meter:   m.GetMetadataContext().GetFilterMetadata()[meterSaid].GetFields()[meterInstance].GetStringValue(),
		details: f["response.code_details"].GetStringValue(), engine: f["upstream.address"].GetStringValue(),
	}
	headers := func(field int, h *extprocv3.HttpHeaders) {
		in.field, in.end, in.head = field, h.GetEndOfStream(), about
		for _, v := range h.GetHeaders().GetHeaders() {
			in.head.read(v)
		}
	}
	switch r := m.GetRequest().(type) {
	case *extprocv3.ProcessingRequest_RequestHeaders:
		headers(inRequestHeaders, r.RequestHeaders)
	case *extprocv3.ProcessingRequest_ResponseHeaders:
		headers(inResponseHeaders, r.ResponseHeaders)
	case *extprocv3.ProcessingRequest_RequestBody:
		in.field, in.body, in.end = inRequestBody, r.RequestBody.GetBody(), r.RequestBody.GetEndOfStream()
	case *extprocv3.ProcessingRequest_ResponseBody:
		in.field, in.body, in.end = inResponseBody, r.ResponseBody.GetBody(), r.ResponseBody.GetEndOfStream()
	case *extprocv3.ProcessingRequest_RequestTrailers:
		in.field, in.head = inRequestTrailers, about
	case *extprocv3.ProcessingRequest_ResponseTrailers:
		in.field, in.head = inResponseTrailers, about
	default:
		in.head = about
	}
	return in
}

func (h *head) read(v *corev3.HeaderValue) {
	value := v.GetValue()
	if raw := v.GetRawValue(); len(raw) > 0 {
		value = string(raw)
	}
	switch v.GetKey() {
	case ":method":
		h.method = value
	case ":path":
		h.path = value
	case "x-request-id":
		h.requestID = value
	case "content-length":
		h.contentLength = contentLength(value)
	case ":status":
		h.status, _ = strconv.Atoi(value)
	case "content-type":
		h.kind = kindOf([]byte(value))
	case "content-encoding":
		h.coding = coding([]byte(value))
	case "metadata":
		h.metadata = value
	case "retry-after":
		h.retryAfter = true
	}
}

func decoded(raw []byte) (inbound, error) {
	var in inbound
	err := in.Decode(mem.BufferSlice{mem.SliceBuffer(raw)})
	return in, err
}

func messages() []*extprocv3.ProcessingRequest {
	about := &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
		meterSaid:        {Fields: map[string]*structpb.Value{meterInstance: structpb.NewStringValue("2a02-18eb6b1e"), "more": structpb.NewStringValue("no")}},
		"other":          {Fields: map[string]*structpb.Value{"lease": structpb.NewStringValue("no")}},
		ticket.Namespace: {Fields: map[string]*structpb.Value{"lease": structpb.NewStringValue("0123456789abcdef"), "key": structpb.NewStringValue("key")}},
	}}
	headers := &extprocv3.HttpHeaders{Headers: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
		{Key: ":method", RawValue: []byte("POST")},
		{Key: ":path", RawValue: []byte("/v1/chat/completions")},
		{Key: ":status", RawValue: []byte("200")},
		{Key: "status", RawValue: []byte("500")},
		{Key: "x-request-id", Value: "r1"},
		{Key: "content-length", RawValue: []byte("17")},
		{Key: "content-type", RawValue: []byte("Text/Event-Stream; charset=utf-8")},
		{Key: "content-encoding", RawValue: []byte("Identity")},
		{Key: "retry-after"},
		{Key: "metadata", RawValue: []byte(`{"usage":{}}`)},
	}}}
	attributes := map[string]*structpb.Struct{
		"another filter": {Fields: map[string]*structpb.Value{"upstream.address": structpb.NewStringValue("no")}},
		filter: {Fields: map[string]*structpb.Value{
			"response.code_details": structpb.NewStringValue("via_upstream"),
			"upstream.address":      structpb.NewStringValue("127.0.0.1:8000"),
			"a number":              structpb.NewNumberValue(4),
		}},
	}
	none := &extprocv3.HttpHeaders{EndOfStream: true, Headers: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
		{Key: "content-length", RawValue: []byte("-1")}, {Key: "content-encoding", RawValue: []byte("br")},
	}}}
	return []*extprocv3.ProcessingRequest{
		{},
		{Request: &extprocv3.ProcessingRequest_RequestHeaders{RequestHeaders: headers}, MetadataContext: about},
		{Request: &extprocv3.ProcessingRequest_RequestHeaders{RequestHeaders: none}},
		{Request: &extprocv3.ProcessingRequest_ResponseHeaders{ResponseHeaders: headers}, MetadataContext: about, Attributes: attributes},
		{Request: &extprocv3.ProcessingRequest_RequestBody{RequestBody: &extprocv3.HttpBody{Body: []byte("{}"), EndOfStream: true}}, MetadataContext: about},
		{Request: &extprocv3.ProcessingRequest_ResponseBody{ResponseBody: &extprocv3.HttpBody{Body: []byte("data: x\n\n")}}, MetadataContext: about},
		{Request: &extprocv3.ProcessingRequest_RequestTrailers{RequestTrailers: &extprocv3.HttpTrailers{}}, MetadataContext: about},
		{Request: &extprocv3.ProcessingRequest_ResponseTrailers{ResponseTrailers: &extprocv3.HttpTrailers{}}, ObservabilityMode: true},
	}
}

// checkDecoding holds the reading of a message against the generated code's.
func checkDecoding(t *testing.T, m *extprocv3.ProcessingRequest) {
	t.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decoded(raw)
	if err != nil {
		t.Fatalf("%v: %v", m, err)
	}
	want := generated(m)
	if got.field != want.field || got.end != want.end || !bytes.Equal(got.body, want.body) || got.head != want.head {
		t.Errorf("%v:\ngot  %+v\nwant %+v", m, got, want)
	}
}

func TestMessagesAreReadAsTheGeneratedCodeReadsThem(t *testing.T) {
	for _, m := range messages() {
		checkDecoding(t, m)
	}
}

func TestWhatIsNoMessageIsAnError(t *testing.T) {
	for _, m := range messages()[1:] {
		raw, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		// A body comes first and ends the reading; of other messages the last
		// field is needed.
		if in, err := decoded(raw[:len(raw)-1]); err == nil && in.body == nil {
			t.Errorf("%v without its last byte: %+v", m, in)
		}
	}
}

func FuzzMessagesAreReadAsTheGeneratedCodeReadsThem(f *testing.F) {
	for _, m := range messages() {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, _ = decoded(raw) // an error or not, but no panic
		// Encoded anew it is what Envoy could have written: no field twice, none
		// of another type.
		m := new(extprocv3.ProcessingRequest)
		if (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(raw, m) == nil {
			checkDecoding(t, m)
		}
	})
}

func TestContentTypes(t *testing.T) {
	for value, want := range map[string]kind{
		"application/json":                  jsonBody,
		"Application/JSON; charset=utf-8":   jsonBody,
		"application/problem+json":          jsonBody,
		"text/event-stream":                 eventStream,
		" text/Event-Stream ;charset=utf-8": eventStream,
		"application/octet-stream":          binary,
		"":                                  unreadable,
		"text/html":                         unreadable,
		"text/plain; application/json":      unreadable,
		"application/jsonp":                 unreadable,
		"image/svg+json":                    unreadable,
		"text/event-streams":                unreadable,
	} {
		if got := kindOf([]byte(value)); got != want {
			t.Errorf("%q is %d, want %d", value, got, want)
		}
	}
}

func TestContentCodings(t *testing.T) {
	for value, want := range map[string]string{
		"": "", "identity": "", " Identity , identity": "", "GZIP": "gzip", "identity, br": "br", "gzip,,deflate": "gzip, deflate",
	} {
		if got := coding([]byte(value)); got != want {
			t.Errorf("%q is %q, want %q", value, got, want)
		}
	}
}
