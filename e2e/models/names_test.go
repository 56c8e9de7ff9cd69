package models_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
	"tollgate/internal/vllmsim"
)

const names = `models:
- {name: chat, targets: [{model: big, weight: 90}, {model: small, weight: 10}], fallback: [spare]}
- {name: claude-*, targets: [{model: big}]}
`

const (
	keyChat   = "sk-test-chat-0123456789abcdef"
	keyClaude = "sk-test-claude-0123456789abcd"
	keyOne    = "sk-test-one-0123456789abcdefg"
)

// keys are those of everything, of an alias, of a pattern and of one name under it.
const keys = `[
  {"key": "` + stack.Key + `", "id": "ann", "user": "ann"},
  {"key": "` + stack.AdminKey + `", "id": "root", "user": "admin"},
  {"key": "` + keyChat + `", "id": "chat", "user": "bob", "models": ["chat"]},
  {"key": "` + keyClaude + `", "id": "claude", "user": "cy", "models": ["claude-*"]},
  {"key": "` + keyOne + `", "id": "one", "user": "di", "models": ["claude-one"]}
]`

// TestTheShareOfACanary: 90 and 10 of a hundred, to within one.
func TestTheShareOfACanary(t *testing.T) {
	t.Parallel()
	e := stack.NewEngine(t, vllmsim.Options{Models: []string{"big", "small", "spare"}})
	s := gateway(t, names, keys, e)
	n := scale(1000, 10_000)
	crowd(n, 16, func(int) {
		if a := s.Post(stack.ChatPath, chat("chat", false, 1, "")); a.StatusCode != http.StatusOK {
			t.Errorf("%d %s", a.StatusCode, a.Bytes)
		}
	})
	s.Idle(wait)
	got := map[string]int{}
	for _, r := range s.Records() {
		if r.RequestedModel != "chat" || r.Reason != ledger.Complete {
			t.Errorf("a row of %q: %s", r.RequestedModel, r.Reason)
		}
		got[r.Model]++
	}
	if share := float64(got["big"]) / float64(n); share < .89 || share > .91 || got["big"]+got["small"] != n {
		t.Errorf("of %d requests for chat: %v", n, got)
	}
	t.Logf("of %d: %v", n, got)
	code, out, errs := s.Command("usage", "--by", "requested_model", "--format", "csv")
	if code != 0 || !strings.Contains(out, "\nchat,") {
		t.Errorf("usage: %d %s %s", code, out, errs)
	}
}

// TestAKeyReachesItsNamesOnly, whatever it tries, on every route that has a model.
func TestAKeyReachesItsNamesOnly(t *testing.T) { //nolint:gocyclo // one story, told step by step
	t.Parallel()
	e := stack.NewEngine(t, vllmsim.Options{
		Models: []string{"big", "small", "spare", "claude-tuned"}, EnableLoRA: true, Adapters: map[string]string{"support": "/nowhere"},
	})
	s := gateway(t, names, keys, e)
	bodies := map[string]string{
		stack.ChatPath:              `,"messages":[{"role":"user","content":"hi"}]`,
		"/v1/completions":           `,"prompt":"hi"`,
		"/v1/messages":              `,"max_tokens":3,"messages":[{"role":"user","content":"hi"}]`,
		"/v1/messages/count_tokens": `,"messages":[{"role":"user","content":"hi"}]`,
		"/v1/responses":             `,"input":"hi"`,
		"/tokenize":                 `,"prompt":"hi"`,
	}
	refused := 0
	for path, rest := range bodies {
		for _, c := range []struct {
			key     string
			yes, no []string
		}{
			{keyChat, []string{"chat", `ch\u0061t`}, []string{
				"big", "small", "spare", "support", "claude-x", "Chat", "chat ", " chat", "chat*", "*", "chat/../big", "claude-*", `chat\u0000`, "сhat", // with a Cyrillic с
			}},
			{keyClaude, []string{"claude-x", "claude-*"}, []string{"claude-tuned", "big", "chat", "Claude-x", "claude", "support", "claude-" + strings.Repeat("x", 300), `claude-\n`}},
			{keyOne, []string{"claude-one"}, []string{"claude-two", "claude-*", "claude-one ", "big"}},
		} {
			for _, model := range c.yes {
				a := s.Do(s.HTTP1, http.MethodPost, path, `{"model":"`+model+`"`+rest+`}`, "Authorization", "Bearer "+c.key)
				if a.StatusCode != http.StatusOK {
					t.Errorf("%s: %s asks for %q: %d %s", path, c.key, model, a.StatusCode, a.Bytes)
				}
			}
			for _, model := range c.no {
				a := s.Do(s.HTTP1, http.MethodPost, path, `{"model":"`+model+`"`+rest+`}`, "Authorization", "Bearer "+c.key)
				refused++
				if a.StatusCode != http.StatusNotFound || strings.HasPrefix(path, "/v1/messages") == (a.ErrorCode() == "model_not_found") {
					t.Errorf("%s: %s asks for %q: %d %s", path, c.key, model, a.StatusCode, a.Bytes)
				}
			}
		}
	}
	for path, rest := range bodies {
		for _, twice := range []string{`"model":"chat","model":"big"`, `"model":"big","model":"chat"`, `"model":"chat","mod\u0065l":"big"`, `"model":["chat","big"]`, `"model":{"chat":"big"}`} {
			a := s.Do(s.HTTP1, http.MethodPost, path, `{`+twice+rest+`}`, "Authorization", "Bearer "+keyChat)
			if a.StatusCode != http.StatusBadRequest {
				t.Errorf("%s: {%s}: %d %s", path, twice, a.StatusCode, a.Bytes)
			}
		}
	}
	s.Idle(wait)
	if got := s.Metric("tollgate_admission_decisions_total", "decision", "model"); int(got) != refused {
		t.Errorf("%v refusals of names, want %d", got, refused)
	}
	for _, truth := range e.Sim.Truths() {
		if model := string(truth.Fields["model"]); model != `"big"` && model != `"small"` {
			t.Errorf("%s: the engine was asked for %s", truth.Endpoint, model)
		}
	}
	a := s.Do(s.HTTP1, http.MethodPost, stack.ChatPath, chat("Chat", false, 1, ""), "Authorization", "Bearer "+keyChat)
	if !strings.Contains(string(a.Bytes), "Did you mean 'chat'?") {
		t.Errorf("a mistyped name: %s", a.Bytes)
	}
}

