package openai_test

import (
	"testing"

	"tollgate/internal/openai"
	"tollgate/internal/usage"
)

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
