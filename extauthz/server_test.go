package extauthz_test

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"tollgate/extauthz"
	"tollgate/internal/admission"
	"tollgate/internal/limit"
	"tollgate/internal/route"
	"tollgate/internal/rpc"
	"tollgate/internal/trace"
)

// gate answers as told and remembers what it was asked.
type gate struct {
	asked  admission.Arrival
	ticket admission.Ticket
	err    error
}

func (g *gate) Admit(_ context.Context, a admission.Arrival) (admission.Ticket, error) {
	g.asked = a
	return g.ticket, g.err
}

// check is one request as Envoy tells of it.
type check struct {
	method, path, host, peer string
	protocol                 string   // HTTP/1.1 where it is empty
	headers                  []string // names and values in turn
}

// ask sends a check to a server of its own, as Envoy does.
func ask(t *testing.T, g *gate, hops int, c check) (*authv3.CheckResponse, error) {
	t.Helper()
	return askWith(t, g, extauthz.Options{TrustedProxies: hops}, c)
}

// askTraced is ask with traces.
func askTraced(t *testing.T, g *gate, sampler *trace.Sampler, c check) (*authv3.CheckResponse, error) {
	t.Helper()
	return askWith(t, g, extauthz.Options{Trace: sampler}, c)
}

func askWith(t *testing.T, g *gate, o extauthz.Options, c check) (*authv3.CheckResponse, error) {
	t.Helper()
	o.Port, o.AllowOrigins, o.MaxBody, o.Log = "8080", []string{"https://chat.example"}, 1<<20, hclog.NewNullLogger()
	lis := bufconn.Listen(1 << 20)
	server := grpc.NewServer(rpc.ServerOptions()...)
	extauthz.Register(server, extauthz.NewServer(g, o))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(lis)
	}()
	conn, err := grpc.NewClient("passthrough:bufconn", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = conn.Close()
		server.Stop()
		<-done
	}()
	return authv3.NewAuthorizationClient(conn).Check(t.Context(), c.request())
}

func (c check) request() *authv3.CheckRequest {
	h := &corev3.HeaderMap{}
	for i := 0; i < len(c.headers); i += 2 {
		h.Headers = append(h.Headers, &corev3.HeaderValue{Key: c.headers[i], RawValue: []byte(c.headers[i+1])})
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: c.peer},
		}}},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: c.method, Path: c.path, Host: c.host, Protocol: cmp.Or(c.protocol, "HTTP/1.1"), HeaderMap: h,
		}},
	}}
}

func local() check {
	return check{method: "POST", path: "/chat/completions?x=1", host: "127.0.0.1:8080", peer: "127.0.0.1", headers: []string{"x-request-id", "r1"}}
}

func TestOnlyAClientOfThisMachineIsLocal(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*check)
		hops   int
		want   bool
	}{
		"plain":               {func(*check) {}, 0, true},
		"IPv6":                {func(c *check) { c.peer, c.host = "::1", "[::1]:8080" }, 0, true},
		"by name":             {func(c *check) { c.host = "LocalHost:8080" }, 0, true},
		"a local page":        {func(c *check) { c.headers = append(c.headers, "origin", "http://localhost:3000") }, 0, true},
		"a foreign page":      {func(c *check) { c.headers = append(c.headers, "origin", "https://evil.example") }, 0, false},
		"a page of no origin": {func(c *check) { c.headers = append(c.headers, "origin", "null") }, 0, false},
		"another peer":        {func(c *check) { c.peer = "192.0.2.1" }, 0, false},
		"another host":        {func(c *check) { c.host = "gate.example" }, 0, false},
		"a host like ours":    {func(c *check) { c.host = "127.0.0.1.evil.example" }, 0, false},
		"Envoy's own scheme":  {said("x-forwarded-proto", "http"), 0, true},
		"a page of our site":  {said("sec-fetch-site", "same-origin"), 0, true},
		"a cross-site page":   {said("sec-fetch-site", "cross-site"), 0, false},
		"forwarded":           {said("x-forwarded-for", "127.0.0.1"), 0, false},
		"RFC 7239":            {said("forwarded", "for=127.0.0.1"), 0, false},
		"via":                 {said("Via", "1.1 nginx"), 0, false},
		"nginx's":             {said("x-real-ip", "127.0.0.1"), 0, false},
		"Cloudflare's":        {said("cf-connecting-ip", "127.0.0.1"), 0, false},
		"Akamai's":            {said("true-client-ip", "127.0.0.1"), 0, false},
		"forwarded host":      {said("X-Forwarded-Host", "127.0.0.1"), 0, false},
		"forwarded port":      {said("x-forwarded-port", "8080"), 0, false},
		"forwarded server":    {said("x-forwarded-server", ""), 0, false},
		"forwarded proto":     {said("x-tollgate-said-proto", "https"), 0, false},
		"an absolute URI":     {said("x-tollgate-said-scheme", "http"), 0, false},
		"the scheme of HTTP/2": {func(c *check) {
			c.protocol, c.headers = "HTTP/2", append(c.headers, "x-tollgate-said-scheme", "http")
		}, 0, true},
		"another port":   {func(c *check) { c.host = "127.0.0.1:80" }, 0, false},
		"no port":        {func(c *check) { c.host = "localhost" }, 0, true},
		"HTTP/1.0":       {func(c *check) { c.protocol = "HTTP/1.0" }, 0, false},
		"behind a proxy": {func(*check) {}, 1, false},
	} {
		g := &gate{}
		in := local()
		c.change(&in)
		if _, err := ask(t, g, c.hops, in); err != nil {
			t.Fatal(err)
		}
		if g.asked.Local != c.want {
			t.Errorf("%s: local %v, want %v", name, g.asked.Local, c.want)
		}
	}
}

