package envoy_test

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"tollgate/internal/config"
)

// The tests of this file look at a real Envoy from outside.

func impatient(c *config.Config) {
	c.Request.BodyTimeout = time.Second
	c.Request.IdleTimeout = 2 * time.Second
}

func TestEnvoysOwnErrorsLookLikeOpenAIs(t *testing.T) {
	e := startEdge(t, impatient)
	big := strings.Repeat("x", 1<<20+1)
	for _, tt := range []struct {
		name, method, path, body string
		header                   []string
		status                   int
		kind, code               string
		retry                    bool
	}{
		{name: "too large", method: "POST", path: "/v1/chat/completions", body: big, status: 413, kind: "invalid_request_error", code: "request_too_large"},
		{name: "huge header", method: "GET", path: "/v1/models", header: []string{"x-big", big[:62000]}, status: 431, kind: "invalid_request_error", code: "invalid_request"},
		{name: "Check fails", method: "POST", path: "/v1/chat/completions", header: []string{"x-test-authz", "error"}, status: 503, kind: "server_error", code: "service_unavailable", retry: true},
		{name: "Check hangs", method: "GET", path: "/health", header: []string{"x-test-authz", "hang"}, status: 503, kind: "server_error", code: "service_unavailable", retry: true},
		{name: "Check answers nonsense", method: "GET", path: "/v1/models", header: []string{"x-test-authz", "invalid"}, status: 503, kind: "server_error", code: "service_unavailable", retry: true},
		{name: "Process fails", method: "POST", path: "/v1/chat/completions", body: "{}", header: []string{"x-test-proc", "error"}, status: 503, kind: "server_error", code: "service_unavailable", retry: true},
		{name: "the admin page hangs", method: "GET", path: "/health", header: []string{"x-test-page", "hang"}, status: 503, kind: "server_error", code: "service_unavailable", retry: true},
		{name: "vLLM hangs up", method: "POST", path: "/v1/chat/completions", body: "{}", header: []string{"x-test-engine", "hangup"}, status: 503, kind: "server_error", code: "engine_unavailable", retry: true},
		{name: "vLLM is silent", method: "POST", path: "/v1/chat/completions", body: "{}", header: []string{"x-test-engine", "silent"}, status: 504, kind: "server_error", code: "timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := e.do(t, tt.method, tt.path, strings.NewReader(tt.body), append(tt.header, "origin", "http://any.example")...)
			if a.status != tt.status {
				t.Errorf("status: got %d, want %d", a.status, tt.status)
			}
			if kind, code := a.openAIError(t); kind != tt.kind || code != tt.code {
				t.Errorf("got %s %s, want %s %s", kind, code, tt.kind, tt.code)
			}
			if got := a.header.Get("Retry-After"); (got == "2") != tt.retry {
				t.Errorf("retry-after: got %q, want one: %v", got, tt.retry)
			}
			if got := a.header.Get("Access-Control-Allow-Origin"); got == "" {
				t.Error("a web page could not read this error")
			}
		})
	}
}

func TestBodiesAreBoundedExactly(t *testing.T) {
	e := startEdge(t, func(*config.Config) {})
	for _, path := range []string{"/v1/chat/completions", "/v1/messages", "/completions", "/admin/keys"} {
		for size, tooLarge := range map[int]bool{1 << 20: false, 1<<20 + 1: true, 20 << 20: true} {
			for _, length := range []string{"known", "unknown"} {
				var body io.Reader = strings.NewReader(strings.Repeat("x", size))
				if length == "unknown" {
					body = io.MultiReader(body) // hides the size: chunked
				}
				before, _ := e.stand.counts()
				a := e.do(t, "POST", path, body)
				after, _ := e.stand.counts()
				if (a.status == 413) != tooLarge {
					t.Errorf("%s, %d bytes, length %s: status %d", path, size, length, a.status)
				}
				if after-before != 1 {
					t.Errorf("%s, %d bytes: %d checks; every request pays the rate of its address", path, size, after-before)
				}
			}
		}
	}
}

