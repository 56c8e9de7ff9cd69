package usage_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/usage"
)

func TestBodies(t *testing.T) {
	done := with(mute, func(w *want) { w.end = usage.Done })
	failed := with(mute, func(w *want) { w.end = usage.Failed })
	said := want{prompt: 7, completion: 3, seen: true, final: true, end: usage.Done}
	for _, tc := range []struct {
		name   string
		format usage.Format
		body   string
		want   want
	}{
		{"usage in the middle", usage.Chat, `{"choices":[{"index":0}],"usage":{"prompt_tokens":7,"completion_tokens":3},"x":null}`, said},
		{"usage first, spaced, white space around", usage.Chat, " \r\n{ \"usage\" :\t{ \"completion_tokens\" : 3, \"prompt_tokens\" : 7 } }\n\n", said},
		{"byte order mark", usage.Chat, "\xef\xbb\xbf" + `{"usage":{"prompt_tokens":7,"completion_tokens":3}}`, said},
		{"escaped key", usage.Completions, `{"us\u0061g\u0065":{"prompt_tokens":7,"completion_tokens":3}}`, said},
		{"deeper usage and usage in text", usage.Chat, `{"a":{"usage":{"prompt_tokens":9}},"b":[{"usage":{"prompt_tokens":9}}],"choices":[{"index":0,"usage":{"prompt_tokens":9},"message":{"content":"\"usage\":{\"prompt_tokens\":9}"}}],"usage":{"prompt_tokens":7,"completion_tokens":3}}`, with(said, func(w *want) { w.text = 27 })},
		{"duplicate usage", usage.Chat, `{"usage":{"prompt_tokens":7,"completion_tokens":3},"usage":{"prompt_tokens":9}}`, noted(done, usage.Malformed)},
		{"no usage", usage.Chat, `{"choices":[]}`, done},
		{"usage null", usage.Chat, `{"usage":null}`, done},
		{"nonsense is not final", usage.Chat, `{"usage":{"prompt_tokens":7,"completion_tokens":"3"}}`, noted(want{prompt: 7, completion: usage.Unsaid, seen: true, end: usage.Done}, usage.WrongType)},
		{"error", usage.Chat, `{"error":{"message":"x","code":500}}`, failed},
		{"error as text", usage.Chat, `{"error":"Unauthorized"}`, failed},
		{"error null", usage.Chat, `{"error":null}`, done},
		{"error deeper", usage.Chat, `{"x":{"error":1}}`, done},
		{"abort", usage.Chat, `{"choices":[{"index":0,"finish_reason":"stop"},{"index":0,"finish_reason":"abort"}],"usage":{"prompt_tokens":7,"completion_tokens":3}}`, with(said, func(w *want) { w.end = usage.EngineAborted })},
		{"abort elsewhere", usage.Chat, `{"finish_reason":"abort","choices":[{"index":0,"message":{"finish_reason":"abort"}}]}`, done},
		{"truncated before usage", usage.Chat, `{"choices":[{"index":0,"message":{"content":"abc`, noted(with(mute, func(w *want) { w.text = 3 }), usage.Malformed)},
		{"truncated behind usage", usage.Chat, `{"usage":{"prompt_tokens":7,"completion_tokens":3},"x":[`, noted(with(said, func(w *want) { w.end = usage.Open }), usage.Malformed)},
		{"something behind", usage.Chat, `{"usage":{"prompt_tokens":7,"completion_tokens":3}} {}`, noted(said, usage.Malformed)},
		{"a list", usage.Chat, `[{"usage":{"prompt_tokens":7}}]`, noted(mute, usage.Malformed)},
		{"a string", usage.Chat, `"usage"`, noted(mute, usage.Malformed)},
		{"text", usage.Chat, `Internal Server Error`, noted(mute, usage.Malformed)},
		{"empty", usage.Chat, ``, mute},
		{"blank", usage.Chat, " \n", mute},
		{"embeddings", usage.Pooling, `{"data":[{"embedding":[0.1,-2e-3]}],"usage":{"prompt_tokens":7,"total_tokens":7,"completion_tokens":0}}`, with(said, func(w *want) { w.completion = 0 })},
		{"rerank", usage.Pooling, `{"usage":{"prompt_tokens":7,"total_tokens":7},"results":[]}`, with(said, func(w *want) { w.completion = usage.Unsaid })},
		{"tokens without usage", usage.Free, `{"count":5,"tokens":[1,2],"usage":{"prompt_tokens":7}}`, want{seen: true, final: true, end: usage.Done}},
		{"error without usage", usage.Free, `{"error":{}}`, want{seen: true, final: true, end: usage.Failed}},
		{"messages, three parts", usage.Messages, `{"type":"message","content":[{"type":"text","text":"ab"}],"usage":{"input_tokens":4,"cache_creation_input_tokens":3,"output_tokens":3}}`, with(said, func(w *want) { w.text = 2 })},
		{"messages, error", usage.Messages, `{"type":"error","error":{"type":"x"}}`, failed},
		{"messages do not speak of prompt_tokens", usage.Messages, `{"usage":{"prompt_tokens":4,"completion_tokens":3}}`, done},
		{"responses", usage.Responses, `{"error":null,"output":[{"content":[{"text":"ab"}]}],"status":"incomplete","usage":{"input_tokens":7,"output_tokens":3}}`, with(said, func(w *want) { w.text = 2 })},
		{"responses, failed", usage.Responses, `{"status":"failed","usage":null}`, failed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := usage.Options{Format: tc.format}
			m := usage.NewMeter(o)
			for _, pieces := range ways(tc.body) {
				m.Reset(o)
				got, out := feed(m, pieces...)
				if diff := cmp.Diff(tc.want.report(), got); diff != "" {
					t.Fatalf("in %d pieces (-want +got)\n%s", len(pieces), diff)
				}
				if string(out) != tc.body || m.Ended() != (tc.want.end != usage.Open) {
					t.Fatalf("got %q, ended %t", out, m.Ended())
				}
			}
		})
	}
}

