package limits_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/param"

	"tollgate/e2e/stack"
)

// seen is what an SDK made of one call.
type seen struct {
	Call   string
	Pieces int    // of text that were delivered
	Finish string // what the SDK says of the end
	Bound  string // x-quota-max-tokens
	Tokens int    // of the answer, by its usage
	Status int
	Error  string
}

// sdkEnds are the SDKs, and what each has to see: in four calls with three keys,
// the first two of which have small quotas.
var sdkEnds = map[string]struct {
	quotas [3]string
	run    func(t *testing.T, s *stack.Stack, protocol string, secrets []string) []seen
	want   map[string]func(seen) bool
}{
	"openai-go":     {openaiQuotas, openaiGo, wantOfOpenAI("stream", "spent", "whole")},
	"openai-python": {openaiQuotas, sdkPython("openai_sdk.py"), wantOfOpenAI("stream", "spent", "whole", "responses")},
	"openai-node":   {openaiQuotas, sdkNode("openai_sdk.mjs"), wantOfOpenAI("stream", "spent", "whole", "responses")},

	"anthropic-python": {anthropicQuotas, sdkPython("anthropic_sdk.py"), wantOfAnthropic},
	"anthropic-node":   {anthropicQuotas, sdkNode("anthropic_sdk.mjs"), wantOfAnthropic},
}

var (
	openaiQuotas    = [3]string{`"quota":200`, `"quota":300`, `"quota":300`}
	anthropicQuotas = [3]string{`"quota":300`, `"quota":300`, ""}
)

// shortened: the end has its name, and its length is what the header said.
func shortened(name string) func(seen) bool {
	return func(c seen) bool {
		return c.Finish == name && c.Bound == strconv.Itoa(c.Tokens) && c.Tokens > 150 && c.Tokens < 300
	}
}

func wantOfOpenAI(calls ...string) map[string]func(seen) bool {
	all := map[string]func(seen) bool{
		// After the text that was delivered, an error of that code.
		"stream":    func(c seen) bool { return c.Pieces >= 150 && c.Pieces <= 200 && c.Error == "insufficient_quota" },
		"spent":     func(c seen) bool { return c.Status == http.StatusTooManyRequests && c.Error == "insufficient_quota" },
		"whole":     shortened("length"),
		"responses": shortened("incomplete max_output_tokens"),
	}
	want := map[string]func(seen) bool{}
	for _, name := range calls {
		want[name] = all[name]
	}
	return want
}

var wantOfAnthropic = map[string]func(seen) bool{
	"stream": func(c seen) bool { return shortened("max_tokens")(c) && c.Pieces > 150 },
	"whole":  shortened("max_tokens"),
	"spent":  func(c seen) bool { return c.Status == http.StatusTooManyRequests && c.Error == "rate_limit_error" },
	// The engine's own error event, after some text.
	"broken": func(c seen) bool { return c.Pieces > 0 && c.Pieces <= 5 && c.Error == "internal_error" },
}

// TestTheOfficialClientsSeeTheEndOfAQuota: a stream that a quota ends is an
// error of that code, a spent quota is an error that is not tried again, a
// shortened answer says so, and an engine's error event is an error, in each SDK
// and over both protocols.
func TestTheOfficialClientsSeeTheEndOfAQuota(t *testing.T) {
	t.Parallel()
	var file []string
	for name, sdk := range sdkEnds {
		for _, protocol := range []string{"http1", "http2"} {
			for i, quota := range sdk.quotas {
				file = append(file, keyOfSDK(name, protocol, i), quota)
			}
		}
	}
	s := stack.Start(t, stack.Options{Keys: keys(file...)})
	for name, sdk := range sdkEnds {
		for _, protocol := range []string{"http1", "http2"} {
			t.Run(name+" "+protocol, func(t *testing.T) {
				var secrets []string
				for i := range sdk.quotas {
					secrets = append(secrets, secret(keyOfSDK(name, protocol, i)))
				}
				before := requestsOver(t, s, protocol)
				calls := sdk.run(t, s, protocol, secrets)
				if n := requestsOver(t, s, protocol) - before; n < len(sdk.want) {
					t.Errorf("%d requests came over %s, want %d at least", n, protocol, len(sdk.want))
				}
				if len(calls) != len(sdk.want) {
					t.Fatalf("%d calls, want %d: %+v", len(calls), len(sdk.want), calls)
				}
				for _, c := range calls {
					if right := sdk.want[c.Call]; right == nil || !right(c) {
						t.Errorf("saw it wrong: %+v", c)
					}
					t.Logf("%+v", c)
				}
			})
		}
	}
	if n := s.Metric("tollgate_admission_decisions_total", "decision", "quota"); n != float64(2*len(sdkEnds)) {
		t.Errorf("%v refusals for a spent quota, want one for each client", n)
	}
}