func TestProcessThatHangsIs503(t *testing.T) {
	e := startEdge(t, func(*config.Config) {})
	a := e.do(t, "POST", "/v1/completions", strings.NewReader("{}"), "x-test-proc", "hang")
	if _, code := a.openAIError(t); a.status != 503 || code != "service_unavailable" {
		t.Errorf("got %d %s, want 503 service_unavailable", a.status, code)
	}
}

func TestErrorsOfTheCodecAreJSON(t *testing.T) {
	e := startEdge(t, impatient)
	for _, tt := range []struct{ name, text, status, code string }{
		{"unknown transfer-encoding", "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xyz\r\n\r\n", "400", "invalid_request"},
		{"no host", "GET /v1/models HTTP/1.1\r\n\r\n", "400", "invalid_request"},
		{"both lengths", "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400", "invalid_request"},
		{"body that never ends", "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{", "408", "request_timeout"},
		{"header that never ends", "POST /v1/completions HTTP/1.1\r\nHost: x\r\nA", "408", "request_timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := e.raw(t, tt.text)
			if !strings.HasPrefix(got, "HTTP/1.1 "+tt.status) || !strings.Contains(got, `"code":"`+tt.code+`"`) || !strings.Contains(got, "x-request-id: ") {
				t.Errorf("got %q, want %s %s", got, tt.status, tt.code)
			}
		})
	}
}

func TestErrorsOnMessagesLookLikeAnthropics(t *testing.T) {
	e := startEdge(t, impatient)
	for _, tt := range []struct {
		name, method, path, body string
		header                   []string
		status                   int
		kind                     string
	}{
		{"too large", "POST", "/v1/messages?beta=true", strings.Repeat("x", 1<<20+1), nil, 413, "request_too_large"},
		{"Check fails", "POST", "/v1/messages/count_tokens", "{}", []string{"x-test-authz", "error"}, 503, "api_error"},
		{"Process fails", "POST", "/v1/messages", "{}", []string{"x-test-proc", "error"}, 503, "api_error"},
		{"vLLM hangs up", "POST", "/v1/messages", "{}", []string{"x-test-engine", "hangup"}, 503, "overloaded_error"},
		{"vLLM is silent", "POST", "/v1/messages", "{}", []string{"x-test-engine", "silent"}, 504, "timeout_error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := e.do(t, tt.method, tt.path, strings.NewReader(tt.body), tt.header...)
			if a.status != tt.status {
				t.Errorf("status: got %d, want %d", a.status, tt.status)
			}
			var doc struct {
				Type  string
				Error struct{ Type, Message string }
			}
			if err := json.Unmarshal([]byte(a.body), &doc); err != nil {
				t.Fatalf("%q: %v", a.body, err)
			}
			if doc.Type != "error" || doc.Error.Type != tt.kind || doc.Error.Message == "" {
				t.Errorf("got %s, want type %s", a.body, tt.kind)
			}
		})
	}
}

func TestAnswersOfOthersPassUntouched(t *testing.T) {
	e := startEdge(t, func(*config.Config) {})
	for _, tt := range []struct {
		name, method, path string
		header             []string
		status             int
		body               string
	}{
		{"denial", "POST", "/v1/messages", []string{"x-test-authz", "deny"}, 429, `{"error":"ours"}`},
		{"refusal", "POST", "/v1/messages", []string{"x-test-proc", "refuse"}, 404, `{"error":"ours"}`},
		{"vLLM's error", "POST", "/v1/completions", []string{"x-test-engine", "busy"}, 503, "from vLLM"},
		{"health", "GET", "/health", nil, 503, "tollgate's page GET /health"},
		{"health by HEAD", "HEAD", "/health", nil, 503, ""},
		{"metrics", "GET", "/metrics", nil, 503, "tollgate's page GET /metrics"},
		{"admin", "DELETE", "/admin/requests/1?x=y", nil, 503, "tollgate's page DELETE /admin/requests/1?x=y"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := e.do(t, tt.method, tt.path, http.NoBody, tt.header...)
			if a.status != tt.status || a.body != tt.body {
				t.Errorf("got %d %q, want %d %q", a.status, a.body, tt.status, tt.body)
			}
			if a.header.Get("X-Request-Id") == "" {
				t.Error("no x-request-id")
			}
		})
	}
}