func said(name, value string) func(*check) {
	return func(c *check) { c.headers = append(c.headers, name, value) }
}

func TestAnArrivalIsWhatEnvoySaid(t *testing.T) {
	g := &gate{}
	in := local()
	in.headers = append(in.headers, "Authorization", "Bearer x", "x-api-key", "a", "x-api-key", "b", "x-envoy-external-address", "2001:db8::7")
	if _, err := ask(t, g, 1, in); err != nil {
		t.Fatal(err)
	}
	a := g.asked
	if a.Endpoint != "/v1/chat/completions" || a.Class != admission.Inference || a.RequestID != "r1" || a.Method != http.MethodPost {
		t.Errorf("got %+v", a)
	}
	if a.Addr != netip.MustParseAddr("2001:db8::7") {
		t.Errorf("address %v, want the one that Envoy computed", a.Addr)
	}
	if len(a.Authorization) != 1 || len(a.APIKey) != 2 {
		t.Errorf("credentials: %d and %d values", len(a.Authorization), len(a.APIKey))
	}
	if _, err := ask(t, g, 0, in); err != nil || g.asked.Addr != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("without trusted proxies: %v, %v; want the peer", g.asked.Addr, err)
	}
}

func TestATicketTravelsInMetadataAndCredentialsDoNotTravel(t *testing.T) {
	g := &gate{ticket: admission.Ticket{LeaseID: "l1", KeyID: "k1"}}
	out, err := ask(t, g, 0, local())
	if err != nil || codes.Code(out.GetStatus().GetCode()) != codes.OK {
		t.Fatalf("got %v, %v", out, err)
	}
	f := out.GetDynamicMetadata().GetFields()
	if f["lease"].GetStringValue() != "l1" || f["key"].GetStringValue() != "k1" {
		t.Errorf("metadata: %v", f)
	}
	if got := strings.Join(out.GetOkResponse().GetHeadersToRemove(), ","); got != "authorization,x-api-key,"+strings.Join(route.Said(), ",") {
		t.Errorf("removed: %s", got)
	}
}

func TestARefusalIsWhole(t *testing.T) {
	g := &gate{err: &admission.DenialError{Reason: admission.RequestRate, RetryAfter: 1500e6, Standing: admission.Standing{Requests: limit.Rate{Limit: 60}, Tokens: limit.Rate{Limit: limit.Unlimited}}}}
	out, err := ask(t, g, 0, local())
	if err != nil {
		t.Fatal(err)
	}
	d := out.GetDeniedResponse()
	have := map[string]string{}
	for _, h := range d.GetHeaders() {
		have[h.GetHeader().GetKey()] = h.GetHeader().GetValue()
	}
	if d.GetStatus().GetCode() != 429 || have["content-type"] != "application/json" || have["retry-after"] != "2" || have["retry-after-ms"] != "1500" ||
		have["x-ratelimit-limit-requests"] != "60" || have["x-ratelimit-limit-tokens"] != "" || d.GetBody() == "" {
		t.Errorf("got %d %v %s", d.GetStatus().GetCode(), have, d.GetBody())
	}
	if got := out.GetDynamicMetadata().GetFields()["reason"].GetStringValue(); got != "requests" {
		t.Errorf("the log would hear %q", got)
	}
}

