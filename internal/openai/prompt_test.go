package openai_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/openai"
)

// written is a prompt as somebody sees it who keeps its messages.
type written struct {
	messages []string
	now      strings.Builder
}

func (w *written) Text(b []byte) { w.now.Write(b) }

func (w *written) End() {
	if w.now.Len() > 0 {
		w.messages = append(w.messages, w.now.String())
	}
	w.now.Reset()
}

func (w *written) Full() bool { return len(w.messages) == 5 }

func promptOf(t *testing.T, ep openai.Endpoint, body string) []string {
	t.Helper()
	r, err := openai.Parse(ep, []byte(body), openai.Limits{MaxN: 4, MaxPrompts: 8})
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	var w written
	r.WritePrompt(&w)
	w.End()
	return w.messages
}

func TestThePromptOfARequest(t *testing.T) {
	for _, tt := range []struct {
		name string
		ep   openai.Endpoint
		body string
		want []string
	}{
		{
			"chat", openai.ChatCompletions,
			`{"messages":[{"role":"system","content":"be \"kind\""},{"role":"user","content":[{"type":"text","text":"hi"}]}],"model":"m","tools":[{"type":"function"}]}`,
			[]string{`[{"type":"function"}]`, `systembe \"kind\"`, "userhi"},
		},
		{
			"a message as text and as a list", openai.ChatCompletions,
			`{"model":"m", "messages" : [ {"content":"hi", "role":"user"} , { "content":[ {"type":"text","text":"hi","cache_control":{"type":"ephemeral"}}],"role":"user"}]}`,
			[]string{"hiuser", "hiuser"},
		},
		{
			"tool calls", openai.ChatCompletions,
			`{"model":"m","messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"a1","function":{"name":"f","arguments":"{\"x\":1}"}}]}]}`,
			[]string{`assistantnull,a1f{\"x\":1}`},
		},
		{
			"claude code", openai.Messages,
			`{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}],"system":[{"type":"text","text":"x-anthropic-billing-header: cc_version=2.1.332.1c9; cc_entrypoint=sdk-cli;"},{"type":"text","text":"You are","cache_control":{"type":"ephemeral"}}]}`,
			[]string{"You are", "userhi"},
		},
		{
			"the line as the whole system", openai.Messages,
			`{"model":"m","max_tokens":9,"system":"x-anthropic-billing-header: a","messages":[{"role":"user","content":"x-anthropic-billing-header: mine"}]}`,
			[]string{"userx-anthropic-billing-header: mine"},
		},
		{"responses", openai.Responses, `{"model":"m","input":"hi","instructions":"be kind"}`, []string{"be kind", "hi"}},
		{"responses, a list", openai.Responses, `{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"hi"}]}]}`, []string{"userhi"}},
		{"completions", openai.Completions, `{"model":"m","prompt":"once"}`, []string{"once"}},
		{"several", openai.Completions, `{"model":"m","prompt":["a","b"]}`, []string{"a", "b"}},
		{"token ids", openai.Completions, `{"model":"m","prompt":[1,23,4]}`, []string{"1,23,4,"}},
		{"lists of them", openai.Completions, `{"model":"m","prompt":[[1,2],[3]]}`, []string{"1,2,3,"}},
		{"nothing to generate", openai.Embeddings, `{"model":"m","input":"hi"}`, nil},
		{
			"more than is wanted", openai.ChatCompletions,
			`{"model":"m","messages":["1","2","3",{"a":[{"b":"4"}]},{"a":["5"]},{"a":[{"b":"6"}]},"7"],"tools":[]}`,
			[]string{"[]", "1", "2", "3", "4"},
		},
		{"empty", openai.ChatCompletions, `{"model":"m","messages":[]}`, nil},
	} {
		if diff := cmp.Diff(tt.want, promptOf(t, tt.ep, tt.body)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestTheServedNameReplacesTheAsked(t *testing.T) {
	asked := ""
	lim := openai.Limits{MaxN: 4, MaxPrompts: 4, CacheSalt: "salt", Served: func(m string) string {
		asked = m
		return `Qwen/"8B"`
	}}
	r, err := openai.Parse(openai.ChatCompletions, []byte(`{"priority":1,"model" : "ch\u0061t","stream":true,"messages":[]}`), lim)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"stream_options":{"include_usage":true,"continuous_usage_stats":true},"cache_salt":"salt","model" : "Qwen/\"8B\"","stream":true,"messages":[]}`
	if string(r.Body) != want || r.Model != "chat" || asked != "chat" {
		t.Errorf("asked %q, model %q, body:\n%s\nwant\n%s", asked, r.Model, r.Body, want)
	}
	for _, same := range []string{"", "m"} {
		body := []byte(`{"model":"m","prompt":"x"}`)
		r, err := openai.Parse(openai.Completions, body, openai.Limits{MaxPrompts: 1, Served: func(string) string { return same }})
		if err != nil || &r.Body[0] != &body[0] {
			t.Errorf("served %q: %v, the body was copied", same, err)
		}
	}
	if _, err := openai.Parse(openai.Completions, []byte(`{"model":"m","prompt":1}`), openai.Limits{Served: func(string) string {
		t.Error("asked for the model of a request that is refused")
		return ""
	}}); err == nil {
		t.Error("no error")
	}
}

// FuzzWritePrompt: no body that passes the checks is too odd to be walked through,
// and nothing is written twice.
func FuzzWritePrompt(f *testing.F) {
	for _, body := range []string{
		`{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a\\\"]"}]}],"tools":{"a":[1,-2.5e3,true,null]}}`,
		`{"model":"m","prompt":[[1,2],[3]],"input":{},"system":[ ] , "instructions":null}`,
	} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		for _, ep := range []openai.Endpoint{openai.ChatCompletions, openai.Completions, openai.Messages, openai.Responses} {
			r, err := openai.Parse(ep, []byte(body), openai.Limits{MaxN: 4, MaxPrompts: 8})
			if err != nil {
				continue
			}
			var d discard
			if r.WritePrompt(&d); d.bytes > 2*len(body) {
				t.Errorf("%d bytes of %d", d.bytes, len(body))
			}
		}
	})
}

// discard takes a prompt and keeps nothing.
type discard struct{ bytes, messages int }

func (d *discard) Text(b []byte) { d.bytes += len(b) }
func (d *discard) End()          { d.messages++ }
func (d *discard) Full() bool    { return false }

func BenchmarkWritePrompt(b *testing.B) {
	for _, tokens := range []int{1_000, 100_000} {
		b.Run(fmt.Sprint(tokens), func(b *testing.B) {
			message := `{"role":"user","content":[{"type":"text","text":"` + strings.Repeat("some words, and \\\"more\\\" ", 32) + `"}]},`
			body := `{"model":"m","messages":[` + strings.Repeat(message, 4*tokens/len(message)) + message[:len(message)-1] + `]}`
			r, err := openai.Parse(openai.ChatCompletions, []byte(body), openai.Limits{})
			if err != nil {
				b.Fatal(err)
			}
			var d discard
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				r.WritePrompt(&d)
			}
		})
	}
}
