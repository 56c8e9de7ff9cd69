package input_test

import (
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// TestOddRequestsAreAnsweredOrClosed: none passes without a key, every answer comes
// from the gateway, and the edge lives on.
func TestOddRequestsAreAnsweredOrClosed(t *testing.T) {
	s := stack.Start(t, stack.Options{})
	const user = "Authorization: Bearer " + stack.Key + "\r\n"
	const end = "\r\n\r\n"
	chat := "POST /v1/chat/completions HTTP/1.1\r\nContent-Type: application/json\r\n"
	for name, raw := range map[string]string{
		"no host":                    "GET /v1/models HTTP/1.1\r\n" + user + "\r\n",
		"two hosts":                  "GET /v1/models HTTP/1.1\r\nHost: a\r\nHost: b\r\n" + user + "\r\n",
		"HTTP/1.0":                   "GET /v1/models HTTP/1.0\r\n" + user + "\r\n",
		"HTTP/0.9":                   "GET /v1/models\r\n\r\n",
		"HTTP/3.7":                   "GET /v1/models HTTP/3.7\r\nHost: x" + end,
		"no path":                    "GET  HTTP/1.1\r\nHost: x" + end,
		"asterisk":                   "OPTIONS * HTTP/1.1\r\nHost: x" + end,
		"connect":                    "CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: x\r\n" + user + "\r\n",
		"trace":                      "TRACE /v1/models HTTP/1.1\r\nHost: x\r\n" + user + "\r\n",
		"own method":                 "FROB /v1/chat/completions HTTP/1.1\r\nHost: x\r\n" + user + "\r\n",
		"zero byte in a header":      "GET /v1/models HTTP/1.1\r\nHost: x\r\nX-A: a\x00b\r\n" + user + "\r\n",
		"zero byte in the key":       "GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\x00b" + end,
		"folded header":              "GET /v1/models HTTP/1.1\r\nHost: x\r\nX-A: a\r\n b\r\n" + user + "\r\n",
		"space before the colon":     "GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization : Bearer " + stack.Key + end,
		"header without a name":      "GET /v1/models HTTP/1.1\r\nHost: x\r\n: a" + end,
		"header of 40 KiB":           "GET /v1/models HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("a", 40<<10) + end,
		"200 headers":                "GET /v1/models HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X-A: a\r\n", 200) + "\r\n",
		"path of 40 KiB":             "GET /" + strings.Repeat("a", 40<<10) + " HTTP/1.1\r\nHost: x" + end,
		"websocket":                  "GET /v1/responses HTTP/1.1\r\nHost: x\r\n" + user + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
		"h2c upgrade":                "GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
		"two lengths":                chat + "Host: x\r\n" + user + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
		"length and chunked":         chat + "Host: x\r\n" + user + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"chunked twice":              chat + "Host: x\r\n" + user + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
		"chunked with a tail":        chat + "Host: x\r\n" + user + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		"negative length":            chat + "Host: x\r\n" + user + "Content-Length: -1" + end,
		"length that is no number":   chat + "Host: x\r\n" + user + "Content-Length: 1e3" + end,
		"chunk size beyond 64 bits":  chat + "Host: x\r\n" + user + "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
		"no request at all":          "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
		"host with a path":           "GET /v1/models HTTP/1.1\r\nHost: x/admin/requests?#@y" + end,
		"internal header of Envoy's": "GET /v1/models HTTP/1.1\r\nHost: x\r\nx-envoy-internal: true\r\nx-envoy-external-address: 127.0.0.1" + end,
	} {
		a := s.Raw(raw)
		switch {
		case a.Response == nil: // closed
		case a.StatusCode < 300 && !strings.Contains(raw, stack.Key):
			t.Errorf("%s: passes without a key: %d", name, a.StatusCode)
		case a.StatusCode == http.StatusSwitchingProtocols:
			t.Errorf("%s: switches protocols", name)
		case a.StatusCode >= 300 && len(a.Bytes) > 0 || a.StatusCode >= 400 && a.StatusCode != http.StatusUpgradeRequired:
			t.Run(name, func(t *testing.T) {
				if p := stack.Refusal(t, a); p.Status >= 500 {
					t.Errorf("the edge takes the blame: %+v", p)
				}
			})
		}
	}
	if got := s.Sim.Stats().Requests; got != 0 {
		t.Errorf("the engine saw %d requests", got)
	}
	if a := s.Post(stack.ChatPath, hello); a.StatusCode != http.StatusOK {
		t.Errorf("afterwards: %d %s", a.StatusCode, a.Bytes)
	}
	s.Idle(2 * time.Second)
}

// TestAGatewayThatIsDown: nothing passes, everything says so, and it is back
// a second after its start.
func TestAGatewayThatIsDown(t *testing.T) {
	s := stack.Start(t, stack.Options{})
	down := stack.Problem{Status: 503, Type: "server_error", Code: "service_unavailable"}
	refused := func(slow time.Duration) {
		t.Helper()
		for _, c := range []*http.Client{s.HTTP1, s.HTTP2} {
			for _, path := range []string{stack.ChatPath, "/tokenize"} {
				began := time.Now()
				a := s.Do(c, "POST", path, hello, "Authorization", "Bearer "+stack.Key)
				stack.WantProblem(t, a, down)
				if took := time.Since(began); a.Header.Get("Retry-After") == "" || took > slow {
					t.Errorf("%s: retry-after %q, after %v", path, a.Header.Get("Retry-After"), took)
				}
			}
			for _, path := range []string{"/v1/models", "/health", "/admin/requests", "/metrics"} {
				stack.WantProblem(t, s.Do(c, "GET", path, "", "Authorization", "Bearer "+stack.AdminKey), down)
			}
		}
		a := s.Do(s.HTTP1, "POST", "/v1/messages", hello, "X-Api-Key", stack.Key)
		wantAnthropic(t, a, http.StatusServiceUnavailable, "api_error")
	}
	s.Tollgate.Kill()
	refused(time.Second)
	s.Tollgate.Start()
	began := time.Now()
	stack.Eventually(t, 5*time.Second, "the scrape page", func() bool {
		resp, err := http.Get(s.Scrape + "/healthz")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return true
	})
	listening := time.Since(began)
	stack.Eventually(t, time.Second, "the gateway to serve", func() bool {
		return s.Post(stack.ChatPath, hello).StatusCode == http.StatusOK
	})
	t.Logf("up %v after its start, serving %v after it", listening, time.Since(began))

	// Hung rather than dead: a decision is waited for one second.
	sent := s.Sim.Stats().Requests
	s.Tollgate.Signal(syscall.SIGSTOP)
	a := s.Post(stack.ChatPath, hello)
	s.Tollgate.Signal(syscall.SIGCONT)
	stack.WantProblem(t, a, down)
	if got := s.Sim.Stats().Requests; got != sent {
		t.Errorf("%d requests passed a gateway that is hung", got-sent)
	}
	s.Idle(2 * time.Second) // what the late answer took came back at once
	if got := s.Metric("tollgate_leases_expired_total"); got != 0 {
		t.Errorf("%v leases had to expire", got)
	}
}
