// Package mainjob_test proves the main job through the real Envoy: the
// official client gets authorized, metered and recorded answers.
package mainjob_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/param"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
	"tollgate/internal/vllmsim"
)

func TestMain(m *testing.M) {
	m.Run()
	stack.Clean()
}

func sdk(s *stack.Stack, key string) openai.Client {
	return openai.NewClient(option.WithBaseURL(s.URL+"/v1"), option.WithAPIKey(key), option.WithMaxRetries(0))
}

// equalsTruth compares the record of a request with what the simulator made.
func equalsTruth(t *testing.T, s *stack.Stack, id string) ledger.Record {
	t.Helper()
	rec, truth := s.Settled(id), s.Truth(id)
	generated := 0
	for _, n := range truth.Generated {
		generated += n
	}
	if rec.Counts.Prompt != int64(truth.PromptTokens) || rec.Counts.Completion != int64(generated) {
		t.Errorf("%s: the ledger says %d + %d, the engine made %d + %d", id, rec.Counts.Prompt, rec.Counts.Completion, truth.PromptTokens, generated)
	}
	if rec.Reason != ledger.Complete || rec.Quality != ledger.Exact || rec.Status != http.StatusOK || rec.KeyID != "ann" {
		t.Errorf("%s: got %s %s status %d key %s, want complete exact 200 ann", id, rec.Reason, rec.Quality, rec.Status, rec.KeyID)
	}
	return rec
}

func chat(n int64) openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{
		Model: "tiny", MaxTokens: param.NewOpt(int64(8)), N: param.NewOpt(n),
		Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("Say something short.")},
	}
}

func TestTheOfficialClient(t *testing.T) {
	s := stack.Start(t, stack.Options{})
	t.Run("chat", func(t *testing.T) {
		for _, n := range []int64{1, 2} {
			wholeChat(t, s, n)
		}
	})
	t.Run("chat streams", func(t *testing.T) {
		for _, usage := range []bool{false, true} {
			for _, n := range []int64{1, 2} {
				streamedChat(t, s, n, usage)
			}
		}
	})
	t.Run("completions", func(t *testing.T) { completions(t, s) })
	if got := s.Metric("token_usage_total", "api_key", "ann", "type", "output"); got != 8+16+8+16+8+16+10+5 {
		t.Errorf("token_usage_total: got %v", got)
	}
	if got := s.Metric("tollgate_unmetered_bytes_total"); got != 0 {
		t.Errorf("unmetered bytes: %v", got)
	}
}

func wholeChat(t *testing.T, s *stack.Stack, n int64) {
	t.Helper()
	var resp *http.Response
	c := sdk(s, stack.Key)
	got, err := c.Chat.Completions.New(t.Context(), chat(n), option.WithResponseInto(&resp))
	if err != nil {
		t.Fatal(err)
	}
	rec := equalsTruth(t, s, resp.Header.Get("x-request-id"))
	if got.Usage.CompletionTokens != rec.Counts.Completion || int64(len(got.Choices)) != n || rec.Stream {
		t.Errorf("n=%d: usage %+v, %d choices, record %+v", n, got.Usage, len(got.Choices), rec)
	}
}

