package openai_test

import (
	"testing"

	"tollgate/internal/openai"
	"tollgate/internal/usage"
)

func TestAliasesFoldIntoTheirEndpoint(t *testing.T) {
	for path, want := range map[string]openai.Endpoint{
		"/chat/completions":        openai.ChatCompletions,
		"/completions":             openai.Completions,
		"/embeddings?a=b":          openai.Embeddings,
		"/score":                   openai.Score,
		"/rerank":                  openai.Rerank,
		"/v1/chat/completions?x=/": openai.ChatCompletions,
		"/v1/messages":             openai.Messages,
		"/tokenize":                openai.Tokenize,
		"/v1/chat/completions/":    "",
		"/V1/chat/completions":     "",
		"/v1//chat/completions":    "",
		"/v1/models":               "",
		"/messages":                "",
		"/v1/chat/completions#x":   "",
		"":                         "",
		"?/v1/score":               "",
	} {
		got, ok := openai.Canonical(path)
		if got != want || ok != (want != "") {
			t.Errorf("Canonical(%q): got %q, %v, want %q", path, got, ok, want)
		}
	}
	for _, ep := range openai.Endpoints() {
		if got, ok := openai.Canonical(string(ep)); got != ep || !ok {
			t.Errorf("Canonical(%q): got %q, %v", ep, got, ok)
		}
	}
}

func TestEndpointsKnowTheirFormat(t *testing.T) {
	free := map[openai.Endpoint]bool{openai.CountTokens: true, openai.Tokenize: true, openai.Detokenize: true}
	anthropic := map[openai.Endpoint]bool{openai.Messages: true, openai.CountTokens: true}
	seen := map[openai.Endpoint]bool{}
	for _, ep := range openai.Endpoints() {
		seen[ep] = true
		if ep.Free() != free[ep] || (ep.Format() == usage.Free) != free[ep] {
			t.Errorf("%s: Free %v, Format %v", ep, ep.Free(), ep.Format())
		}
		if ep.Anthropic() != anthropic[ep] {
			t.Errorf("%s: Anthropic %v", ep, ep.Anthropic())
		}
	}
	if len(seen) != 13 {
		t.Errorf("got %d endpoints, want 13", len(seen))
	}
}
