//go:build vllm

package vllm_test

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
	"tollgate/internal/usage"
)

// exchange is a request that is sent to the gateway and to vLLM itself.
type exchange struct {
	name, path string
	body       string // without its closing brace; temperature 0 or a seed
	choices    bool   // has several choices, whose events come in any order
	plain      bool   // has no stream_options, or no stream at all
	noStream   bool
	unmetered  bool // no tokens are generated and none counted
}

const (
	completions = "/v1/completions"
	tool        = `"tools":[{"type":"function","function":{"name":"weather","description":"x","parameters":{"type":"object","properties":{"in":{"type":"string","enum":["a","b"]}},"required":["in"],"additionalProperties":false}}}]`
)

var exchanges = []exchange{
	{name: "chat", path: chat, body: `{"model":"tiny","max_tokens":20,"temperature":0,` + hello},
	{name: "chat, alias", path: "/chat/completions", body: `{"model":"tiny","max_tokens":3,"temperature":0,` + hello},
	{name: "chat, 2 choices", path: chat, body: `{"model":"tiny","max_tokens":12,"temperature":0.7,"seed":5,"n":2,` + hello, choices: true},
	{name: "chat, logprobs", path: chat, body: `{"model":"tiny","max_tokens":6,"temperature":0,"logprobs":true,"top_logprobs":2,` + hello},
	{name: "chat, stop", path: chat, body: `{"model":"tiny","max_tokens":40,"temperature":0,"stop":["a"],` + hello},
	{name: "chat, named tool", path: chat, body: `{"model":"tiny","max_tokens":30,"temperature":0,` + hello + `,` + tool + `,"tool_choice":{"type":"function","function":{"name":"weather"}}`},
	{name: "chat, required tool", path: chat, body: `{"model":"tiny","max_tokens":60,"temperature":0,` + hello + `,` + tool + `,"tool_choice":"required"`},
	{name: "chat, JSON schema", path: chat, body: `{"model":"tiny","max_tokens":30,"temperature":0,` + hello + `,"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"type":"object","properties":{"k":{"type":"string","enum":["yes"]}},"required":["k"],"additionalProperties":false}}}`},
	{name: "completions", path: completions, body: `{"model":"tiny","max_tokens":20,"temperature":0,"prompt":"the count of"`},
	{name: "completions, 3 prompts", path: completions, body: `{"model":"tiny","max_tokens":7,"temperature":0,"prompt":["the","count of","token"]`, choices: true},
	{name: "completions, 2 prompts of 2 choices", path: completions, body: `{"model":"tiny","max_tokens":5,"temperature":0.7,"seed":3,"n":2,"prompt":["the","count of"]`, choices: true},
	{name: "completions, token ids", path: completions, body: `{"model":"tiny","max_tokens":4,"temperature":0,"prompt":[5,6,7]`},
	{name: "completions, echo", path: completions, body: `{"model":"tiny","max_tokens":4,"temperature":0,"echo":true,"prompt":"the count of"`},
	{name: "completions, logprobs", path: completions, body: `{"model":"tiny","max_tokens":4,"temperature":0,"logprobs":1,"prompt":"the count of"`},
	{name: "responses", path: "/v1/responses", body: `{"model":"tiny","max_output_tokens":12,"temperature":0,"input":"count for me"`, plain: true},
	{name: "messages", path: "/v1/messages", body: `{"model":"tiny","max_tokens":12,"temperature":0,` + hello, plain: true},
	{name: "tokenize", path: "/tokenize", body: `{"model":"tiny","prompt":"count for me"`, plain: true, noStream: true, unmetered: true},
}

const (
	askedFinal = `,"stream_options":{"include_usage":true}`
	askedAll   = `,"stream_options":{"include_usage":true,"continuous_usage_stats":true}`
)

// variants are the ways to send an exchange: what is added to its body.
func (e exchange) variants() map[string]string {
	v := map[string]string{"": "}"}
	if e.noStream {
		return v
	}
	v["streamed"] = `,"stream":true}`
	if !e.plain {
		v["streamed, final usage asked"] = `,"stream":true` + askedFinal + "}"
		v["streamed, all usage asked"] = `,"stream":true` + askedAll + "}"
	}
	return v
}

