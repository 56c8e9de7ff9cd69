package limits_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
	"tollgate/internal/vllmsim"
)

func TestQuotaAndWindowsSurviveACrash(t *testing.T) {
	t.Parallel()
	s := stack.Start(t, stack.Options{
		Config: "rate_limit: {tokens_per_minute: 300, requests_per_minute: 50}",
		Keys:   keys("quota", `"quota":60`, "day", `"quota":60,"quota_period":"day"`, "window", "", "live", `"quota":100000,"limits":{"tokens_per_minute":5000}`),
		Sim:    vllmsim.Options{Delay: 2 * time.Millisecond},
	})
	chat := stack.Chat(false, 20, "") // 31 tokens
	for _, id := range []string{"quota", "day", "window"} {
		for range 2 {
			if a := ask(s, id, chat); a.StatusCode != http.StatusOK {
				t.Fatalf("%s: %d %s", id, a.StatusCode, a.Bytes)
			}
		}
	}
	stack.WantProblem(t, ask(s, "quota", chat), quotaSpent)
	stack.WantProblem(t, ask(s, "day", chat), quotaSpent)
	resp, _ := s.Open(s.HTTP1, secret("live"), stack.Chat(true, 300, `"pause_after":200`))
	id := resp.Header.Get("X-Request-Id")
	stack.Eventually(t, 5*time.Second, "the stream to pause", func() bool { return s.Truth(id).Paused })
	s.RecordWhen(id, "checkpointed", func(r ledger.Record) bool { return r.Counts.Completion == 200 })
	before := view(t, s, "window")

	s.Tollgate.Kill()
	s.Tollgate.Start()
	s.Ready()

	stack.WantProblem(t, ask(s, "quota", chat), quotaSpent)
	stack.WantProblem(t, ask(s, "day", chat), quotaSpent)
	after := view(t, s, "window")
	if after.TokensWindow != 62 || after.RequestsWindow != 2 || before.TokensWindow != 62 {
		t.Errorf("window: %d tokens and %d requests before, %d and %d after the crash; want 62 and 2",
			before.TokensWindow, before.RequestsWindow, after.TokensWindow, after.RequestsWindow)
	}
	stack.WantProblem(t, ask(s, "window", stack.Chat(false, 280, "")), tooFast)
	cut := s.Records()[id]
	v := view(t, s, "live")
	reason, slots := ledger.GatewayCrash, int64(0)
	if s.Module { // it goes on, and counts as before
		reason, slots = "", 1
	}
	if cut.Reason != reason || cut.Counts.Completion != 200 || v.TokensWindow != 211 || v.Slots != slots {
		t.Errorf("the stream: %q with %d, window %d, slots %d; want %q 200 211 %d", cut.Reason, cut.Counts.Completion, v.TokensWindow, v.Slots, reason, slots)
	}
	if a := ask(s, "live", chat); a.StatusCode != http.StatusOK {
		t.Errorf("a key with room: %d %s", a.StatusCode, a.Bytes)
	}
	moreQuotaOpensAgain(t, s, chat)
}

// moreQuotaOpensAgain raises a quota that is used up: what was used stays used.
func moreQuotaOpensAgain(t *testing.T, s *stack.Stack, chat string) {
	t.Helper()
	if a := s.Admin("PATCH", "/admin/keys/quota", `{"quota":70}`); a.StatusCode != http.StatusOK {
		t.Fatalf("patch: %d %s", a.StatusCode, a.Bytes)
	}
	if a := ask(s, "quota", chat); a.StatusCode != http.StatusOK {
		t.Errorf("after a larger quota: %d %s", a.StatusCode, a.Bytes)
	}
	stack.WantProblem(t, ask(s, "quota", chat), quotaSpent)
	// The last answers were cut to what was left; a prompt may be underestimated.
	if v := view(t, s, "quota"); v.QuotaUsed < 70 || v.QuotaUsed > 70+11 {
		t.Errorf("quota used: %d, want 70 and up to a prompt of 11", v.QuotaUsed)
	}
}

func TestUsageReportsAgree(t *testing.T) {
	t.Parallel()
	s := stack.Start(t, stack.Options{Keys: keys("ann", "", "bob", ""), Sim: vllmsim.Options{Models: []string{"tiny"}}})
	for range 3 {
		ask(s, "ann", stack.Chat(false, 7, ""))
	}
	ask(s, "ann", stack.Chat(true, 9, ""))
	ask(s, "bob", stack.Chat(false, 5, `"error_status":500`)) // refused: a request without tokens
	ask(s, "bob", `[]`)                                       // never sent: no record
	resp, end := s.Open(s.HTTP2, secret("bob"), stack.Chat(true, 30, `"pause_after":4`))
	id := resp.Header.Get("X-Request-Id")
	stack.Eventually(t, 5*time.Second, "the stream to pause", func() bool { return s.Truth(id).Paused })
	end()
	s.RecordWhen(id, "named", ended)
	want := map[string]ledger.Group{
		"ann": {Group: "ann", Requests: 4, PromptTokens: 44, CompletionTokens: 30, TotalTokens: 74},
		"bob": {Group: "bob", Requests: 2, PromptTokens: 11, CompletionTokens: 4, TotalTokens: 15, Errors: 1},
	}
	check := func(from, by string, text []byte) {
		t.Helper()
		var groups []map[string]any
		if err := json.Unmarshal(text, &groups); err != nil || len(groups) != len(want) {
			t.Errorf("%s: %v %s", from, err, text)
		}
		for _, g := range groups {
			id, _ := g[by].(string)
			w := want[id]
			delete(g, by)
			if diff := cmp.Diff(map[string]any{
				"requests": float64(w.Requests), "prompt_tokens": float64(w.PromptTokens),
				"completion_tokens": float64(w.CompletionTokens), "total_tokens": float64(w.TotalTokens),
				"cached_tokens": float64(w.CachedTokens), "errors": float64(w.Errors),
			}, g); diff != "" {
				t.Errorf("%s, %s %q (-want +got):\n%s", from, by, id, diff)
			}
		}
	}
	for _, by := range []string{"key", "user"} {
		check("API", by, s.Admin("GET", "/admin/usage?by="+by+"&since=1h", "").Bytes)
		code, out, errs := s.Command("usage", "--by", by, "--format", "json", "--since", "1h")
		if code != 0 {
			t.Errorf("usage: exit %d %s", code, errs)
		}
		check("command", by, []byte(out))
	}
	if code, out, errs := s.Command("ledger", "verify"); code != 0 {
		t.Errorf("verify: exit %d %s %s", code, out, errs)
	}
	if got := s.Metric("token_usage_total", "api_key", "ann"); got != 74 {
		t.Errorf("token_usage_total: %v, want 74", got)
	}
	for _, q := range []string{"?by=nothing", "?since=last-week", "?format=xml", "?buy=key"} {
		if a := s.Admin("GET", "/admin/usage"+q, ""); stack.Refusal(t, a).Status != http.StatusBadRequest {
			t.Errorf("usage%s: %d %s", q, a.StatusCode, a.Bytes)
		}
	}
}
