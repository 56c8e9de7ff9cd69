package input_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/e2e/stack"
	"tollgate/internal/vllmsim"
)

const bobKey = "sk-test-bob-0123456789abcdef"

// ids are the names in a list of models, in OpenAI's or in Anthropic's shape.
func ids(t *testing.T, a *stack.Answer) []string {
	t.Helper()
	var list struct {
		Data []struct{ ID string }
	}
	if err := json.Unmarshal(a.Bytes, &list); err != nil || a.StatusCode != http.StatusOK {
		t.Fatalf("%d %s: %v", a.StatusCode, a.Bytes, err)
	}
	out := []string{}
	for _, m := range list.Data {
		out = append(out, m.ID)
	}
	return out
}

func TestModelsAreToldFromTheCatalog(t *testing.T) {
	keys := `[{"key":"` + stack.Key + `","id":"ann","user":"ann","models":["Qwen/Qwen3-8B"],"limits":{"requests_per_minute":60}},` +
		`{"key":"` + bobKey + `","id":"bob","user":"bob"},{"key":"` + stack.AdminKey + `","id":"root","user":"admin"}]`
	s := stack.Start(t, stack.Options{Keys: keys, Sim: vllmsim.Options{Models: []string{"tiny", "Qwen/Qwen3-8B"}, Root: "/srv/models/tiny"}})
	get := func(path, key string, header ...string) *stack.Answer {
		return s.Do(s.HTTP1, "GET", path, "", append([]string{"Authorization", "Bearer " + key}, header...)...)
	}
	both := []string{"tiny", "Qwen/Qwen3-8B"}
	told := func(when string) {
		t.Helper()
		for _, path := range []string{"/v1/models", "/models"} {
			if diff := cmp.Diff(both, ids(t, get(path, bobKey))); diff != "" {
				t.Errorf("%s, %s (-want +got):\n%s", when, path, diff)
			}
		}
		cut := get("/v1/models", stack.Key)
		if diff := cmp.Diff(both[1:], ids(t, cut)); diff != "" {
			t.Errorf("%s, cut to the key (-want +got):\n%s", when, diff)
		}
		if cut.Header.Get("X-Ratelimit-Limit-Requests") != "60" || strings.Contains(string(cut.Bytes), "/srv/") {
			t.Errorf("%s: %v %s", when, cut.Header, cut.Bytes)
		}
		for _, name := range []string{"Qwen%2FQwen3-8B", "Qwen%2fQwen3-8B", "Qwen/Qwen3-8B"} {
			if a := get("/v1/models/"+name, stack.Key); a.StatusCode != http.StatusOK || a.JSON()["id"] != both[1] || a.JSON()["object"] != "model" {
				t.Errorf("%s, %s: %d %s", when, name, a.StatusCode, a.Bytes)
			}
		}
		stack.WantProblem(t, get("/v1/models/tiny", stack.Key), stack.Problem{Status: 404, Type: "invalid_request_error", Code: "model_not_found", Param: "model"})
		stack.WantProblem(t, get("/v1/models/none", bobKey), stack.Problem{Status: 404, Type: "invalid_request_error", Code: "model_not_found", Param: "model"})
	}
	told("engine ready")
	inAnthropicsShape(t, get)
	stack.WantProblem(t, s.Do(s.HTTP1, "GET", "/v1/models", ""), invalidKey)

	down := true
	if err := s.Sim.Script(vllmsim.Control{NotReady: &down}); err != nil {
		t.Fatal(err)
	}
	stack.Eventually(t, 10*time.Second, "the engine to be known as not ready", func() bool {
		return s.Do(s.HTTP1, "GET", "/health", "").StatusCode == http.StatusServiceUnavailable
	})
	told("no engine ready")
}