func TestOurOwnFailureIsAnErrorNotADenial(t *testing.T) {
	in := local()
	in.method, in.path = "GET", "/v1/models"
	out, err := ask(t, &gate{err: errors.New("disk")}, 0, in)
	if out != nil || status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, %v; want UNAVAILABLE, so that Envoy answers 503", out, err)
	}
}

// refusedBy asks a gate that passes on what the adapter refuses, as the real one
// does when the address has not spent its rate.
func refusedBy(t *testing.T, in check) (status int, headers map[string]string, body string) {
	t.Helper()
	out, err := ask(t, &gate{}, 0, in)
	if err != nil {
		t.Fatal(err)
	}
	headers = map[string]string{}
	for _, h := range out.GetDeniedResponse().GetHeaders() {
		headers[h.GetHeader().GetKey()] = h.GetHeader().GetValue()
	}
	return int(out.GetDeniedResponse().GetStatus().GetCode()), headers, out.GetDeniedResponse().GetBody()
}

func TestWhatNoRouteTakesIsRefusedInTheCheck(t *testing.T) {
	for name, c := range map[string]struct {
		method, path string
		headers      []string
		status       int
		say, allow   string
	}{
		"unknown":                 {"GET", "/nope", nil, 404, "base URL", ""},
		"a slash at the end":      {"POST", "/v1/chat/completions/", nil, 404, "ends in a slash", ""},
		"/v1 twice":               {"POST", "/v1/v1/chat/completions", nil, 404, "/v1 twice", ""},
		"/v1 too much":            {"POST", "/v1/tokenize", nil, 404, "without /v1", ""},
		"/v1 missing":             {"POST", "/messages", nil, 404, "with or without /v1", ""},
		"admin without a slash":   {"GET", "/admin", nil, 404, "Unknown path", ""},
		"an escaped slash":        {"GET", "/v1%2Fmodels", nil, 404, "Unknown path", ""},
		"an escaped slash, admin": {"GET", "/admin/keys%2fx", nil, 404, "Unknown path", ""},
		"an escaped backslash":    {"GET", "/admin%5ckeys", nil, 404, "Unknown path", ""},
		"a method":                {"GET", "/v1/completions", nil, 405, "allow", "POST, OPTIONS"},
		"a method of health":      {"POST", "/health", nil, 405, "allow", "GET, HEAD, OPTIONS"},
		"a method of the root":    {"POST", "/", nil, 405, "allow", "GET, HEAD, OPTIONS"},
		"a method of a model":     {"DELETE", "/v1/models/a%2Fb", nil, 405, "allow", "GET, OPTIONS"},
		"OPTIONS":                 {"OPTIONS", "/v1/models", nil, 405, "allow", "GET, OPTIONS"},
		"a foreign preflight":     {"OPTIONS", "/v1/models", []string{"origin", "https://evil.example", "access-control-request-method", "GET"}, 405, "allow", "GET, OPTIONS"},
		"WebSocket":               {"GET", "/v1/responses", []string{"upgrade", "websocket"}, 426, "WebSocket", ""},
		"a long body":             {"POST", "/v1/completions", []string{"content-length", "1048577"}, 413, "max_body_mb", ""},
		"a very long body":        {"POST", "/v1/completions", []string{"content-length", "99999999999999999999"}, 413, "max_body_mb", ""},
	} {
		in := local()
		in.method, in.path, in.headers = c.method, c.path, append(in.headers, c.headers...)
		status, headers, body := refusedBy(t, in)
		if status != c.status || !strings.Contains(body, c.say) || headers["allow"] != c.allow || headers["content-type"] != "application/json" {
			t.Errorf("%s: got %d %v %s", name, status, headers, body)
		}
	}
	in := local()
	in.path = "/v1/messages/nope"
	if status, _, body := refusedBy(t, in); status != 404 || !strings.Contains(body, `"type":"not_found_error"`) {
		t.Errorf("below /v1/messages: got %d %s, want Anthropic's shape", status, body)
	}
}

