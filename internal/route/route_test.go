package route_test

import (
	"testing"

	"tollgate/internal/admission"
	"tollgate/internal/openai"
	"tollgate/internal/route"
)

func TestFind(t *testing.T) {
	for _, c := range []struct {
		method, path string
		endpoint     string
		class        admission.Class
		ok           bool
	}{
		{"POST", "/v1/chat/completions", "/v1/chat/completions", admission.Inference, true},
		{"POST", "/chat/completions", "/v1/chat/completions", admission.Inference, true},
		{"POST", "/v1/chat/completions?x=1", "/v1/chat/completions", admission.Inference, true},
		{"GET", "/v1/chat/completions", "/v1/chat/completions", admission.Inference, false},
		{"GET", "/v1/models", "/v1/models", admission.Listing, true},
		{"GET", "/models", "/v1/models", admission.Listing, true},
		{"POST", "/v1/models", "/v1/models", admission.Listing, false},
		{"GET", "/health", "/health", admission.Open, true},
		{"HEAD", "/health", "/health", admission.Open, true},
		{"POST", "/health", "/health", admission.Open, false},
		{"GET", "/metrics", "/metrics", admission.Admin, true},
		{"HEAD", "/metrics", "/metrics", admission.Admin, false},
		{"DELETE", "/admin/keys/x", "/admin", admission.Admin, true},
		{"PUT", "/admin/keys/x", "/admin", admission.Admin, false},
		{"HEAD", "/", "/", admission.Open, true},
		{"GET", "/v1/models/Qwen%2FQwen3-8B", "/v1/models", admission.Listing, true},
		{"GET", "/v1/models/Qwen/Qwen3-8B", "/v1/models", admission.Listing, true},
		{"POST", "/v2/rerank", "/v2/rerank", admission.Inference, true},
		{"POST", "/pooling", "/pooling", admission.Inference, true},
		{"POST", "/classify", "/classify", admission.Inference, true},
	} {
		r, ok := route.Find(c.method, c.path)
		if ok != c.ok || r.Endpoint != c.endpoint || r.Class != c.class {
			t.Errorf("%s %s: %+v %v", c.method, c.path, r, ok)
		}
	}
}

// What the gateway does not have needs a key that nobody but an administrator
// has, and is one label, however it is spelt.
func TestWhatIsNotThereIsOneLabel(t *testing.T) {
	for _, path := range []string{"/adminx", "//health", "/healthz", "/v1", "/v1/chat/completions/x", "/metrics/", "*", "/v1/models/", "/v1%2Fmodels", "/admin/keys%2Fx", "/admin/a%5Cb"} {
		r, ok := route.Find("GET", path)
		if ok || r.Endpoint != route.Other || r.Class != admission.Admin || route.Label(path) != route.Other {
			t.Errorf("%s: %+v %v", path, r, ok)
		}
	}
	if got := route.Label("/v1/embeddings?a=b"); got != "/v1/embeddings" {
		t.Errorf("label %s", got)
	}
}

func TestBehind(t *testing.T) {
	for path, want := range map[string][3]bool{ // no door, public, private
		"/v1/chat/completions": {true, true, false}, "/v1/models": {true, true, false}, "/admin/keys": {true, false, true},
		"/metrics": {true, false, true}, "/health": {true, true, true}, "/nowhere": {true, true, false},
	} {
		r := route.Of(path)
		if got := [3]bool{r.Behind(""), r.Behind(route.Public), r.Behind(route.Private)}; got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}

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
		r := route.Of(path)
		got, ok := openai.Endpoint(r.Endpoint), !r.Page && r.Endpoint != route.Other
		if ok != (want != "") || ok && got != want {
			t.Errorf("%q: got %q, %v, want %q", path, got, ok, want)
		}
	}
	for _, ep := range openai.Endpoints() {
		if r := route.Of(string(ep)); r.Endpoint != string(ep) || r.Page {
			t.Errorf("%s: %+v", ep, r)
		}
	}
}

// TestTheTableIsWhatOfFinds: each row is found by its own path, and by nothing above it.
func TestTheTableIsWhatOfFinds(t *testing.T) {
	names := map[string]bool{}
	for _, r := range route.Table() {
		path := r.Path
		if r.Prefix {
			path += "x"
		}
		if got := route.Of(path); got.Name != r.Name {
			t.Errorf("%s: found %q, want %q", path, got.Name, r.Name)
		}
		if names[r.Name] {
			t.Errorf("two rows are called %s", r.Name)
		}
		names[r.Name] = true
		if (r.Timeout > 0) != r.Page || len(r.Methods) == 0 {
			t.Errorf("%s: page %v with a timeout of %s and methods %v", r.Name, r.Page, r.Timeout, r.Methods)
		}
	}
	if len(names) != 31 {
		t.Errorf("%d routes, want 31", len(names))
	}
}
