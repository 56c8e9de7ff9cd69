package openai_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"tollgate/internal/openai"
)

func TestRequestSaysWhatTheBodyAsksFor(t *testing.T) {
	base := func(ep openai.Endpoint) openai.Request {
		return openai.Request{Endpoint: ep, Model: "m", N: 1, Prompts: 1, MaxTokens: -1, Format: ep.Format()}
	}
	for _, tt := range []struct {
		name, body string
		ep         openai.Endpoint
		want       func(*openai.Request)
	}{
		{"chat", `{"model":"m","messages":[{"role":"user","content":"h\u00e9"}]}`, openai.ChatCompletions, func(r *openai.Request) { r.PromptBytes = 7 }},
		{"escaped model", `{"model":"\u006d"}`, openai.ChatCompletions, func(*openai.Request) {}},
		{"n", `{"model":"m","n":16}`, openai.ChatCompletions, func(r *openai.Request) { r.N = 16 }},
		{"max_tokens", `{"model":"m","max_tokens":7}`, openai.ChatCompletions, func(r *openai.Request) { r.MaxTokens = 7 }},
		{"max_completion_tokens wins", `{"model":"m","max_completion_tokens":9,"max_tokens":7}`, openai.ChatCompletions, func(r *openai.Request) { r.MaxTokens = 9 }},
		{"largest bound", `{"model":"m","max_tokens":2147483647}`, openai.ChatCompletions, func(r *openai.Request) { r.MaxTokens = 2147483647 }},
		{"null does not win", `{"model":"m","max_completion_tokens":null,"max_tokens":7}`, openai.ChatCompletions, func(r *openai.Request) { r.MaxTokens = 7 }},
		{"completions obey max_tokens", `{"model":"m","max_completion_tokens":9,"max_tokens":7}`, openai.Completions, func(r *openai.Request) { r.MaxTokens = 7 }},
		{"responses", `{"model":"m","input":"four","instructions":"be","max_output_tokens":3,"max_tokens":9,"stream":true}`, openai.Responses, func(r *openai.Request) {
			r.PromptBytes, r.MaxTokens, r.Stream = 6, 3, true
		}},
		{"response items", `{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"hi"}]},{"role":"user","content":"x"}]}`, openai.Responses, func(r *openai.Request) {
			r.PromptBytes = 4 + 10 + 2 + 4 + 1
		}},
		{"messages", `{"model":"m","system":"sys","messages":[{"role":"user","content":"hi"}],"max_tokens":5,"stream":true}`, openai.Messages, func(r *openai.Request) {
			r.PromptBytes, r.MaxTokens, r.Stream = 9, 5, true
		}},
		{"stream", `{"model":"m","stream":true}`, openai.ChatCompletions, func(r *openai.Request) { r.Stream = true }},
		{"stream false", `{"model":"m","stream":false}`, openai.ChatCompletions, func(*openai.Request) {}},
		{"usage", `{"model":"m","stream":true,"stream_options":{"include_usage":true}}`, openai.ChatCompletions, func(r *openai.Request) {
			r.Stream, r.WantsUsage = true, true
		}},
		{"no usage", `{"model":"m","stream":true,"stream_options":{"include_usage":false}}`, openai.ChatCompletions, func(r *openai.Request) { r.Stream = true }},
		{"running alone means nothing", `{"model":"m","stream":true,"stream_options":{"continuous_usage_stats":true,"include_usage":null}}`, openai.Completions, func(r *openai.Request) { r.Stream = true }},
		{"running", `{"model":"m","stream":true,"stream_options":{"continuous_usage_stats":true,"include_usage":true,"x":[1]}}`, openai.Completions, func(r *openai.Request) {
			r.Stream, r.WantsUsage, r.WantsRunning = true, true, true
		}},
		{"prompt", `{"model":"m","prompt":"abc"}`, openai.Completions, func(r *openai.Request) { r.PromptBytes = 3 }},
		{"prompt null", `{"model":"m","prompt":null}`, openai.Completions, func(*openai.Request) {}},
		{"prompt list", `{"model":"m","prompt":["abc","d"],"n":3}`, openai.Completions, func(r *openai.Request) { r.PromptBytes, r.Prompts, r.N = 4, 2, 3 }},
		{"token ids", `{"model":"m","prompt":[1,2,3]}`, openai.Completions, func(r *openai.Request) { r.PromptBytes = 12 }},
		{"lists of token ids", `{"model":"m","prompt":[[1,2],[3]]}`, openai.Completions, func(r *openai.Request) { r.PromptBytes, r.Prompts = 12, 2 }},
		{"embeddings", `{"model":"m","input":"abc","stream":true,"n":3}`, openai.Embeddings, func(r *openai.Request) { r.PromptBytes = 3 }},
		{"embeddings list", `{"model":"m","input":["abc","d"]}`, openai.Embeddings, func(r *openai.Request) { r.PromptBytes, r.Prompts = 4, 2 }},
		{"embeddings ids", `{"model":"m","input":[1,2]}`, openai.Embeddings, func(r *openai.Request) { r.PromptBytes = 8 }},
		{"score", `{"model":"m","text_1":"q","text_2":["a","bc"]}`, openai.Score, func(r *openai.Request) { r.PromptBytes, r.Prompts = 4, 2 }},
		{"rerank", `{"model":"m","query":"q","documents":["a","bc","d"]}`, openai.Rerank, func(r *openai.Request) { r.PromptBytes, r.Prompts = 5, 3 }},
		{"tools", `{"model":"m","tools":[{"a":1}],"functions":null}`, openai.ChatCompletions, func(r *openai.Request) { r.PromptBytes = 9 }},
		{"a picture is not text", `{"model":"m","messages":[{"content":[{"image_url":{"url":"data:` + strings.Repeat("A", 100_000) + `"}}]}]}`, openai.ChatCompletions, func(r *openai.Request) { r.PromptBytes = 4096 }},
		{"tokenize", `{"model":"m","prompt":"abc"}`, openai.Tokenize, func(r *openai.Request) { r.PromptBytes = 3 }},
		{"detokenize", `{"model":"m","tokens":[1,2]}`, openai.Detokenize, func(r *openai.Request) { r.PromptBytes = 8 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := base(tt.ep)
			tt.want(&want)
			got := *parse(t, tt.ep, tt.body, limits)
			got.Body = nil
			if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(openai.Request{})); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
		})
	}
}
