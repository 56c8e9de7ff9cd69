package clients_test

import (
	"strings"
	"testing"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
)

// codexConfig is what docs/clients.md tells to write to ~/.codex/config.toml.
func codexConfig(s *stack.Stack, more string) string {
	return `model = "simulated"
model_provider = "tollgate"
check_for_update_on_startup = false

[model_providers.tollgate]
name = "Tollgate"
base_url = "` + s.URL + `/v1"
env_key = "TOLLGATE_KEY"
wire_api = "responses"
` + more + `
[analytics]
enabled = false

[features]
plugins = false
`
}

var codexArgs = []string{"exec", "--skip-git-repo-check", "--sandbox", "read-only"}

// TestCodex: the current one, one that sends session_id in a header, and one that
// offers a WebSocket first.
func TestCodex(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, program, config string
		offers                int // of a WebSocket, which are answered so that it falls back at once
	}{
		{"current", "codex", "", 0},
		{"0.101", "codex-0.101", "", 0},
		{"with a WebSocket", "codex", "supports_websockets = true\n", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			codex := program(t, c.program)
			s := start(t)
			p := newPerson(t, s)
			p.write(".codex/config.toml", codexConfig(s, c.config), 0o600)
			out := p.run(codex, []string{"TOLLGATE_KEY=" + stack.Key}, append(codexArgs, "Say hello.")...)
			if !strings.Contains(out, "simulated model") {
				t.Errorf("answer: %.2000s", out)
			}
			if got := s.Metric("http_requests_total", "endpoint", "/v1/responses", "status_code", "426"); int(got) != c.offers {
				t.Errorf("%v offers of a WebSocket were answered, want %d", got, c.offers)
			}
			p.declined = c.offers
			p.checkBooks(1, ledger.Complete)
		})
	}
	t.Run("stopped in the middle", func(t *testing.T) {
		codex := program(t, "codex")
		s := start(t)
		p := newPerson(t, s)
		p.write(".codex/config.toml", codexConfig(s, ""), 0o600)
		// One whole answer: from it the gateway learns how many tokens its prompts have.
		p.run(codex, []string{"TOLLGATE_KEY=" + stack.Key}, append(codexArgs, "Say hello.")...)
		p.checkBooks(1, ledger.Complete)
		slow(t, s)
		p.interrupt(codex, []string{"TOLLGATE_KEY=" + stack.Key}, append(codexArgs, "Tell a long story.")...)
		p.checkBooks(1, ledger.ClientAbort)
	})
}
