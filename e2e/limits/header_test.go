package limits_test

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/e2e/stack"
	"tollgate/internal/limit"
)

// rates are the x-ratelimit-* headers of an answer; each is there once, or it
// is an error. Resets are checked for their form.
func rates(t *testing.T, a *stack.Answer) map[string]string {
	t.Helper()
	got := map[string]string{}
	for name, values := range a.Header {
		short, ok := strings.CutPrefix(strings.ToLower(name), "x-ratelimit-")
		if !ok {
			continue
		}
		if len(values) != 1 || strings.Contains(values[0], ",") {
			t.Errorf("%s is there %d times: %v", name, len(values), values)
		}
		if strings.HasPrefix(short, "reset-") {
			if d, err := time.ParseDuration(values[0]); err != nil || d < 0 || d > 61*time.Second || !openAITime.MatchString(values[0]) {
				t.Errorf("%s: %q is no time as OpenAI writes it", name, values[0])
			}
			got[short] = "time"
			continue
		}
		got[short] = values[0]
	}
	return got
}

// openAITime: 1s, 6m0s, 120ms, 1.5s.
var openAITime = regexp.MustCompile(`^(\d+m)?(\d+(\.\d+)?s|\d+ms)$`)

// retryAfter reads the two headers, which must agree.
func retryAfter(t *testing.T, a *stack.Answer) time.Duration {
	t.Helper()
	s, ms := a.Header.Values("Retry-After"), a.Header.Values("Retry-After-Ms")
	if len(s) != 1 || len(ms) != 1 {
		t.Errorf("retry-after %q, retry-after-ms %q: want one each", s, ms)
		return 0
	}
	seconds, err1 := strconv.Atoi(s[0])
	millis, err2 := strconv.Atoi(ms[0])
	if err1 != nil || err2 != nil || millis <= 0 || seconds < 1 || seconds != (millis+999)/1000 {
		t.Errorf("retry-after %q and retry-after-ms %q do not agree", s, ms)
	}
	return time.Duration(millis) * time.Millisecond
}