func TestWhoIsAskedOnWhichRoute(t *testing.T) {
	e := startEdge(t, func(*config.Config) {})
	for _, tt := range []struct {
		method, path  string
		check, stream int
	}{
		{"GET", "/health", 1, 0},
		{"HEAD", "/health", 1, 0},
		{"GET", "/metrics", 1, 0},
		{"POST", "/admin/reload-keys", 1, 0},
		{"GET", "/v1/models", 1, 0},
		{"GET", "/models", 1, 0},
		{"GET", "/v1/models/Qwen%2FQwen3-8B", 1, 0},
		{"HEAD", "/", 1, 0},
		{"POST", "/tokenize", 1, 1},
		{"POST", "/v1/responses", 1, 1},
		// What is refused costs the rate of the address, hence a check, and never a stream.
		{"DELETE", "/v1/responses", 1, 0},
		{"POST", "/models", 1, 0},
		{"PUT", "/admin/keys", 1, 0},
		{"OPTIONS", "/v1/models", 1, 0},
		{"GET", "/nope", 1, 0},
		{"GET", "/v1%2Fmodels", 1, 0},
		{"POST", "/v1/chat/completions%2F", 1, 0},
	} {
		checks, procs := e.stand.counts()
		e.do(t, tt.method, tt.path, http.NoBody)
		nowChecks, nowProcs := e.stand.counts()
		if nowChecks-checks != tt.check || nowProcs-procs != tt.stream {
			t.Errorf("%s %s: got %d checks and %d streams, want %d and %d", tt.method, tt.path, nowChecks-checks, nowProcs-procs, tt.check, tt.stream)
		}
	}
}

func TestEveryMeteredRouteReachesVLLMUnderItsFullName(t *testing.T) {
	e := startEdge(t, func(*config.Config) {})
	for _, path := range []string{
		"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens", "/v1/score", "/v1/rerank",
		"/v2/rerank", "/pooling", "/classify",
		"/tokenize", "/detokenize", "/chat/completions", "/completions", "/embeddings", "/score", "/rerank",
	} {
		a := e.do(t, "POST", path+"?a=b", strings.NewReader("{}"))
		want := path
		if slices.Contains([]string{"/chat/completions", "/completions", "/embeddings", "/score", "/rerank"}, path) {
			want = "/v1" + path
		}
		if _, got := e.engine.seen(); a.status != 200 || got != want+"?a=b" {
			t.Errorf("%s: status %d, vLLM saw %s", path, a.status, got)
		}
	}
}

