package input_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// TestMediaURLsThatLeadInside: no engine hears of them.
func TestMediaURLsThatLeadInside(t *testing.T) {
	s := stack.Start(t, stack.Options{Config: "request: {media_domains: [images.example.org, 10.1.0.0/16]}"})
	chat := func(url string) string {
		return `{"model":"tiny","max_tokens":1,"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"` + url + `"}}]}]}`
	}
	bad := stack.Problem{Status: 400, Type: "invalid_request_error", Code: "invalid_request", Param: "messages[0].content[0].image_url.url"}
	for _, url := range []string{"http://169.254.169.254/latest/meta-data/", "http://127.0.0.1:8000/metrics", "http://0x7f.1/", "http://[::ffff:10.2.0.1]/", "file:///etc/passwd", "https://example.org/"} {
		a := s.Post(stack.ChatPath, chat(url))
		stack.WantProblem(t, a, bad)
		if !strings.Contains(string(a.Bytes), "request.media_domains") {
			t.Errorf("%s: the setting is not named: %s", url, a.Bytes)
		}
	}
	wantAnthropic(t, s.Post("/v1/messages", `{"model":"tiny","max_tokens":1,"messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"http://10.0.0.1/"}}]}]}`), 400, "invalid_request_error")
	if n := s.Sim.Stats().Requests; n != 0 {
		t.Errorf("the engine saw %d of them", n)
	}
	for _, url := range []string{"https://images.example.org/a.png", "http://10.1.2.3/a.png", "data:image/png;base64,AAAA"} {
		if a := s.Post(stack.ChatPath, chat(url)); a.StatusCode == http.StatusBadRequest && strings.Contains(string(a.Bytes), "media_domains") {
			t.Errorf("%s: %s", url, a.Bytes)
		}
	}
	if n := s.Sim.Stats().Requests; n != 3 {
		t.Errorf("the engine saw %d requests, want 3", n)
	}
	s.Idle(2 * time.Second)
}
