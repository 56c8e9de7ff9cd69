package extauthz

import (
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"tollgate/internal/route"
)

// generated reads a check by way of the generated code: the reference.
func generated(m *authv3.CheckRequest) check { //nolint:gocyclo // a field after the other
	http := m.GetAttributes().GetRequest().GetHttp()
	c := check{
		method: http.GetMethod(), path: http.GetPath(), host: http.GetHost(), protocol: http.GetProtocol(),
		peer: m.GetAttributes().GetSource().GetAddress().GetSocketAddress().GetAddress(),
	}
	c.route = route.Of(c.path)
	all := http.GetHeaderMap().GetHeaders()
	if c.raw = http.GetHeaderMap() != nil; !c.raw {
		for name, value := range http.GetHeaders() {
			all = append(all, &corev3.HeaderValue{Key: name, Value: value})
		}
	}
	for _, v := range all {
		value := v.GetValue()
		if raw := v.GetRawValue(); len(raw) > 0 {
			value = string(raw)
		}
		switch h := &c.headers; strings.ToLower(v.GetKey()) {
		case "authorization":
			h.authorization = append(h.authorization, value)
		case "x-api-key":
			h.apiKey = append(h.apiKey, value)
		case "x-forwarded-for", "via", "x-tollgate-said-proto":
			h.relayed = true
		case "x-tollgate-said-scheme":
			h.scheme = true
		case "origin":
			h.origin = append(h.origin, value)
		case "x-request-id":
			h.requestID = value
		case "x-envoy-external-address":
			h.external = value
		case "content-type":
			h.contentType = value
		case "content-length":
			h.contentLength = value
		case "upgrade":
			h.upgrade = value
		case "anthropic-version":
			h.anthropicVersion = value
		case "access-control-request-method":
			h.preflight = value
		case "x-openwebui-user-email":
			h.userEmail = value
		case "x-openwebui-user-id":
			h.userID = value
		case "x-openwebui-user-name":
			h.userName = value
		}
	}
	return c
}

func checkDecoding(t *testing.T, m *authv3.CheckRequest) {
	t.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var got check
	if err := got.Decode(mem.BufferSlice{mem.SliceBuffer(raw)}); err != nil {
		t.Fatalf("%v: %v", m, err)
	}
	if diff := cmp.Diff(generated(m), got, cmp.AllowUnexported(check{}, headers{})); diff != "" {
		t.Errorf("%v (-want +got)\n%s", m, diff)
	}
}

func checks() []*authv3.CheckRequest {
	return []*authv3.CheckRequest{
		{},
		{Attributes: &authv3.AttributeContext{
			Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
				SocketAddress: &corev3.SocketAddress{Protocol: corev3.SocketAddress_TCP, Address: "2001:db8::7", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 9}},
			}}},
			Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
				Id: "1", Method: "POST", Path: "/v1/completions?x", Host: "gate.example", Scheme: "http", Size: -1, Protocol: "HTTP/1.1",
				HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
					{Key: "Authorization", RawValue: []byte("Bearer x")},
					{Key: "x-api-key", Value: "a"},
					{Key: "x-api-key", RawValue: []byte("b")},
					{Key: "x-forwarded-for", RawValue: []byte("192.0.2.1")},
					{Key: "origin"},
					{Key: "x-request-id", Value: "no", RawValue: []byte("r1")},
					{Key: "x-envoy-external-address", RawValue: []byte("192.0.2.2")},
					{Key: "other", RawValue: []byte("value")},
					{Key: "content-type", RawValue: []byte("application/json")},
					{Key: "Content-Length", RawValue: []byte("12")},
					{Key: "upgrade", RawValue: []byte("websocket")},
					{Key: "anthropic-version", RawValue: []byte("2023-06-01")},
					{Key: "access-control-request-method", RawValue: []byte("POST")},
					{Key: "X-OpenWebUI-User-Email", RawValue: []byte("ann@example.org")},
					{Key: "x-openwebui-user-id", RawValue: []byte("4f2c")},
					{Key: "x-openwebui-user-name", Value: "Ann%20B."},
					{Key: "x-openwebui-user-role", Value: "admin"},
				}},
			}},
			Destination: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
				SocketAddress: &corev3.SocketAddress{Address: "192.0.2.3"},
			}}},
		}},
		{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "POST", Path: "/v1/completions", Headers: map[string]string{
				":method": "POST", "authorization": "Bearer x", "x-api-key": "a,b", "x-forwarded-for": "192.0.2.1", "content-length": "12", "x-request-id": "r1",
			},
		}}}},
		{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Headers:   map[string]string{"authorization": "Bearer joined", "via": "x"},
			HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{{Key: "authorization", RawValue: []byte("Bearer raw")}}},
		}}}},
		{Attributes: &authv3.AttributeContext{Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{
			Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: "/tmp/socket"}},
		}}}},
	}
}

func TestChecksAreReadAsTheGeneratedCodeReadsThem(t *testing.T) {
	for _, m := range checks() {
		checkDecoding(t, m)
	}
}

func FuzzChecksAreReadAsTheGeneratedCodeReadsThem(f *testing.F) {
	for _, m := range checks() {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		_ = new(check).Decode(mem.BufferSlice{mem.SliceBuffer(raw)}) // an error or not, but no panic
		// Encoded anew it is what Envoy could have written: no field twice, none
		// of another type.
		m := new(authv3.CheckRequest)
		if (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(raw, m) == nil {
			checkDecoding(t, m)
		}
	})
}
