package envoy_test

import (
	"strings"
	"testing"
	"time"

	"tollgate/internal/config"
)

// hostile are headers of an engine that speak for the gateway.
var hostile = []string{
	"X-Ratelimit-Limit-Requests", "X-Quota-Remaining", "Set-Cookie", "Alt-Svc", "Www-Authenticate", "X-Powered-By", "Access-Control-Allow-Origin",
	"Access-Control-Allow-Credentials", "X-Envoy-Immediate-Health-Check-Fail", "X-Envoy-Overloaded", "X-Accel-Redirect", "Via",
}

func TestAnEnginesHeadersStopAtTheEdge(t *testing.T) {
	e := startEdge(t, func(c *config.Config) { c.CORS.AllowOrigins = nil })
	a := e.do(t, "POST", "/v1/completions", strings.NewReader("{}"), "x-test-engine", "headers")
	if a.status != 200 || a.header.Get("X-Kept") != "yes" || a.header.Get("Retry-After") != "7" {
		t.Fatalf("status %d, %v", a.status, a.header)
	}
	for _, name := range hostile {
		if got := a.header.Values(name); len(got) > 0 {
			t.Errorf("%s: %q", name, got)
		}
	}
	// Obeyed, the health check's failure would take the only engine out for a second.
	for range 5 {
		if a := e.do(t, "POST", "/v1/completions", strings.NewReader("{}"), "x-test-engine", "headers"); a.status != 200 {
			t.Fatalf("the engine took itself out: %d %s", a.status, a.body)
		}
	}
}