func keyOfSDK(name, protocol string, i int) string {
	return name + "-" + protocol + "-" + strconv.Itoa(i)
}

// requestsOver counts the edge's requests over a protocol.
func requestsOver(t *testing.T, s *stack.Stack, protocol string) int {
	t.Helper()
	stats := stack.AdminOf(t, filepath.Join(s.Cfg.StateDir, "run", "envoy-admin.sock"))("/stats?filter=downstream_rq_" + protocol + "_total")
	sum := 0
	for _, n := range regexp.MustCompile(`(?m): (\d+)$`).FindAllStringSubmatch(stats, -1) {
		i, _ := strconv.Atoi(n[1])
		sum += i
	}
	return sum
}

// openaiGo makes the calls with OpenAI's SDK for Go.
func openaiGo(t *testing.T, s *stack.Stack, protocol string, secrets []string) []seen {
	t.Helper()
	over := map[string]*http.Client{"http1": s.HTTP1, "http2": s.HTTP2}[protocol]
	client := func(key string) openai.Client {
		return openai.NewClient(option.WithBaseURL(s.URL+"/v1"), option.WithAPIKey(key), option.WithHTTPClient(over))
	}
	params := openai.ChatCompletionNewParams{
		Model: "tiny", MaxTokens: param.NewOpt(int64(1000)),
		Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("hi")},
	}
	ending, other := client(secrets[0]), client(secrets[1])

	stream := seen{Call: "stream", Error: "none"}
	answer := ending.Chat.Completions.NewStreaming(t.Context(), params)
	for answer.Next() {
		if c := answer.Current().Choices; len(c) > 0 && c[0].Delta.Content != "" {
			stream.Pieces++
		}
	}
	if err := answer.Err(); err != nil {
		stream.Error = err.Error()
		if strings.Contains(stream.Error, "insufficient_quota") {
			stream.Error = "insufficient_quota"
		}
	}

	spent := seen{Call: "spent", Error: "none"}
	var api *openai.Error
	if _, err := ending.Chat.Completions.New(t.Context(), params); errors.As(err, &api) {
		spent.Status, spent.Error = api.StatusCode, api.Code
	}

	var raw *http.Response
	got, err := other.Chat.Completions.New(t.Context(), params, option.WithResponseInto(&raw))
	if err != nil {
		t.Fatal(err)
	}
	return []seen{stream, spent, {
		Call: "whole", Bound: raw.Header.Get("X-Quota-Max-Tokens"), Tokens: int(got.Usage.CompletionTokens), Finish: got.Choices[0].FinishReason,
	}}
}

func sdkPython(script string) func(*testing.T, *stack.Stack, string, []string) []seen {
	return func(t *testing.T, s *stack.Stack, protocol string, secrets []string) []seen {
		t.Helper()
		return runSDK(t, exec.Command(stack.Python(t, "sdks", "requirements.txt"), append([]string{"testdata/" + script, s.URL, protocol}, secrets...)...))
	}
}

func sdkNode(script string) func(*testing.T, *stack.Stack, string, []string) []seen {
	return func(t *testing.T, s *stack.Stack, protocol string, secrets []string) []seen {
		t.Helper()
		dir := stack.NodeSDKs(t)
		cmd := exec.Command(filepath.Join(dir, "node"), append([]string{"testdata/" + script, s.URL, protocol}, secrets...)...)
		cmd.Env = append(os.Environ(), "SDKS="+dir)
		return runSDK(t, cmd)
	}
}

// runSDK reads what a script says of its calls.
func runSDK(t *testing.T, cmd *exec.Cmd) (calls []seen) {
	t.Helper()
	var errs bytes.Buffer
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env, cmd.Stderr = append(cmd.Env, "NO_PROXY=127.0.0.1"), &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s%s", filepath.Base(cmd.Args[1]), err, out, &errs)
	}
	for line := range strings.Lines(string(out)) {
		var c seen
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		calls = append(calls, c)
	}
	return calls
}