func inAnthropicsShape(t *testing.T, get func(path, key string, header ...string) *stack.Answer) {
	t.Helper()
	version := []string{"Anthropic-Version", "2023-06-01"}
	list := get("/v1/models", bobKey, version...)
	first, _ := list.JSON()["data"].([]any)[0].(map[string]any)
	if diff := cmp.Diff([]string{"tiny", "Qwen/Qwen3-8B"}, ids(t, list)); diff != "" || list.JSON()["has_more"] != false || list.JSON()["first_id"] != "tiny" ||
		first["type"] != "model" || first["display_name"] != "tiny" || first["created_at"] == nil {
		t.Errorf("the list: %s", list.Bytes)
	}
	page := get("/v1/models?limit=1", bobKey, version...)
	if page.JSON()["has_more"] != true || page.JSON()["last_id"] != "tiny" {
		t.Errorf("a page: %s", page.Bytes)
	}
	if rest := get("/v1/models?limit=1&after_id=tiny", bobKey, version...); rest.JSON()["has_more"] != false || rest.JSON()["last_id"] != "Qwen/Qwen3-8B" {
		t.Errorf("the next page: %s", rest.Bytes)
	}
	if one := get("/v1/models/Qwen%2FQwen3-8B", bobKey, version...); one.JSON()["id"] != "Qwen/Qwen3-8B" || one.JSON()["type"] != "model" {
		t.Errorf("one model: %s", one.Bytes)
	}
	wantAnthropic(t, get("/v1/models/none", bobKey, version...), 404, "not_found_error")
	wantAnthropic(t, get("/v1/models", "sk-nobody-0123456789abcdef", version...), 401, "authentication_error")
}

func TestPoolingRoutesAreMetered(t *testing.T) {
	s := stack.Start(t, stack.Options{})
	for path, body := range map[string]string{
		"/v2/rerank": `{"model":"tiny","query":"a","documents":["b","c d"],"top_n":1}`,
		"/pooling":   `{"model":"tiny","input":["a","b c"]}`,
		"/classify":  `{"model":"tiny","input":"a b"}`,
	} {
		a := s.Post(path, body)
		if a.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", path, a.StatusCode, a.Bytes)
			continue
		}
		usage, _ := a.JSON()["usage"].(map[string]any)
		row := s.Settled(a.RequestID())
		if row.Endpoint != path || float64(row.Counts.Prompt) != usage["prompt_tokens"] || row.Counts.Prompt < 1 || row.Quality != "exact" {
			t.Errorf("%s: recorded %+v, usage %v", path, row, usage)
		}
	}
}

func TestTheRootSaysWhatAnswers(t *testing.T) {
	s := stack.Start(t, stack.Options{})
	if a := s.Do(s.HTTP1, "GET", "/", ""); a.StatusCode != http.StatusOK || strings.TrimSpace(string(a.Bytes)) != `{"service":"tollgate"}` {
		t.Errorf("GET /: %d %s", a.StatusCode, a.Bytes)
	}
	// What Claude Code sends at each start is no error.
	if a := s.Do(s.HTTP1, "HEAD", "/", ""); a.StatusCode != http.StatusOK || len(a.Bytes) > 0 {
		t.Errorf("HEAD /: %d %s", a.StatusCode, a.Bytes)
	}
	stack.Eventually(t, 5*time.Second, "both in the metrics", func() bool {
		text := string(s.Admin("GET", "/metrics", "").Bytes)
		return strings.Contains(text, `http_requests_total{endpoint="/",method="HEAD",status_code="200"} 1`) && !strings.Contains(text, `http_errors_total{endpoint="/"`)
	})
}

