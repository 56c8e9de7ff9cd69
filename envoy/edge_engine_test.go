package envoy_test

import (
	"net/http"
	"strings"
	"testing"

	"tollgate/internal/config"
)

// TestNoEngineGetsARequestThatIsNotForItsModel: where tollgate names no engine, Envoy
// chooses among those of the model, and where it names no model either, none.
func TestNoEngineGetsARequestThatIsNotForItsModel(t *testing.T) {
	e := startEdge(t, func(*config.Config) {})
	for proc, want := range map[string]int{"": http.StatusOK, "no-model": http.StatusServiceUnavailable, "other-model": http.StatusServiceUnavailable} {
		header := []string{"content-type", "application/json"}
		if proc != "" {
			header = append(header, "x-test-proc", proc)
		}
		a := e.do(t, http.MethodPost, "/v1/chat/completions", strings.NewReader("{}"), header...)
		if a.status != want {
			t.Errorf("%q: %d %s, want %d", proc, a.status, a.body, want)
		}
		if want == http.StatusOK {
			continue
		}
		if _, code := a.openAIError(t); code != "engine_unavailable" {
			t.Errorf("%q: code %s", proc, code)
		}
	}
}
