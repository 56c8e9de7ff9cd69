package envoy

import (
	"testing"

	"tollgate/internal/openai"
	service "tollgate/internal/route"
)

// The table of routes stands twice: here as Envoy's routes, in
// internal/route as what the service believes. They must be one table.
func TestRoutesAreThoseOfTheService(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range inferenceRoutes {
		got, ok := service.Find("POST", r.Path)
		want := r.Path
		if r.Rewrite != "" {
			want = r.Rewrite
		}
		if !ok || got.Endpoint != want {
			t.Errorf("POST %s: the service says %q, %v; Envoy sends it to %s", r.Path, got.Endpoint, ok, want)
		}
		if _, ok := service.Find("GET", r.Path); ok {
			t.Errorf("GET %s: the service would take it, Envoy answers 405", r.Path)
		}
		seen[got.Endpoint] = true
	}
	for _, ep := range openai.Endpoints() {
		if !seen[string(ep)] {
			t.Errorf("Envoy has no route for %s", ep)
		}
	}
	for _, r := range modelRoutes {
		if got, ok := service.Find("GET", r.Path); !ok || got.Endpoint != service.Models || !got.Page {
			t.Errorf("GET %s: the service says %q, %v", r.Path, got.Endpoint, ok)
		}
	}
	for _, r := range personalRoutes {
		if got, ok := service.Find("GET", r.Path); !ok || got.Endpoint != r.Path || !got.Page {
			t.Errorf("GET %s: the service says %q, %v", r.Path, got.Endpoint, ok)
		}
	}
	for _, path := range []string{"/v1", "/v1/chat/completions/", "/v1/models/", "/admin", "/invocations", "/v1/audio/speech"} {
		if got, ok := service.Find("POST", path); ok || got.Endpoint != service.Other {
			t.Errorf("POST %s: the service takes it as %q", path, got.Endpoint)
		}
	}
}
