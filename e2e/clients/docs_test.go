package clients_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
)

// snippets are the blocks of one language under one heading of docs/clients.md.
func snippets(t *testing.T, heading, language string) []string {
	t.Helper()
	page, err := os.ReadFile("../../docs/clients.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(page), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("docs/clients.md has no %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var out []string
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(section, -1) {
		out = append(out, m[1])
	}
	return out
}

// home is the address that the page uses.
const home = "http://127.0.0.1:8080"

// reader is somebody who follows the page: with its key in the environment, and
// the snippets as they stand there, but for the address.
type reader struct {
	*person
}

func newReader(t *testing.T, s *stack.Stack) *reader {
	t.Helper()
	return &reader{newPerson(t, s)}
}

func (r *reader) put(name, snippet string) string {
	r.t.Helper()
	if !strings.Contains(snippet, home) {
		r.t.Fatalf("a snippet does not name %s:\n%s", home, snippet)
	}
	return r.write(name, strings.ReplaceAll(snippet, home, r.s.URL), 0o600)
}

func (r *reader) environment() []string {
	return []string{
		"TOLLGATE_KEY=" + stack.Key, "PATH=" + os.Getenv("CLIENTS_BIN") + ":" + os.Getenv("PATH"),
		"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1", "DISABLE_AUTOUPDATER=1", "DISABLE_TELEMETRY=1", "DISABLE_ERROR_REPORTING=1",
		"LANGSMITH_TRACING=false",
	}
}

// says checks that a program has shown the model's answer.
func (r *reader) says(path string, args ...string) {
	r.t.Helper()
	if out := r.run(path, r.environment(), args...); !strings.Contains(out, "simulated model") {
		r.t.Errorf("it showed %.2000s", out)
	}
	r.checkBooks(1, ledger.Complete)
}

// shell runs commands of the page.
func (r *reader) shell(commands string) {
	r.t.Helper()
	r.says("/bin/sh", "-euc", strings.ReplaceAll(commands, home, r.s.URL))
}

// codex writes the configuration of the page, and what keeps Codex from calling out.
func (r *reader) codex(config string) {
	r.t.Helper()
	r.put(".codex/config.toml", "check_for_update_on_startup = false\n"+config+"\n[analytics]\nenabled = false\n\n[features]\nplugins = false\n")
	r.run("/usr/bin/git", nil, "init", "--quiet") // it works in repositories
}

// TestEverySnippetOfThePage runs what docs/clients.md shows, with the real clients.
func TestEverySnippetOfThePage(t *testing.T) {
	t.Parallel()
	for i, code := range snippets(t, "Python", "python") {
		name := regexp.MustCompile(`from (\S+) import`).FindStringSubmatch(code)[1]
		t.Run(name, func(t *testing.T) {
			python := stack.Python(t, "clients", "requirements.txt")
			r := newReader(t, start(t))
			r.says(python, r.put("hello.py", code))
		})
		if i == 2 && name != "langchain_openai" {
			t.Errorf("the third is %s", name)
		}
	}
	for _, code := range snippets(t, "Node", "js") {
		name := regexp.MustCompile(`from "(\S+)"`).FindStringSubmatch(code)[1]
		t.Run(strings.ReplaceAll(name, "/", "-"), func(t *testing.T) {
			node := stack.NodeSDKs(t)
			r := newReader(t, start(t))
			if err := os.Symlink(filepath.Join(node, "node_modules"), filepath.Join(r.home, "node_modules")); err != nil {
				t.Fatal(err)
			}
			r.says(filepath.Join(node, "node"), r.put("hello.mjs", code))
		})
	}
	t.Run("claude code", func(t *testing.T) {
		program(t, "claude")
		newReader(t, start(t)).shell(snippets(t, "Claude Code", "sh")[0])
	})
	t.Run("codex", func(t *testing.T) {
		program(t, "codex")
		r := newReader(t, start(t))
		r.codex(snippets(t, "Codex", "toml")[0])
		r.shell(snippets(t, "Codex", "sh")[0])
	})
	if got := len(snippets(t, "Python", "python")) + len(snippets(t, "Node", "js")); got != 5 {
		t.Errorf("%d snippets of SDKs, want 5", got)
	}
}