func TestAPreflightIsAnsweredInTheCheck(t *testing.T) {
	for _, path := range []string{"/v1/chat/completions", "/nope"} {
		in := local()
		in.method, in.path = "OPTIONS", path
		in.headers = append(in.headers, "origin", "https://chat.example", "access-control-request-method", "POST")
		status, headers, _ := refusedBy(t, in)
		if status != 200 || headers["access-control-allow-origin"] != "https://chat.example" || !strings.Contains(headers["access-control-allow-headers"], "authorization") {
			t.Errorf("%s: got %d %v", path, status, headers)
		}
		out, err := ask(t, &gate{err: admission.Deny(admission.AddressRate)}, 0, in)
		if got := out.GetDeniedResponse().GetStatus().GetCode(); err != nil || got != 429 {
			t.Errorf("%s, beyond the rate of the address: got %v, %v", path, got, err)
		}
	}
}

// Envoy would turn the status of every answer of its own to gRPC into 200, so the
// refusal is handed over to a page of tollgate.
func TestRefusalsOfGRPCAreHandedOver(t *testing.T) {
	for kind, handed := range map[string]bool{
		"application/grpc": true, "application/grpc+proto": true, "application/grpc-web": true, "Application/GRPC-web-text": true,
		"application/json": false, "": false,
	} {
		in := local()
		in.headers = append(in.headers, "content-type", kind)
		out, err := ask(t, &gate{ticket: admission.Ticket{LeaseID: "l1"}}, 0, in)
		if err != nil {
			t.Fatal(err)
		}
		said := map[string]string{}
		for _, h := range out.GetOkResponse().GetHeaders() {
			said[h.GetHeader().GetKey()] = h.GetHeader().GetValue()
		}
		if (said[route.RefusalHeader] == "unsupported_media") != handed {
			t.Errorf("%q: got %v", kind, said)
		}
	}
	in := local()
	in.headers = append(in.headers, "content-type", "application/grpc")
	out, err := ask(t, &gate{err: &admission.DenialError{Reason: admission.AddressRate, RetryAfter: 1500e6}}, 0, in)
	said := out.GetOkResponse().GetHeaders()
	if err != nil || len(said) != 2 || said[0].GetHeader().GetValue() != "qps" || said[1].GetHeader().GetValue() != "1501" {
		t.Errorf("beyond the rate of the address: got %v, %v", said, err)
	}
	if got := out.GetDynamicMetadata().GetFields()["reason"].GetStringValue(); got != "qps" {
		t.Errorf("the log would hear %q", got)
	}
}

// Only the pages of /admin know which path takes which methods.
func TestWrongMethodsOfAdminAreHandedOver(t *testing.T) {
	for _, in := range []check{
		{method: "PUT", path: "/admin/keys"},
		{method: "OPTIONS", path: "/admin/keys"},
		{method: "PUT", path: "/admin/engines/10.0.0.2:8000"},
	} {
		in.peer, in.host = local().peer, local().host
		out, err := ask(t, &gate{}, 0, in)
		said := out.GetOkResponse().GetHeaders()
		if err != nil || len(said) != 1 || said[0].GetHeader().GetKey() != route.RefusalHeader || said[0].GetHeader().GetValue() != "method_not_allowed" {
			t.Errorf("%s %s: got %v, %v", in.method, in.path, said, err)
		}
	}
}

func TestThePageHearsFromWhere(t *testing.T) {
	in := local()
	in.method, in.path = "GET", "/v1/models/a%2Fb?x"
	in.headers = append(in.headers, route.ClientHeader, "evil", route.RefusalHeader, "evil")
	out, err := ask(t, &gate{ticket: admission.Ticket{LeaseID: "l1", KeyID: "ann", Standing: admission.Standing{
		Requests: limit.Rate{Limit: 60, Remaining: 59}, Tokens: limit.Rate{Limit: limit.Unlimited}, Quota: limit.Rate{Limit: limit.Unlimited},
	}}}, 0, in)
	if err != nil {
		t.Fatal(err)
	}
	ok := out.GetOkResponse()
	if set := ok.GetHeaders(); len(set) != 2 || set[1].GetHeader().GetKey() != route.ClientHeader || set[1].GetHeader().GetValue() == "evil" {
		t.Errorf("set: %v", set)
	}
	if !strings.Contains(strings.Join(ok.GetHeadersToRemove(), ","), route.RefusalHeader) {
		t.Errorf("removed: %v", ok.GetHeadersToRemove())
	}
	if len(ok.GetResponseHeadersToAdd()) != 3 {
		t.Errorf("rates for the client: %v", ok.GetResponseHeadersToAdd())
	}
}
