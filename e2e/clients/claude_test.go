package clients_test

import (
	"encoding/json"
	"strings"
	"testing"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
)

// claudeEnv is what docs/clients.md tells to set, and what keeps it at home.
func claudeEnv(s *stack.Stack) []string {
	return []string{
		"ANTHROPIC_BASE_URL=" + s.URL, "ANTHROPIC_MODEL=simulated", "ANTHROPIC_DEFAULT_HAIKU_MODEL=simulated",
		"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1", "DISABLE_AUTOUPDATER=1", "DISABLE_TELEMETRY=1", "DISABLE_ERROR_REPORTING=1",
	}
}

// TestClaudeCode in every way that it takes a key.
func TestClaudeCode(t *testing.T) {
	t.Parallel()
	claude := program(t, "claude")
	for _, c := range []struct {
		name     string
		env      []string
		settings string // ~/.claude/settings.json
	}{
		{"ANTHROPIC_AUTH_TOKEN", []string{"ANTHROPIC_AUTH_TOKEN=" + stack.Key}, ""},
		{"ANTHROPIC_API_KEY", []string{"ANTHROPIC_API_KEY=" + stack.Key}, ""},
		{"both", []string{"ANTHROPIC_AUTH_TOKEN=" + stack.Key, "ANTHROPIC_API_KEY=" + stack.Key}, ""},
		{"apiKeyHelper", nil, `{"apiKeyHelper": "echo ` + stack.Key + `"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t)
			p := newPerson(t, s)
			if c.settings != "" {
				p.write(".claude/settings.json", c.settings, 0o600)
			}
			out := p.run(claude, append(claudeEnv(s), c.env...), "-p", "Say hello.", "--output-format", "json")
			var got struct {
				Result string
				Error  bool `json:"is_error"`
				Usage  struct {
					Output int64 `json:"output_tokens"`
				}
			}
			if err := json.Unmarshal([]byte(out), &got); err != nil || got.Error || !strings.Contains(got.Result, "simulated model") || got.Usage.Output == 0 {
				t.Errorf("answer: %v %.2000s", err, out)
			}
			p.checkBooks(1, ledger.Complete)
		})
	}
	t.Run("stopped in the middle", func(t *testing.T) {
		s := start(t)
		slow(t, s)
		p := newPerson(t, s)
		p.interrupt(claude, append(claudeEnv(s), "ANTHROPIC_AUTH_TOKEN="+stack.Key), "-p", "Tell a long story.", "--output-format", "stream-json", "--verbose", "--include-partial-messages")
		p.checkBooks(1, ledger.ClientAbort)
	})
}