// TestEveryRequestCostsTheRateOfItsAddress: also those that no route takes.
func TestEveryRequestCostsTheRateOfItsAddress(t *testing.T) {
	s := stack.Start(t, stack.Options{Config: "rate_limit: {qps: 4}"})
	long := fmt.Sprintf("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", 40<<20)
	for name, c := range map[string]struct {
		text   string
		status int
	}{
		"404":       {request("GET", "/nope", ""), 404},
		"405":       {request("GET", stack.ChatPath, ""), 405},
		"413":       {long, 413},
		"400":       {request("POST", stack.ChatPath, "[", "Authorization: Bearer "+stack.Key), 400},
		"426":       {"GET /v1/responses HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 426},
		"415":       {"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/grpc\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}", 415},
		"preflight": {request("OPTIONS", stack.ChatPath, "", "Origin: https://a.example", "Access-Control-Request-Method: POST"), 200},
		"the root":  {request("GET", "/", ""), 200},
	} {
		stack.Eventually(t, 10*time.Second, name+" within the rate", func() bool {
			a := s.Raw(c.text)
			return a.Response != nil && a.StatusCode == c.status
		})
		refused := false
		for range 40 {
			if a := s.Raw(c.text); a.Response != nil && a.StatusCode == http.StatusTooManyRequests {
				refused = true
				break
			}
		}
		if !refused {
			t.Errorf("%s: 40 at once and none was one too many", name)
		}
	}
}

// TestGRPCIsRefusedWithItsStatus: on the wire, in the metrics and in the log.
func TestGRPCIsRefusedWithItsStatus(t *testing.T) {
	s := stack.Start(t, stack.Options{})
	want := stack.Problem{Status: 415, Type: "invalid_request_error", Code: "unsupported_media_type"}
	n := 0
	for _, c := range []*http.Client{s.HTTP1, s.HTTP2} {
		for _, kind := range []string{"application/grpc", "application/grpc+proto", "application/grpc-web+proto"} {
			for _, header := range [][]string{nil, {"Authorization", "Bearer " + stack.Key}, {"Authorization", "Bearer sk-nobody-0123456789abcdef"}} {
				a := s.Do(c, "POST", stack.ChatPath, hello, append(header, "Content-Type", kind)...)
				stack.WantProblem(t, a, want)
				n++
			}
		}
	}
	wantAnthropic(t, s.Do(s.HTTP2, "POST", "/v1/messages", hello, "Content-Type", "application/grpc"), 415, "invalid_request_error")
	stack.Eventually(t, 5*time.Second, "the status in the metrics", func() bool {
		text := string(s.Admin("GET", "/metrics", "").Bytes)
		return strings.Contains(text, fmt.Sprintf(`http_requests_total{endpoint="/v1/chat/completions",method="POST",status_code="415"} %d`, n)) &&
			strings.Contains(text, `error_type="unsupported_media",method="POST"`)
	})
	if got := s.Sim.Stats().Requests; got != 0 {
		t.Errorf("the engine saw %d requests", got)
	}
	// Nobody else may say what only a check may say.
	if a := s.Do(s.HTTP1, "GET", "/v1/models", "", "Authorization", "Bearer "+stack.Key, "X-Tollgate-Key", "root", "X-Tollgate-Refusal", "unsupported_media"); a.StatusCode != http.StatusOK {
		t.Errorf("a client's own word was taken: %d %s", a.StatusCode, a.Bytes)
	}
}

func TestAnUnknownPathSaysWhatTheBaseURLIs(t *testing.T) {
	s := stack.Start(t, stack.Options{})
	for path, say := range map[string]string{
		"/v1/chat/completions/":    "slash",
		"/v1/v1/chat/completions":  "/v1 twice",
		"/v1/tokenize":             "with or without /v1",
		"/openai/chat/completions": "base URL",
	} {
		a := s.Post(path, hello)
		stack.WantProblem(t, a, notFound)
		if !strings.Contains(string(a.Bytes), say) || !strings.Contains(string(a.Bytes), "http://HOST/v1") {
			t.Errorf("%s: %s", path, a.Bytes)
		}
	}
	a := s.Do(s.HTTP1, "POST", stack.ChatPath, hello, "api-key", stack.Key)
	stack.WantProblem(t, a, invalidKey)
	if text := string(a.Bytes); !strings.Contains(text, "Authorization") || !strings.Contains(text, "x-api-key") {
		t.Errorf("a key in api-key: %s", text)
	}
}

func TestPipelinedMistakesAreAllAnswered(t *testing.T) {
	s := stack.Start(t, stack.Options{})
	got := s.RawAll(strings.Repeat("GET /nope HTTP/1.1\r\nHost: x\r\n\r\n", 4) + "GET /nope HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	if n := strings.Count(got, "HTTP/1.1 404"); n != 5 {
		t.Errorf("%d answers to 5 requests", n)
	}
}