// bytesAndLedger sends every exchange in every way to both: the bodies must be
// the same, and the ledger must say what vLLM reports.
func bytesAndLedger(t *testing.T, h *host) {
	t.Helper()
	for _, e := range exchanges {
		for variant, end := range e.variants() {
			t.Run(strings.Trim(e.name+", "+variant, ", "), func(t *testing.T) { h.in(t).compare(e, end) })
		}
	}
}

// attempts is how often both are asked until they answer the same: vLLM now and
// then says two tokens in one event, where it is short of CPU.
const attempts = 8

// compare sends one exchange to both.
func (h *host) compare(e exchange, end string) {
	h.t.Helper()
	direct := e.path
	if !strings.HasPrefix(direct, "/v1/") && direct != "/tokenize" {
		direct = "/v1" + direct
	}
	h.direct(direct, e.body+end) // what warms up at the first request is not compared
	var got *stack.Answer
	for attempt := 1; ; attempt++ {
		status, want := h.direct(direct, e.body+end)
		got = h.Post(e.path, e.body+end)
		if got.StatusCode != status || status != http.StatusOK || got.Err != nil {
			h.t.Fatalf("status: through the gateway %d (%v), from vLLM %d\n%.500s\n%.500s", got.StatusCode, got.Err, status, got.Bytes, want)
		}
		g, w := e.comparable(string(got.Bytes)), e.comparable(want)
		if g == w {
			break
		}
		if attempt == attempts {
			h.t.Fatalf("through the gateway:\n%s\nfrom vLLM:\n%s", g, w)
		}
	}
	if !e.unmetered {
		h.ledgerAgrees(e, direct, got)
	}
}

// ledgerAgrees compares the record of an answer with the usage in it, or with
// that of the same request when its client did not ask.
func (h *host) ledgerAgrees(e exchange, direct string, got *stack.Answer) {
	h.t.Helper()
	rec := h.Settled(got.RequestID())
	reported := reportedUsage(string(got.Bytes))
	if reported == (usage.Counts{}) { // this client did not ask
		if strings.Contains(string(got.Bytes), `"usage"`) {
			h.t.Error("usage is shown to a client that did not ask")
		}
		_, full := h.direct(direct, e.body+`,"stream":true`+askedFinal+"}")
		reported = reportedUsage(full)
	}
	if rec.Counts.Prompt != reported.Prompt || rec.Counts.Completion != reported.Completion || reported.Completion == 0 {
		h.t.Errorf("the ledger says %d + %d tokens, vLLM %d + %d", rec.Counts.Prompt, rec.Counts.Completion, reported.Prompt, reported.Completion)
	}
	if rec.Reason != ledger.Complete || rec.Quality != ledger.Exact {
		h.t.Errorf("the record is %s, %s", rec.Reason, rec.Quality)
	}
}

var (
	idPattern          = regexp.MustCompile(`"(id|item_id|call_id|request_id|response_id)":"[^"]*"`)
	indexPattern       = regexp.MustCompile(`"index":\d+`)
	fingerprintPattern = regexp.MustCompile(`,"system_fingerprint":"[^"]*"`)

	timePattern = regexp.MustCompile(`"(created|created_at|completed_at)":[0-9.]+`)
)

// comparable is a body without what differs from one answer of vLLM to the next.
// Its events of several choices come in another order each time; and without
// usage the last event of every choice carries the fingerprint, of which the
// gateway, which asks for usage, can give back only the last.
func (e exchange) comparable(body string) string {
	body = timeless(body)
	if !e.choices || !strings.HasPrefix(body, "data:") {
		return body
	}
	events := strings.Split(strings.TrimSpace(body), "\n\n")
	slices.SortStableFunc(events, func(a, b string) int { return strings.Compare(indexPattern.FindString(a), indexPattern.FindString(b)) })
	return fingerprintPattern.ReplaceAllString(strings.Join(events, "\n\n"), "")
}