func TestTheHostAtTheEngineIsItsOwn(t *testing.T) {
	for _, host := range []string{"", "localhost"} {
		e := startEdge(t, func(c *config.Config) {
			if host != "" {
				c.VLLM.Host = host
			}
		})
		want := strings.TrimPrefix(e.upstream.URL, "http://")
		if host != "" {
			_, port, _ := strings.Cut(want, ":")
			want = host + ":" + port
		}
		eventually(t, "an answer", func() bool { return e.do(t, "POST", "/v1/completions", strings.NewReader("{}")).status == 200 })
		e.raw(t, "POST /v1/completions HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
		if got := e.engine.host(); got != want {
			t.Errorf("host at the engine: got %q, want %q", got, want)
		}
	}
}

func TestHeadersWithAnUnderscoreAreDropped(t *testing.T) {
	e := startEdge(t, func(*config.Config) {})
	a := e.do(t, "POST", "/v1/completions", strings.NewReader("{}"), "session_id", "1", "x_api_key", "sk-1", "X_Forwarded_For", "6.6.6.6")
	if a.status != 200 {
		t.Fatalf("status %d %s", a.status, a.body)
	}
	got, _ := e.engine.seen()
	for name := range got {
		if strings.Contains(name, "_") {
			t.Errorf("the engine got %s", name)
		}
	}
	if check := e.stand.lastCheck(); check["x-api-key"] != "" || check["x_api_key"] != "" {
		t.Errorf("Check got %v", check)
	}
}

func TestHTTP10IsSpoken(t *testing.T) {
	e := startEdge(t, func(*config.Config) {})
	for name, text := range map[string]string{
		"without a host": "POST /v1/completions HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}",
		"with a host":    "POST /v1/completions HTTP/1.0\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
		"a stream":       "POST /v1/completions HTTP/1.0\r\nx-test-engine: stream\r\nContent-Length: 2\r\n\r\n{}",
	} {
		got := e.raw(t, text)
		head, body, _ := strings.Cut(got, "\r\n\r\n")
		if !strings.HasPrefix(head, "HTTP/1.0 200") || strings.Contains(strings.ToLower(head), "transfer-encoding") {
			t.Errorf("%s: %q", name, head)
		}
		if want := map[bool]string{true: "data: 1\n\ndata: [DONE]\n\n", false: `{"ok":true}`}[name == "a stream"]; body != want {
			t.Errorf("%s: body %q, want %q", name, body, want)
		}
	}
}

// TestWhatEnvoyRefusesSaysWhatToChange: sentences for people, never Envoy's own
// words for it.
func TestWhatEnvoyRefusesSaysWhatToChange(t *testing.T) {
	e := startEdge(t, impatient)
	const chat = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
	for name, c := range map[string]struct{ text, status, say string }{
		"no host":               {"GET /v1/models HTTP/1.1\r\n\r\n", "400", "Host header"},
		"a host with a path":    {"GET /v1/models HTTP/1.1\r\nHost: x/admin\r\n\r\n", "400", "HOST:PORT"},
		"a fragment":            {"GET /v1/models#f HTTP/1.1\r\nHost: x\r\n\r\n", "400", "'#'"},
		"long headers":          {"GET /v1/models HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 62<<10) + "\r\n\r\n", "431", "60 KiB"},
		"many headers":          {"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("A: a\r\n", 200) + "\r\n", "431", "100 headers"},
		"a zero byte":           {"GET /v1/models HTTP/1.1\r\nHost: x\r\nA: a\x00\r\n\r\n", "400", "byte"},
		"both lengths":          {chat + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400", "one of them"},
		"unknown coding":        {chat + "Transfer-Encoding: gzip\r\n\r\n", "400", "'chunked'"},
		"https without TLS":     {"GET https://x/v1/models HTTP/1.1\r\nHost: x\r\n\r\n", "403", "TLS"},
		"TLS":                   {"\x16\x03\x01\x02\x00\x01\r\n\r\n", "400", "TLS"},
		"a length of letters":   {chat + "Content-Length: 1e3\r\n\r\n", "400", "Content-Length"},
		"a method of its own":   {"FROB /v1/models HTTP/1.1\r\nHost: x\r\n\r\n", "400", "request line"},
		"a body that is slow":   {chat + "Content-Length: 20\r\n\r\n{", "408", "body_timeout"},
		"a protocol it has not": {"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: TLS/1.0\r\n\r\n", "426", "plain HTTP"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := e.raw(t, c.text)
			if !strings.HasPrefix(got, "HTTP/1.1 "+c.status) || !strings.Contains(got, c.say) || !strings.Contains(got, "x-should-retry: false") {
				t.Errorf("got %q, want %s with %q", got, c.status, c.say)
			}
			for _, inner := range []string{"http1.", "_failed", "_header", "too_large\".", "%RESP", "codec"} {
				if strings.Contains(got, inner) {
					t.Errorf("Envoy's own words: %q in %q", inner, got)
				}
			}
		})
	}
}

func TestWhatMustFailAgainIsNotRepeated(t *testing.T) {
	e := startEdge(t, impatient)
	a := e.do(t, "POST", "/v1/chat/completions", strings.NewReader("{}"), "x-test-engine", "silent")
	if a.status != 504 || a.header.Get("X-Should-Retry") != "false" {
		t.Errorf("silence: %d, x-should-retry %q", a.status, a.header.Get("X-Should-Retry"))
	}
	a = e.do(t, "POST", "/v1/chat/completions", strings.NewReader(strings.Repeat("x", 1<<20+1)))
	if a.status != 413 || a.header.Get("X-Should-Retry") != "false" {
		t.Errorf("a large body: %d, x-should-retry %q", a.status, a.header.Get("X-Should-Retry"))
	}
	a = e.do(t, "POST", "/v1/chat/completions", strings.NewReader("{}"), "x-test-engine", "hangup")
	if a.status != 503 || a.header.Get("X-Should-Retry") != "" {
		t.Errorf("an engine that hangs up: %d, x-should-retry %q", a.status, a.header.Get("X-Should-Retry"))
	}
}

// TestLongHeadersPass: agents send tens of kilobytes.
func TestLongHeadersPass(t *testing.T) {
	e := startEdge(t, func(*config.Config) {})
	began := time.Now()
	if a := e.do(t, "POST", "/v1/completions", strings.NewReader("{}"), "x-long", strings.Repeat("a", 50<<10)); a.status != 200 {
		t.Errorf("50 KiB of headers: %d %s, after %v", a.status, a.body, time.Since(began))
	}
}