// TestTheListOfModelsIsTheKeysOwn through the edge, in both shapes, and one model with
// its slash written in both ways.
func TestTheListOfModelsIsTheKeysOwn(t *testing.T) {
	t.Parallel()
	e := stack.NewEngine(t, vllmsim.Options{Models: []string{"org/big", "small"}})
	s := gateway(t, `models: [{name: team/chat, targets: [{model: org/big}]}, {name: claude-*, targets: [{model: small}]}]`, `[
		{"key": "`+stack.Key+`", "id": "ann", "user": "ann"},
		{"key": "`+keyChat+`", "id": "chat", "user": "bob", "models": ["team/chat"]}]`, e)
	get := func(key, path string, header ...string) *stack.Answer {
		return s.Do(s.HTTP1, http.MethodGet, path, "", append([]string{"Authorization", "Bearer " + key}, header...)...)
	}
	ids := func(a *stack.Answer) (out []string) {
		data, _ := a.JSON()["data"].([]any)
		for _, m := range data {
			m, _ := m.(map[string]any)
			id, _ := m["id"].(string)
			out = append(out, id)
		}
		return out
	}
	if diff := cmp.Diff([]string{"team/chat", "claude-*", "org/big", "small"}, ids(get(stack.Key, "/v1/models"))); diff != "" {
		t.Errorf("all (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"team/chat"}, ids(get(keyChat, "/models", "anthropic-version", "2023-06-01"))); diff != "" {
		t.Errorf("the key's (-want +got):\n%s", diff)
	}
	for path, want := range map[string]int{"/v1/models/team%2Fchat": 200, "/v1/models/team/chat": 200, "/v1/models/org%2Fbig": 404, "/v1/models/claude-x": 404} {
		if a := get(keyChat, path); a.StatusCode != want || want == 200 && a.JSON()["id"] != "team/chat" {
			t.Errorf("%s: %d %s", path, a.StatusCode, a.Bytes)
		}
	}
	if a := get(stack.Key, "/v1/models/claude-x"); a.StatusCode != http.StatusOK || a.JSON()["id"] != "claude-x" {
		t.Errorf("a name that a pattern covers: %d %s", a.StatusCode, a.Bytes)
	}
}

// TestAFallbackServesWhileNoTargetIsReady: each request is one row and charged once,
// and the answer names what served.
func TestAFallbackServesWhileNoTargetIsReady(t *testing.T) {
	t.Parallel()
	first := stack.NewEngine(t, vllmsim.Options{Models: []string{"spare"}})
	main := stack.NewEngine(t, vllmsim.Options{Models: []string{"big"}})
	s := gateway(t, names, keys, first, main)
	ask := func() (model string) {
		a := s.Do(s.HTTP1, http.MethodPost, stack.ChatPath, chat("chat", false, 3, ""), "Authorization", "Bearer "+keyChat)
		if a.StatusCode != http.StatusOK {
			return a.Status
		}
		rec := s.Settled(a.RequestID())
		truth := first.Sim
		if rec.Engine == main.Addr {
			truth = main.Sim
		}
		made, _ := truth.Truth(a.RequestID())
		if rec.RequestedModel != "chat" || rec.Model != a.JSON()["model"] || rec.Model != made.Model ||
			rec.Counts.Prompt != int64(made.PromptTokens) || rec.Counts.Completion != int64(made.Completion()) {
			t.Errorf("the row has %+v for %+v", rec, made)
		}
		return rec.Model
	}
	if got := ask(); got != "big" {
		t.Errorf("with one target there: %s", got)
	}
	main.Stop()
	stack.Eventually(t, wait, "the fallback", func() bool { return ask() == "spare" })
	if got := s.Metric("tollgate_placement_total", "outcome", "fallback"); got == 0 {
		t.Error("no fallback is counted")
	}
	// The key of the alias reaches the fallback through it, and not by its name.
	if a := s.Do(s.HTTP1, http.MethodPost, stack.ChatPath, chat("spare", false, 3, ""), "Authorization", "Bearer "+keyChat); a.StatusCode != http.StatusNotFound {
		t.Errorf("the fallback by its own name: %d %s", a.StatusCode, a.Bytes)
	}
	main.Start()
	stack.Eventually(t, wait, "the target", func() bool { return ask() == "big" })
	s.Idle(wait)
	for _, r := range s.Records() {
		if r.Open() || r.Reason != ledger.Complete && r.Reason != ledger.Refused {
			t.Errorf("a row ended as %q", r.Reason)
		}
	}
}