// timeless blanks what differs between two answers to the same request.
func timeless(s string) string {
	return timePattern.ReplaceAllString(idPattern.ReplaceAllString(s, `"$1":""`), `"$1":0`)
}

// reportedUsage is the last usage in a body, whatever its route calls the
// fields; it reads more than the gateway does, and otherwise than the gateway.
func reportedUsage(body string) (c usage.Counts) {
	for line := range strings.Lines(body) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "data: ")
		var v any
		if json.Unmarshal([]byte(line), &v) != nil {
			continue
		}
		u := findUsage(v)
		if u == nil {
			continue
		}
		number := func(names ...string) (n int64) {
			for _, name := range names {
				f, _ := u[name].(float64)
				n += int64(f)
			}
			return n
		}
		// Where Anthropic's route tells the cached prompt apart, the whole is the sum.
		c.Prompt = number("prompt_tokens", "input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
		c.Completion = number("completion_tokens", "output_tokens")
	}
	return c
}

// findUsage finds the usage object of an answer or of an event.
func findUsage(v any) map[string]any {
	o, _ := v.(map[string]any)
	for _, at := range []any{o["usage"], o["response"], o["message"]} {
		inner, _ := at.(map[string]any)
		if inner == nil {
			continue
		}
		if _, isUsage := inner["output_tokens"]; isUsage {
			return inner
		}
		if _, isUsage := inner["completion_tokens"]; isUsage {
			return inner
		}
		if u := findUsage(inner); u != nil {
			return u
		}
	}
	return nil
}

// refusals: an error of vLLM's own passes as it is, and costs nothing.
func refusals(t *testing.T, h *host) {
	t.Helper()
	for name, c := range map[string]struct {
		path, body string
		status     int
		own        bool // the gateway's own answer
	}{
		"more tokens than the context": {chat, `{"model":"tiny","max_tokens":100000,` + hello + `}`, 400, false},
		"a prompt over the context":    {completions, `{"model":"tiny","max_tokens":1,"prompt":"` + strings.Repeat("q ", 6000) + `"}`, 400, false},
		"greedy choices":               {chat, `{"model":"tiny","n":2,"temperature":0,` + hello + `}`, 400, false},
		"a temperature of -1":          {chat, `{"model":"tiny","temperature":-1,` + hello + `}`, 400, false},
		"an unknown adapter":           {chat, `{"model":"nope",` + hello + `}`, 404, true}, // no resolver: only listed names pass
		"a model outside its folder":   {chat, `{"model":"../tiny/lora/b",` + hello + `}`, 404, true},
		"no model":                     {chat, `{` + hello + `}`, 400, true},
		"beam search":                  {completions, `{"model":"tiny","prompt":"a","use_beam_search":true,"n":2}`, 400, true},
	} {
		t.Run(name, func(t *testing.T) {
			got := h.Post(c.path, c.body)
			if got.StatusCode != c.status {
				t.Fatalf("status: got %d, want %d: %.300s", got.StatusCode, c.status, got.Bytes)
			}
			if c.own {
				if got.ErrorCode() == "" {
					t.Errorf("no code in %.300s", got.Bytes)
				}
				return
			}
			if _, want := h.direct(c.path, c.body); string(got.Bytes) != want {
				t.Errorf("through the gateway:\n%s\nfrom vLLM:\n%s", got.Bytes, want)
			}
			if rec := h.Settled(got.RequestID()); rec.Reason != ledger.Refused || rec.Counts.Prompt != 0 || rec.Counts.Completion != 0 || rec.Status != c.status {
				t.Errorf("the record: %s, status %d, %d + %d tokens", rec.Reason, rec.Status, rec.Counts.Prompt, rec.Counts.Completion)
			}
		})
	}
	if status, body := h.direct("/v1/nothing", "{}"); status != http.StatusNotFound {
		t.Errorf("vLLM's unknown route: %d %s", status, strconv.Quote(body))
	}
}
