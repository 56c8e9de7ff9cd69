package input_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/e2e/stack"
)

func TestWhatNeverReachesTheEngine(t *testing.T) {
	s := stack.Start(t, stack.Options{})
	headers := []string{
		"X-Vllm-Priority", "-100", "Cookie", "session=1", "Accept-Encoding", "gzip", "X-Data-Parallel-Rank", "1",
		"X-Session-Id", "abc", "Endpoint-Load-Metrics-Format", "json", "X-Request-Id", "mine", "X-Real-Ip", "10.0.0.1",
		"X-Forwarded-For", "10.0.0.2", "X-Forwarded-Host", "h", "Forwarded", "for=10.0.0.3", "Proxy-Authorization", "Basic eA==",
		"X-Envoy-Original-Path", "/x", "X-Custom", "kept", "Via", "1.1 x", "X-Http-Method-Override", "DELETE", "X-Forwarded-Port", "1",
	}
	body := `{"model":"tiny","max_tokens":3,"messages":[{"role":"user","content":"hi"}],"temperature":0.5,"priority":-5,"request_id":"r",` +
		`"cache_salt":"s","kv_transfer_params":{"a":1},"vllm_xargs":{"a":1},"lora_path":"/etc","unknown_field":1}`
	for name, c := range map[string]*http.Client{"h1": s.HTTP1, "h2": s.HTTP2} {
		for _, credential := range [][]string{{"Authorization", "Bearer " + stack.Key}, {"X-Api-Key", stack.Key}} {
			a := s.Do(c, "POST", stack.ChatPath, body, append(credential, headers...)...)
			if a.StatusCode != http.StatusOK {
				t.Fatalf("%s: %d %s", name, a.StatusCode, a.Bytes)
			}
			if id := a.RequestID(); id == "mine" || id == "" || len(a.Header.Values("X-Request-Id")) != 1 {
				t.Errorf("%s: the answer's request id is %q", name, a.Header.Values("X-Request-Id"))
			}
			truth := s.Truth(a.RequestID()) // the engine has the same id
			var got []string
			for h := range truth.Headers {
				if !slices.Contains([]string{"content-type", "content-length", "user-agent", "x-request-id"}, h) {
					got = append(got, h)
				}
			}
			if diff := cmp.Diff([]string{"x-custom"}, got); diff != "" {
				t.Errorf("%s: headers at the engine (-want +got):\n%s", name, diff)
			}
			if diff := cmp.Diff([]string{"max_tokens", "messages", "model", "temperature", "unknown_field"}, truth.Keys); diff != "" {
				t.Errorf("%s: fields at the engine (-want +got):\n%s", name, diff)
			}
		}
	}
}

func TestThePrefixCacheIsIsolatedPerKey(t *testing.T) {
	const bob = "sk-test-bob-0123456789abcdef"
	keys := `[{"key":"` + stack.Key + `","id":"ann","user":"ann"},{"key":"` + bob + `","id":"bob","user":"bob"},{"key":"` + stack.AdminKey + `","id":"root","user":"admin"}]`
	s := stack.Start(t, stack.Options{Config: "request: {isolate_prefix_cache: true}", Keys: keys})
	salt := func(key string) string {
		a := s.Do(s.HTTP1, "POST", stack.ChatPath, `{"model":"tiny","max_tokens":3,"cache_salt":"mine","messages":[{"role":"user","content":"hi"}]}`, "Authorization", "Bearer "+key)
		return string(s.Truth(a.RequestID()).Fields["cache_salt"])
	}
	ann, again, other := salt(stack.Key), salt(stack.Key), salt(bob)
	if len(ann) < 4 || ann != again || ann == other || strings.Contains(ann, "mine") || strings.Contains(ann, stack.Key) {
		t.Errorf("salts: %s, %s and for another key %s", ann, again, other)
	}
}

func TestErrorsOfMessagesAreInAnthropicsShape(t *testing.T) {
	keys := `[{"key":"` + stack.Key + `","id":"ann","user":"ann","limits":{"requests_per_minute":4}},{"key":"` + stack.AdminKey + `","id":"root","user":"admin","quota":0}]`
	s := stack.Start(t, stack.Options{Keys: keys})
	const body = `{"model":"tiny","max_tokens":3,"messages":[{"role":"user","content":"hi"}]}`
	post := func(body string, header ...string) *stack.Answer {
		return s.Do(s.HTTP1, "POST", "/v1/messages", body, append([]string{"Anthropic-Version", "2023-06-01"}, header...)...)
	}
	wantAnthropic(t, post(body), 401, "authentication_error")
	wantAnthropic(t, post(body, "X-Api-Key", "a b"), 400, "invalid_request_error")
	if a := post(body, "X-Api-Key", stack.Key); a.StatusCode != http.StatusOK {
		t.Errorf("with x-api-key: %d %s", a.StatusCode, a.Bytes)
	}
	wantAnthropic(t, post(`[]`, "X-Api-Key", stack.Key), 400, "invalid_request_error")
	wantAnthropic(t, post(strings.Replace(body, "tiny", "other", 1), "X-Api-Key", stack.Key), 404, "not_found_error")
	wantAnthropic(t, s.Do(s.HTTP1, "POST", "/v1/messages/count_tokens", `{"model":"tiny"}x`, "X-Api-Key", stack.Key), 400, "invalid_request_error")
	limited := post(body, "X-Api-Key", stack.Key)
	wantAnthropic(t, limited, 429, "rate_limit_error")
	if limited.Header.Get("Retry-After") == "" {
		t.Error("no retry-after")
	}
	spent := post(body, "X-Api-Key", stack.AdminKey)
	wantAnthropic(t, spent, 429, "rate_limit_error")
	if spent.Header.Get("X-Should-Retry") != "false" {
		t.Error("a spent quota may be tried again")
	}
	wantAnthropic(t, s.Do(s.HTTP1, "GET", "/v1/messages", ""), 405, "invalid_request_error")
	wantAnthropic(t, s.Raw(fmt.Sprintf("POST /v1/messages HTTP/1.1\r\nHost: x\r\nx-api-key: %s\r\nContent-Length: %d\r\n\r\n", stack.Key, 40<<20)), 413, "request_too_large")
	s.Idle(2 * time.Second)
}
