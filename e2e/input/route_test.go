package input_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"tollgate/e2e/stack"
)

func itoa(n int) string { return strconv.Itoa(n) }

var notFound = stack.Problem{Status: 404, Type: "invalid_request_error", Code: "not_found"}

func TestOnlyKnownPathsWithTheirMethods(t *testing.T) {
	s := stack.Start(t, stack.Options{})
	const user = "Authorization: Bearer " + stack.Key
	methods := func(want string, paths ...string) {
		for _, path := range paths {
			for _, m := range []string{"GET", "PUT", "DELETE", "PATCH", "POST", "HEAD"} {
				if strings.Contains(want, m) {
					continue
				}
				a := s.Raw(request(m, path, "", user))
				if a.Response == nil || a.StatusCode != http.StatusMethodNotAllowed || a.Header.Get("Allow") == "" || !strings.Contains(a.Header.Get("Allow"), strings.Split(want, ",")[0]) {
					t.Errorf("%s %s: got %v, want 405 with allow", m, path, a.Response)
				} else if m != "HEAD" {
					stack.WantProblem(t, a, stack.Problem{Status: 405, Type: "invalid_request_error", Code: "method_not_allowed"})
				}
			}
		}
	}
	methods("POST", "/v1/chat/completions", "/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/tokenize", "/rerank")
	methods("GET", "/v1/models", "/models", "/metrics")
	methods("GET,HEAD", "/health", "/")
	methods("POST", "/v2/rerank", "/pooling", "/classify")

	for _, path := range []string{
		"/v1", "/v1/", "/v1/chat/completions/", "/v1/chat/completions/x", "/V1/chat/completions", "/v1/chat/Completions", "/admin",
		"/v1/models/", "/v1/v1/models", "/version", "/load", "/ping", "/invocations", "/pause", "/sleep", "/wake_up", "/collective_rpc", "/update_weights",
		"/server_info", "/reset_prefix_cache", "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/docs", "/openapi.json", "/sim/stats",
		"/v1/completions;a=b", "/healthz", "/stats", "/quitquitquit", "/metrics/", "/health/",
	} {
		for _, m := range []string{"GET", "POST"} {
			stack.WantProblem(t, s.Raw(request(m, path, "", user)), notFound)
			stack.WantProblem(t, s.Raw(request(m, path, "")), notFound) // before authorization
		}
	}
	if got := s.Sim.Stats().Requests; got != 0 {
		t.Errorf("the engine saw %d requests", got)
	}
}

func TestPathTricksReachNothing(t *testing.T) {
	s := stack.Start(t, stack.Options{})
	const user = "Authorization: Bearer " + stack.Key
	for path, want := range map[string]int{
		"//v1/models":                   200, // merged: the same route, with its own key
		"/./v1/models":                  200,
		"/admin/../v1/models":           200,
		"/v1/%6dodels":                  200, // one spelling after normalization
		"/v1/../admin/requests":         403,
		"/v1/%2e%2e/admin/requests":     403,
		"//admin/requests":              403,
		"/./admin/requests":             403,
		"/%61dmin/requests":             403,
		"/v1/..;/admin/requests":        403, // parameters of a segment are dropped first
		"/admin/requests%00":            400,
		"/v1/models%2f..%2fadmin":       404, // an escaped slash makes no other path
		"/v1%2Fmodels":                  404,
		"/v1%5cmodels":                  404,
		"/%2e%2e%2fadmin/requests":      404,
		"/admin/%2e%2e%2frequests":      404,
		"/admin%2Frequests":             404,
		"/admin/requests%2f":            404,
		"/v1/chat%2Fcompletions":        404,
		"/v1/models/..%2f..%2fadmin":    404, // the name of a model that is not there
		"/v1/models/tiny%2F..":          404,
		"/v1/models/%74iny":             200,
		"/v1/models#f":                  400,
		"/v1/%252e%252e/admin/requests": 404, // decoded once only
		"/ADMIN/requests":               404,
		"http://127.0.0.1/v1/models":    200,
		"v1/models":                     400,
	} {
		a := s.Raw(request("GET", path, "", user))
		if a.Response == nil || a.StatusCode != want {
			t.Errorf("%s: got %v %.200s, want %d", path, a.Response, a.Bytes, want)
			continue
		}
		if want >= 400 {
			stack.Refusal(t, a)
		}
		if anonymous := s.Raw(request("GET", path, "")); anonymous.Response == nil || anonymous.StatusCode < 400 {
			t.Errorf("%s passes without a key", path)
		}
	}
	for _, lines := range [][]string{
		{"X-Original-URL: /admin/requests"},
		{"X-Rewrite-URL: /admin/requests"},
		{"X-Envoy-Original-Path: /admin/requests"},
		{"X-Forwarded-Uri: /health"},
		{"x-envoy-auth-failure-mode-allowed: true"},
		{"Connection: authorization"},
		{"X-HTTP-Method-Override: GET"},
	} {
		a := s.Raw(request("GET", "/admin/requests", "", append(lines, user)...))
		if a.Response == nil || (a.StatusCode != http.StatusForbidden && a.StatusCode != http.StatusUnauthorized && a.StatusCode != http.StatusBadRequest) {
			t.Errorf("%v: got %v", lines, a.Response)
		}
	}
}