func TestDetailsAreSummedOverPromptsAndChoices(t *testing.T) {
	m := usage.NewMeter(usage.Options{SSE: true, Choices: 4, Prompts: 2})
	for _, c := range []string{
		`{"choices":[{"index":0}],"usage":{"prompt_tokens":10,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":8},"completion_tokens_details":{"reasoning_tokens":1}}}`,
		`{"choices":[{"index":1}],"usage":{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":8},"completion_tokens_details":{"reasoning_tokens":2}}}`,
		`{"choices":[{"index":3}],"usage":{"prompt_tokens":20,"completion_tokens":6,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":null}}`,
	} {
		m.Feed([]byte("data: "+c+"\n\n"), false)
	}
	want := usage.Counts{Prompt: 30, Completion: 15, Cached: 8, Reasoning: 3}
	if diff := cmp.Diff(want, m.Report().Counts); diff != "" {
		t.Errorf("running (-want +got)\n%s", diff)
	}
	m.Feed([]byte(`data: {"choices":[],"usage":{"prompt_tokens":30,"completion_tokens":16,"prompt_tokens_details":{"cached_tokens":4}}}`+"\n\n"), false)
	want = usage.Counts{Prompt: 30, Completion: 16, Cached: 4, Reasoning: 3}
	if diff := cmp.Diff(want, m.Report().Counts); diff != "" {
		t.Errorf("final (-want +got)\n%s", diff)
	}
}

func TestEndIsSeenWithTheChunkThatBringsIt(t *testing.T) {
	for _, tc := range []struct {
		name         string
		o            usage.Options
		before, then string
		last         bool
	}{
		{"done", usage.Options{SSE: true, StripFinal: true}, stream[:len(stream)-1], "\n", false},
		{"done, CRLF", usage.Options{SSE: true}, "data: [DONE]\r\n", "\r", false},
		{"done without its blank line", usage.Options{SSE: true}, "data: [DON", "E]", true},
		{"error, then done", usage.Options{SSE: true}, "data: {\"error\": {}}\n\ndata: [DONE]\n", "\n", false},
		{"error, then nothing", usage.Options{SSE: true}, "data: {\"error\": {}}\n\n", "", true},
		{"response", usage.Options{Format: usage.Responses, SSE: true}, "event: response.incomplete\ndata: {}\n", "\n", false},
		{"failed response", usage.Options{Format: usage.Responses, SSE: true}, "event: response.failed\ndata: {}\n", "\n", false},
		{"message", usage.Options{Format: usage.Messages, SSE: true}, "data: {\"type\":\"message_stop\"}\n", "\n", false},
		{"failed message", usage.Options{Format: usage.Messages, SSE: true}, "event: error\ndata: {}\n", "\n", false},
		{"body", usage.Options{}, `{"x":{}`, `}`, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := usage.NewMeter(tc.o)
			m.Feed([]byte(tc.before), false)
			if m.Ended() {
				t.Error("ended too early")
			}
			m.Feed([]byte(tc.then), tc.last)
			if !m.Ended() {
				t.Error("the end was not seen")
			}
			m.Reset(tc.o)
			if m.Ended() || m.Report().End != usage.Open {
				t.Error("the end outlived a reset")
			}
		})
	}
}

func TestStreamThatStopsHasNoEnd(t *testing.T) {
	m := usage.NewMeter(usage.Options{SSE: true})
	m.Feed([]byte("data: "+running+"\n\n"), false)
	m.Feed(nil, true)
	if r := m.Report(); m.Ended() || r.End != usage.Open || r.Counts.Completion != 2 {
		t.Errorf("got %+v", r)
	}
}
