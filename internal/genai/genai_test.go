package genai_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"

	"tollgate/internal/admission"
	"tollgate/internal/genai"
	"tollgate/internal/ledger"
	"tollgate/internal/openai"
	"tollgate/internal/usage"
)

func finished() *admission.Access {
	return &admission.Access{
		Witness: admission.Witness{
			LeaseID: "0123", RequestID: "r1", KeyID: "team-a", Method: "POST", Endpoint: "/v1/chat/completions", Status: 200,
			ClientAddr: "192.0.2.1", FirstByte: 20 * time.Millisecond, Details: "via_upstream",
		},
		User: "ann", Model: "tiny", RequestedModel: "chat", Reason: ledger.ClientAbort, Quality: ledger.Exact, Stream: true, Engine: "10.0.0.2:8000",
		Counts: usage.Counts{Prompt: 3, Completion: 2, Cached: 1, Reasoning: usage.Unsaid},
	}
}

// said are attributes as a map.
func said(set []attribute.KeyValue) map[string]any {
	out := map[string]any{}
	for _, a := range set {
		out[string(a.Key)] = a.Value.AsInterface()
	}
	return out
}

func TestTheAttributesOfARequest(t *testing.T) {
	want := map[string]any{
		"gen_ai.operation.name": "chat", "gen_ai.system": "vllm", "gen_ai.request.model": "chat", "gen_ai.response.model": "tiny",
		"gen_ai.usage.input_tokens": int64(3), "gen_ai.usage.output_tokens": int64(2), "error.type": "client_abort",
		"server.address": "10.0.0.2", "server.port": int64(8000),
		"http.route": "/v1/chat/completions", "http.request.method": "POST", "http.response.status_code": int64(200),
		"tollgate.request.id": "r1", "tollgate.lease.id": "0123", "tollgate.key.id": "team-a", "tollgate.requested_model": "chat",
		"tollgate.engine": "10.0.0.2:8000", "tollgate.end_reason": "client_abort", "tollgate.quality": "exact",
		"tollgate.stream": true, "tollgate.cached_tokens": int64(1), "tollgate.time_to_first_byte": 0.02,
	}
	if diff := cmp.Diff(want, said(genai.FromEnvironment().Attributes(finished(), "client_abort"))); diff != "" {
		t.Errorf("by the names of before:\n%s", diff)
	}
	t.Setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http, gen_ai_latest_experimental")
	delete(want, "gen_ai.system")
	want["gen_ai.provider.name"], want["gen_ai.usage.cache_read.input_tokens"] = "vllm", int64(1)
	if diff := cmp.Diff(want, said(genai.FromEnvironment().Attributes(finished(), "client_abort"))); diff != "" {
		t.Errorf("by the latest names:\n%s", diff)
	}
}

func TestARefusedRequestHasNoTokens(t *testing.T) {
	a := finished()
	a.Reason, a.Quality, a.Model, a.RequestedModel, a.Engine, a.Counts, a.Status = "", "", "", "", "", usage.None(), 429
	got := said(genai.FromEnvironment().Attributes(a, "requests"))
	if got["error.type"] != "requests" || got["http.response.status_code"] != int64(429) {
		t.Errorf("got %v", got)
	}
	for _, name := range []string{"gen_ai.usage.input_tokens", "gen_ai.request.model", "gen_ai.response.model", "tollgate.end_reason", "server.address"} {
		if value, there := got[name]; there {
			t.Errorf("%s is %v", name, value)
		}
	}
	if genai.Name(a) != "chat" || genai.Name(finished()) != "chat chat" {
		t.Errorf("names: %q, %q", genai.Name(a), genai.Name(finished()))
	}
}

func TestEveryEndpointHasAnOperation(t *testing.T) {
	for _, ep := range openai.Endpoints() {
		a := finished()
		a.Endpoint, a.RequestedModel = string(ep), ""
		if name := genai.Name(a); name == "other" || name == "" {
			t.Errorf("%s: %q", ep, name)
		}
	}
}
