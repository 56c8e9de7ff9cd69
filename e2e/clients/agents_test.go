package clients_test

import (
	"strings"
	"testing"

	"tollgate/e2e/stack"
	"tollgate/internal/vllmsim"
)

// TestCodingAgentsAtHome: with the names of the page in the configuration, agents
// ask for the models that they have built in, with a key that may use no others.
func TestCodingAgentsAtHome(t *testing.T) {
	t.Parallel()
	const section = "Coding agents at home"
	at := func(t *testing.T, may string) *reader {
		t.Helper()
		return newReader(t, stack.Start(t, stack.Options{
			Config: snippets(t, section, "yaml")[0],
			Sim:    vllmsim.Options{Models: []string{"simulated"}, ToolParser: true},
			Keys:   `[{"key": "` + stack.Key + `", "id": "ann", "user": "ann", "models": ["` + may + `"]}]`,
		}))
	}
	check := func(t *testing.T, r *reader, prefix string) {
		t.Helper()
		for _, rec := range r.s.Records() {
			if rec.Model != "simulated" || !strings.HasPrefix(rec.RequestedModel, prefix) {
				t.Errorf("the ledger says %q for %q", rec.Model, rec.RequestedModel)
			}
		}
	}
	t.Run("claude code", func(t *testing.T) {
		program(t, "claude")
		r := at(t, "claude-*")
		r.shell(snippets(t, section, "sh")[0])
		check(t, r, "claude-")
	})
	t.Run("codex", func(t *testing.T) {
		program(t, "codex")
		r := at(t, "gpt-*")
		r.codex(snippets(t, section, "toml")[0])
		r.shell(snippets(t, section, "sh")[1])
		check(t, r, "gpt-")
	})
}