func TestRateHeaders(t *testing.T) {
	t.Parallel()
	s := stack.Start(t, stack.Options{
		Config: "rate_limit: {requests_per_minute: 5, tokens_per_minute: 1000}",
		Keys:   keys("ann", "", "free", `"limits":{"requests_per_minute":null,"tokens_per_minute":null}`, "one", `"limits":{"requests_per_minute":null}`),
	})
	// The prompt is 11 tokens by the simulator's rule: 5 + 3 + "count for me".
	want := func(what string, a *stack.Answer, requests, tokens string) {
		t.Helper()
		wants := map[string]string{
			"limit-requests": "5", "remaining-requests": requests, "reset-requests": "time",
			"limit-tokens": "1000", "remaining-tokens": tokens, "reset-tokens": "time",
		}
		if diff := cmp.Diff(wants, rates(t, a)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	first := ask(s, "ann", stack.Chat(false, 10, ""))
	remaining := first.Header.Get("X-Ratelimit-Remaining-Tokens")
	if n, err := strconv.Atoi(remaining); first.StatusCode != http.StatusOK || err != nil || n >= 990 || n < 900 {
		t.Errorf("first call: %d, remaining tokens %q: the reservation is off it", first.StatusCode, remaining)
	}
	want("JSON", first, "4", remaining)
	stream := ask(s, "ann", stack.Chat(true, 10, ""))
	if stream.StatusCode != http.StatusOK {
		t.Fatalf("stream: %d %s", stream.StatusCode, stream.Bytes)
	}
	want("stream", stream, "3", stream.Header.Get("X-Ratelimit-Remaining-Tokens"))
	bad := ask(s, "ann", `[]`)
	if bad.StatusCode != http.StatusBadRequest {
		t.Errorf("bad body: %d", bad.StatusCode)
	}
	want("400", bad, "2", bad.Header.Get("X-Ratelimit-Remaining-Tokens"))
	upstream := ask(s, "ann", stack.Chat(false, 10, `"error_status":500`))
	want("500 of the engine", upstream, "1", upstream.Header.Get("X-Ratelimit-Remaining-Tokens"))
	models := s.Do(s.HTTP1, "GET", "/v1/models", "", "Authorization", "Bearer "+secret("ann"))
	want("model list", models, "0", models.Header.Get("X-Ratelimit-Remaining-Tokens"))
	refused := ask(s, "ann", stack.Chat(false, 10, ""))
	stack.WantProblem(t, refused, tooFast)
	want("429", refused, "0", refused.Header.Get("X-Ratelimit-Remaining-Tokens"))
	if wait := retryAfter(t, refused); wait < 50*time.Second || wait > 60*time.Second {
		t.Errorf("retry-after of a full minute: %v", wait)
	}
	if got := rates(t, ask(s, "free", stack.Chat(false, 3, ""))); len(got) != 0 {
		t.Errorf("headers without limits: %v", got)
	}
	if got := rates(t, ask(s, "one", stack.Chat(true, 3, ""))); len(got) != 3 || got["limit-tokens"] != "1000" {
		t.Errorf("headers with one limit: %v", got)
	}
	if got := rates(t, s.Do(s.HTTP1, "POST", stack.ChatPath, stack.Chat(false, 3, ""), "Authorization", "Bearer sk-nobody-0123456789abcdef")); len(got) != 0 {
		t.Errorf("headers for a stranger: %v", got)
	}
}

// TestARefusalLeavesNoTrace meets every limit in turn and compares all
// counters of the key before and after.
func TestARefusalLeavesNoTrace(t *testing.T) {
	t.Parallel()
	s := stack.Start(t, stack.Options{
		Config: "rate_limit: {concurrent: 3}",
		Keys: keys(
			"requests", `"limits":{"requests_per_minute":1,"concurrent":2,"tokens_per_minute":10000}`,
			"slots", `"limits":{"requests_per_minute":100,"concurrent":1,"tokens_per_minute":10000}`,
			"global", `"limits":{"requests_per_minute":100,"concurrent":50,"tokens_per_minute":10000}`,
			"tokens", `"limits":{"requests_per_minute":100,"concurrent":50,"tokens_per_minute":40}`,
			"body", `"limits":{"requests_per_minute":100,"concurrent":50,"tokens_per_minute":200}`,
			"quota", `"quota":10,"limits":{"requests_per_minute":100,"concurrent":50,"tokens_per_minute":10000}`,
			"held", `"limits":{"requests_per_minute":100,"tokens_per_minute":400}`),
	})
	check := func(id, body, message string, want stack.Problem) *stack.Answer {
		t.Helper()
		before, records := view(t, s, id), len(s.Records())
		var last *stack.Answer
		for _, c := range []*http.Client{s.HTTP1, s.HTTP2, s.HTTP1} {
			last = s.Do(c, "POST", stack.ChatPath, body, "Authorization", "Bearer "+secret(id))
			stack.WantProblem(t, last, want)
			if !strings.Contains(string(last.Bytes), message) {
				t.Errorf("%s: the message does not name the limit: %s", id, last.Bytes)
			}
			if len(rates(t, last)) != 6 {
				t.Errorf("%s: rate headers %v", id, rates(t, last))
			}
		}
		var after limit.View
		// A refusal at the body gives its lease back when its stream ends.
		stack.Eventually(t, 2*time.Second, id+" to be as before", func() bool {
			after = view(t, s, id)
			return cmp.Equal(before, after)
		})
		if got := len(s.Records()); got != records {
			t.Errorf("%s: %d records more", id, got-records)
		}
		return last
	}
	small := stack.Chat(false, 5, "")

	ask(s, "requests", small)
	s.Idle(2 * time.Second)
	retryAfter(t, check("requests", small, "requests per minute", tooFast))

	one, end := s.Open(s.HTTP1, secret("slots"), stack.Chat(true, 20, `"pause_after":2`))
	stack.Eventually(t, 2*time.Second, "use to be written", func() bool { return view(t, s, "slots").TokensWindow > 0 })
	if wait := retryAfter(t, check("slots", small, "This key is running", tooMany)); wait != time.Second {
		t.Errorf("retry-after for slots: %v", wait)
	}
	_, end2 := s.Open(s.HTTP1, secret("global"), stack.Chat(true, 20, `"pause_after":1`))
	_, end3 := s.Open(s.HTTP2, secret("global"), stack.Chat(true, 20, `"pause_after":1`))
	stack.Eventually(t, 2*time.Second, "use to be written", func() bool { return view(t, s, "global").TokensWindow >= 24 })
	if wait := retryAfter(t, check("global", small, "The gateway is running", tooMany)); wait != time.Second {
		t.Errorf("retry-after for slots: %v", wait)
	}
	if a := s.Admin("GET", "/admin/requests", ""); a.StatusCode != http.StatusOK {
		t.Errorf("an administrator is kept out by full slots: %d", a.StatusCode)
	}
	if a := s.Do(s.HTTP1, "GET", "/v1/models", "", "Authorization", "Bearer "+secret("global")); a.StatusCode != http.StatusOK {
		t.Errorf("the model list needs no slot: %d", a.StatusCode)
	}
	end()
	end2()
	end3()
	_ = one.Body.Close()
	s.Idle(2 * time.Second)

	ask(s, "tokens", stack.Chat(false, 30, "")) // 41 of 40
	s.Idle(2 * time.Second)
	if wait := retryAfter(t, check("tokens", small, "tokens per minute", tooFast)); wait < 50*time.Second || wait > 61*time.Second {
		t.Errorf("retry-after for tokens: %v", wait)
	}
	ask(s, "body", stack.Chat(false, 100, "")) // 111 of 200: there is room, but not for 100 more
	s.Idle(2 * time.Second)
	check("body", stack.Chat(false, 100, ""), "tokens per minute", tooFast)

	ask(s, "quota", small) // 16 of 10
	s.Idle(2 * time.Second)
	spent := check("quota", small, "quota", quotaSpent)
	if spent.Header.Get("X-Should-Retry") != "false" || spent.Header.Get("Retry-After") != "" {
		t.Errorf("a spent quota: x-should-retry %q, retry-after %q", spent.Header.Get("X-Should-Retry"), spent.Header.Get("Retry-After"))
	}
	// Only a reservation stands in the way, which may end at any time.
	_, release := s.Open(s.HTTP1, secret("held"), stack.Chat(true, 350, `"pause_after":1`))
	stack.Eventually(t, 2*time.Second, "use to be written", func() bool { return view(t, s, "held").TokensWindow > 0 })
	if wait := retryAfter(t, check("held", stack.Chat(false, 100, ""), "tokens per minute", tooFast)); wait != time.Second {
		t.Errorf("retry-after behind a reservation: %v", wait)
	}
	release()
	s.Idle(2 * time.Second)
}

func TestLimitsOfAKeyOverrideTheGlobalOnes(t *testing.T) {
	t.Parallel()
	s := stack.Start(t, stack.Options{
		Config: "rate_limit: {requests_per_minute: 2, tokens_per_minute: 100000, concurrent_per_key: 1}",
		Keys:   keys("ann", "", "more", `"limits":{"requests_per_minute":4,"concurrent":2}`, "free", `"limits":{"requests_per_minute":null}`),
	})
	pass := func(id string, tries int) (n int) {
		for range tries {
			if ask(s, id, stack.Chat(false, 1, "")).StatusCode == http.StatusOK {
				n++
			}
		}
		return n
	}
	for id, want := range map[string]int{"ann": 2, "more": 4, "free": 6} {
		if got := pass(id, 6); got != want {
			t.Errorf("%s: %d passed, want %d", id, got, want)
		}
	}
	// Edited while the service runs.
	if a := s.Admin("PATCH", "/admin/keys/ann", `{"limits":{"requests_per_minute":5}}`); a.StatusCode != http.StatusOK {
		t.Fatalf("patch: %d %s", a.StatusCode, a.Bytes)
	}
	if got := pass("ann", 6); got != 3 {
		t.Errorf("after the edit %d more passed, want 3", got)
	}
}