func TestClientHeadersEndWhereTheyAreNotNeeded(t *testing.T) {
	e := startEdge(t, func(*config.Config) {})
	sent := []string{
		"authorization", "Bearer sk-client", "x-api-key", "sk-client", "cookie", "c=1", "proxy-authorization", "Basic x", "accept-encoding", "gzip",
		"x-vllm-priority", "-1", "x-data-parallel-rank", "1", "x-session-id", "s", "endpoint-load-metrics-format", "JSON", "x-forwarded-for", "6.6.6.6",
		"x-forwarded-host", "evil", "forwarded", "for=6.6.6.6", "x-real-ip", "6.6.6.6", "x-envoy-external-address", "6.6.6.6", "x-envoy-internal", "true",
		"x-envoy-upstream-rq-timeout-ms", "1", "x-envoy-original-path", "/admin/", "x-request-id", "evil-1", "user-agent", "kept",
		"via", "1.1 evil", "x-http-method-override", "DELETE", "x-forwarded-port", "1", "x-forwarded-prefix", "/evil", "session_id", "codex",
		"x-openwebui-user-email", "ann@example.org", "x-openwebui-user-name", "Ann", "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}
	a := e.do(t, "POST", "/chat/completions", strings.NewReader("{}"), sent...)
	id := a.header.Get("X-Request-Id")
	if id == "" || id == "evil-1" {
		t.Errorf("request id of the client's own choice: %q", id)
	}
	got, _ := e.engine.seen()
	trace := got.Get("Traceparent") // or the engine's spans would not belong to the client's trace
	got.Del("X-Request-Id")
	for _, allowed := range []string{"User-Agent", "Content-Length", "Traceparent"} {
		got.Del(allowed)
	}
	if len(got) != 0 || trace == "" {
		t.Errorf("vLLM also got %v; the client's traceparent %q", got, trace)
	}
	check := e.stand.lastCheck()
	if check["authorization"] != "Bearer sk-client" || check["x-api-key"] != "sk-client" || check["x-request-id"] != id {
		t.Errorf("Check did not get the credentials or the id: %v", check)
	}
	e.stand.mu.Lock()
	proc, ticket := e.stand.procs[0], e.stand.tickets[0]
	e.stand.mu.Unlock()
	for _, h := range []string{"authorization", "x-api-key", "cookie", "proxy-authorization"} {
		if _, ok := proc[h]; ok {
			t.Errorf("ext_proc got %s", h)
		}
	}
	if ticket != "L1" || proc["x-request-id"] != id {
		t.Errorf("ext_proc: ticket %q, id %q, want L1 and %s", ticket, proc["x-request-id"], id)
	}
	e.checkEntry(t, id)
}

// checkEntry: the access log knows who answered, and the ticket.
func (e *edge) checkEntry(t *testing.T, id string) {
	t.Helper()
	entry := e.stand.entry(t, id)
	if got := entry.GetResponse().GetResponseCodeDetails(); got != "via_upstream" {
		t.Errorf("access log: details %q", got)
	}
	lease := entry.GetCommonProperties().GetMetadata().GetFilterMetadata()["envoy.filters.http.ext_authz"].GetFields()["lease"].GetStringValue()
	if lease != "L1" || entry.GetRequest().GetPath() != "/v1/chat/completions" {
		t.Errorf("access log: lease %q, path %q", lease, entry.GetRequest().GetPath())
	}
}

func TestClientAddressIsWhatTrustedProxiesSay(t *testing.T) {
	for hops, wants := range [][3]string{
		{"127.0.0.1", "127.0.0.1", "127.0.0.1"},
		{"127.0.0.1", "1.2.3.4", "5.6.7.8"},
		{"127.0.0.1", "127.0.0.1", "9.9.9.9"},
	} {
		e := startEdge(t, func(c *config.Config) { c.TrustedProxies = hops })
		for i, xff := range []string{"", "1.2.3.4", "9.9.9.9, 5.6.7.8"} {
			header := []string{"x-envoy-external-address", "6.6.6.6"}
			if xff != "" {
				header = append(header, "x-forwarded-for", xff)
			}
			e.do(t, "GET", "/health", http.NoBody, header...)
			check := e.stand.lastCheck()
			if check["source"] != "127.0.0.1" || check["x-envoy-external-address"] != wants[i] {
				t.Errorf("hops %d, xff %q: source %s, external address %s, want %s", hops, xff, check["source"], check["x-envoy-external-address"], wants[i])
			}
			// The default key depends on it: nothing is added to what the client sent.
			if got, sent := check["x-forwarded-for"], xff != ""; got != xff || (got != "") != sent {
				t.Errorf("hops %d: xff %q became %q", hops, xff, got)
			}
		}
	}
}

func TestWebPagesMayCall(t *testing.T) {
	e := startEdge(t, func(*config.Config) {})
	for path, header := range map[string][]string{
		"/v1/completions": {"x-test-engine", "busy"}, "/v1/embeddings": {"x-test-authz", "deny"}, "/v1/score": {"x-test-proc", "refuse"},
		"/nope": nil, "/health": nil, "/v1/models": {"x-test-authz", "error"},
	} {
		a := e.do(t, "POST", path, strings.NewReader("{}"), append(header, "origin", "https://any.example")...)
		if got := a.header.Values("Access-Control-Allow-Origin"); len(got) != 1 || got[0] != "https://any.example" {
			t.Errorf("%s: %d, allowed %q", path, a.status, got)
		}
	}
	e = startEdge(t, func(c *config.Config) {
		c.CORS.AllowOrigins = []string{"https://chat.example", "http://localhost:3000"}
	})
	for origin, want := range map[string]string{
		"https://chat.example": "https://chat.example", "http://localhost:3000": "http://localhost:3000",
		"https://chat-example": "", "https://chat.example.evil": "", "null": "",
	} {
		for _, path := range []string{"/v1/models", "/nope", "/tokenize"} {
			a := e.do(t, "GET", path, http.NoBody, "origin", origin)
			if got := a.header.Values("Access-Control-Allow-Origin"); strings.Join(got, "|") != want {
				t.Errorf("%s for %s: allowed %q, want %q", path, origin, got, want)
			}
		}
	}
}

// A preflight is the check's to answer, since it costs the rate of the address.
func TestPreflightsAreAnsweredByTheCheck(t *testing.T) {
	e := startEdge(t, func(*config.Config) {})
	before, _ := e.stand.counts()
	a := e.do(t, "OPTIONS", "/v1/chat/completions", http.NoBody,
		"origin", "https://any.example", "access-control-request-method", "POST", "x-test-authz", "preflight")
	if a.status != 200 || a.body != "" || a.header.Get("Access-Control-Allow-Origin") != "checked" {
		t.Errorf("got %d %q %v", a.status, a.body, a.header)
	}
	if after, _ := e.stand.counts(); after != before+1 || e.stand.lastCheck()["access-control-request-method"] != "POST" {
		t.Errorf("%d checks, the last of %v", after-before, e.stand.lastCheck())
	}
}

func TestAnOfferOfWebSocketIsTheChecksToRefuse(t *testing.T) {
	e := startEdge(t, func(*config.Config) {})
	const offer = "GET /v1/responses HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n"
	if got := e.raw(t, offer+"x-test-authz: deny\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 429") || !strings.Contains(got, `{"error":"ours"}`) {
		t.Errorf("got %q, want the check's answer", got)
	}
	if e.stand.lastCheck()["upgrade"] != "websocket" {
		t.Errorf("the check does not hear of the offer: %v", e.stand.lastCheck())
	}
	// Even if a check let it pass, no engine would see it.
	before, _ := e.engine.seen()
	got := e.raw(t, offer+"\r\n")
	if after, _ := e.engine.seen(); len(after) != len(before) || strings.HasPrefix(got, "HTTP/1.1 101") {
		t.Errorf("got %q; an engine saw %v", got, after)
	}
}

// Envoy sends the status of its own answers to gRPC as 200, so tollgate's page
// answers.
func TestGRPCGoesToTollgatesPage(t *testing.T) {
	e := startEdge(t, func(*config.Config) {})
	for _, kind := range []string{"application/grpc", "application/grpc+proto", "Application/gRPC-Web"} {
		for path, size := range map[string]int{"/v1/chat/completions": 5, "/nope": 5, "/health": 5, "/v1/completions": 2 << 20} {
			a := e.do(t, "POST", path, strings.NewReader(strings.Repeat("x", size)), "content-type", kind)
			if a.status != 503 || !strings.HasPrefix(a.body, "tollgate's page POST "+path) {
				t.Errorf("%s as %s: got %d %s", path, kind, a.status, a.body)
			}
		}
	}
}

// TestPipelinedRequestsAreAnswered: Envoy's own direct responses left the third of
// five without an answer.
func TestPipelinedRequestsAreAnswered(t *testing.T) {
	e := startEdge(t, func(*config.Config) {})
	text := strings.Repeat("GET /nope HTTP/1.1\r\nHost: x\r\nx-test-authz: deny\r\n\r\n", 4) +
		"GET /nope HTTP/1.1\r\nHost: x\r\nx-test-authz: deny\r\nConnection: close\r\n\r\n"
	if got := strings.Count(e.raw(t, text), "HTTP/1.1 429"); got != 5 {
		t.Errorf("%d answers to 5 requests", got)
	}
}