func TestWhoMayReadWhat(t *testing.T) {
	s := stack.Start(t, stack.Options{})
	for _, c := range []*http.Client{s.HTTP1, s.HTTP2} {
		for _, path := range []string{"/metrics", "/admin/requests", "/admin/keys", "/admin/usage", "/admin/limits/ann", "/admin/engine", "/admin/nothing"} {
			stack.WantProblem(t, s.Do(c, "GET", path, "", "Authorization", "Bearer "+stack.Key), noPermission)
			stack.WantProblem(t, s.Do(c, "GET", path, ""), invalidKey)
		}
	}
	stack.WantProblem(t, s.Post("/admin/reload-keys", ""), noPermission)
	stack.WantProblem(t, s.Admin("GET", "/admin/nothing", ""), notFound)
	stack.WantProblem(t, s.Admin("GET", "/admin/reload-keys", ""), stack.Problem{Status: 405, Type: "invalid_request_error", Code: "method_not_allowed"})
	stack.WantProblem(t, s.Admin("PUT", "/admin/reload-keys", ""), stack.Problem{Status: 405, Type: "invalid_request_error", Code: "method_not_allowed"})
	if a := s.Admin("GET", "/metrics", ""); a.StatusCode != http.StatusOK || !strings.Contains(string(a.Bytes), "tollgate_leases_live") ||
		!strings.Contains(string(a.Bytes), "http_requests_total") {
		t.Errorf("metrics for an admin: %d %.200s", a.StatusCode, a.Bytes)
	}
	healthShape(t, s)
}

func healthShape(t *testing.T, s *stack.Stack) {
	t.Helper()
	a := s.Admin("GET", "/health", "")
	engine, _ := a.JSON()["vllm"].([]any)
	if a.StatusCode != http.StatusOK || a.JSON()["status"] != "ok" || a.JSON()["default_key"] != false || len(engine) != 1 || len(a.JSON()) != 3 {
		t.Fatalf("health: %d %s", a.StatusCode, a.Bytes)
	}
	if e, _ := engine[0].(map[string]any); e["target"] != "http://"+s.Cfg.EngineAddresses()[0] || e["ready"] != true || len(e) != 2 {
		t.Errorf("health of the engine: %v", e)
	}
	if head := s.Do(s.HTTP1, "HEAD", "/health", ""); head.StatusCode != http.StatusOK || len(head.Bytes) != 0 || head.Header.Get("Content-Type") != "application/json" {
		t.Errorf("HEAD /health: %d %q", head.StatusCode, head.Bytes)
	}
}

func TestCrossOriginRequests(t *testing.T) {
	s := stack.Start(t, stack.Options{})
	const origin = "Origin: https://chat.example"
	a := s.Raw(request("OPTIONS", stack.ChatPath, "", origin, "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization,content-type"))
	if a.Response == nil || a.StatusCode >= 300 {
		t.Fatalf("preflight: %v", a.Response)
	}
	allow := strings.ToLower(a.Header.Get("Access-Control-Allow-Headers"))
	if !strings.Contains(allow, "authorization") || !strings.Contains(allow, "x-api-key") || !strings.Contains(a.Header.Get("Access-Control-Allow-Methods"), "POST") {
		t.Errorf("preflight: %v", a.Header)
	}
	crossOriginAnswers(t, s, origin)
	restricted := stack.Start(t, stack.Options{Config: `cors: {allow_origins: ["https://ours.example"]}`})
	for origin, want := range map[string]string{"https://ours.example": "https://ours.example", "https://evil.example": ""} {
		a := restricted.Raw(request("POST", stack.ChatPath, hello, "Origin: "+origin, "Authorization: Bearer "+stack.Key))
		if a.Response == nil || a.Header.Get("Access-Control-Allow-Origin") != want {
			t.Errorf("%s with one allowed origin: %v", origin, a.Header)
		}
	}
}

// crossOriginAnswers: a page may read every answer, errors included.
func crossOriginAnswers(t *testing.T, s *stack.Stack, origin string) {
	t.Helper()
	for name, req := range map[string]string{
		"answer":       request("POST", stack.ChatPath, hello, origin, "Authorization: Bearer "+stack.Key),
		"no key":       request("POST", stack.ChatPath, hello, origin),
		"bad body":     request("POST", stack.ChatPath, "[]", origin, "Authorization: Bearer "+stack.Key),
		"unknown path": request("GET", "/nothing", "", origin),
		"wrong method": request("GET", stack.ChatPath, "", origin),
		"health":       request("GET", "/health", "", origin),
	} {
		a := s.Raw(req)
		if a.Response == nil {
			t.Errorf("%s: %v", name, a.Err)
			continue
		}
		if got := a.Header.Values("Access-Control-Allow-Origin"); len(got) != 1 || (got[0] != "*" && got[0] != "https://chat.example") {
			t.Errorf("%s (%d): access-control-allow-origin %q", name, a.StatusCode, got)
		}
		if a.StatusCode != http.StatusNotFound && a.StatusCode != http.StatusMethodNotAllowed && a.Header.Get("Access-Control-Expose-Headers") == "" {
			t.Errorf("%s (%d): a page cannot read the headers", name, a.StatusCode)
		}
	}
}