func streamedChat(t *testing.T, s *stack.Stack, n int64, usage bool) {
	t.Helper()
	var resp *http.Response
	c := sdk(s, stack.Key)
	p := chat(n)
	if usage {
		p.StreamOptions.IncludeUsage = param.NewOpt(true)
	}
	stream := c.Chat.Completions.NewStreaming(t.Context(), p, option.WithResponseInto(&resp))
	acc := openai.ChatCompletionAccumulator{}
	saidUsage := false
	for stream.Next() {
		chunk := stream.Current()
		saidUsage = saidUsage || chunk.JSON.Usage.Valid()
		acc.AddChunk(chunk)
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	rec := equalsTruth(t, s, resp.Header.Get("x-request-id"))
	if saidUsage != usage {
		t.Errorf("stream_options %v: usage was shown: %v", usage, saidUsage)
	}
	if usage && acc.Usage.CompletionTokens != rec.Counts.Completion {
		t.Errorf("the client was told %d, the ledger says %d", acc.Usage.CompletionTokens, rec.Counts.Completion)
	}
	if !rec.Stream || rec.N != int(n) || rec.Endpoint != "/v1/chat/completions" || rec.FirstByteAt.IsZero() {
		t.Errorf("record: %+v", rec)
	}
}

func completions(t *testing.T, s *stack.Stack) {
	t.Helper()
	var resp *http.Response
	into := option.WithResponseInto(&resp)
	c := sdk(s, stack.Key)
	if _, err := c.Completions.New(t.Context(), openai.CompletionNewParams{
		Model: "tiny", MaxTokens: param.NewOpt(int64(5)),
		Prompt: openai.CompletionNewParamsPromptUnion{OfArrayOfStrings: []string{"one", "two and three"}},
	}, into); err != nil {
		t.Fatal(err)
	}
	if rec := equalsTruth(t, s, resp.Header.Get("x-request-id")); rec.Prompts != 2 || rec.Counts.Completion != 10 {
		t.Errorf("prompt list: %+v", rec)
	}
	text := c.Completions.NewStreaming(t.Context(), openai.CompletionNewParams{
		Model: "tiny", MaxTokens: param.NewOpt(int64(5)), Prompt: openai.CompletionNewParamsPromptUnion{OfString: param.NewOpt("one")},
	}, into)
	for text.Next() {
	}
	if err := text.Err(); err != nil {
		t.Fatal(err)
	}
	equalsTruth(t, s, resp.Header.Get("x-request-id"))
}

func TestToolsPassAndAreMetered(t *testing.T) {
	s := stack.Start(t, stack.Options{Sim: vllmsim.Options{ToolParser: true}})
	c := sdk(s, stack.Key)
	var resp *http.Response
	p := chat(1)
	p.MaxTokens = param.NewOpt(int64(200))
	p.Tools = []openai.ChatCompletionToolUnionParam{openai.ChatCompletionFunctionTool(openai.FunctionDefinitionParam{
		Name:       "weather",
		Parameters: openai.FunctionParameters{"type": "object", "properties": map[string]any{"city": map[string]any{"type": "string"}}},
	})}
	p.ToolChoice = openai.ToolChoiceOptionFunctionToolChoice(openai.ChatCompletionNamedToolChoiceFunctionParam{Name: "weather"})
	got, err := c.Chat.Completions.New(t.Context(), p, option.WithResponseInto(&resp))
	var api *openai.Error
	if errors.As(err, &api) {
		t.Fatalf("%v: %s", err, api.DumpResponse(true))
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Choices[0].Message.ToolCalls) == 0 {
		t.Errorf("no tool call in %s", got.RawJSON())
	}
	equalsTruth(t, s, resp.Header.Get("x-request-id"))
	stream := c.Chat.Completions.NewStreaming(t.Context(), p, option.WithResponseInto(&resp))
	for stream.Next() {
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	equalsTruth(t, s, resp.Header.Get("x-request-id"))
}

func TestTheModelListIsWhatTheKeyMayUse(t *testing.T) {
	keys := `[
	  {"key": "sk-one-0123456789abcdef0123", "id": "one", "user": "one", "models": ["tiny", "gone"]},
	  {"key": "sk-none-123456789abcdef0123", "id": "none", "user": "none", "models": ["gone"]},
	  {"key": "` + stack.Key + `", "id": "ann", "user": "ann"},
	  {"key": "` + stack.AdminKey + `", "id": "root", "user": "admin"}]`
	s := stack.Start(t, stack.Options{Keys: keys, Sim: vllmsim.Options{Models: []string{"tiny", "second"}, Root: "/srv/models/tiny"}})
	for key, want := range map[string][]string{
		stack.Key: {"tiny", "second"}, "sk-one-0123456789abcdef0123": {"tiny"}, "sk-none-123456789abcdef0123": nil,
	} {
		c := sdk(s, key)
		page, err := c.Models.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range page.Data {
			got = append(got, m.ID)
			if strings.Contains(m.RawJSON(), "/srv/models") {
				t.Errorf("a path of the server is shown: %s", m.RawJSON())
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("models (-want +got):\n%s", diff)
		}
	}
	c := sdk(s, "sk-one-0123456789abcdef0123")
	p := chat(1)
	p.Model = "second"
	_, err := c.Chat.Completions.New(t.Context(), p)
	var api *openai.Error
	if !errors.As(err, &api) || api.StatusCode != http.StatusNotFound || api.Code != "model_not_found" || api.Param != "model" {
		t.Errorf("a model of others: got %v", err)
	}
}
