package doccheck_test

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestMakeTargetsExist(t *testing.T) {
	makefile := page(t, "Makefile")
	used := regexp.MustCompile("(?m)(?:^(?: {4})?|`)make ([a-z][a-z0-9-]*)")
	for path, text := range pages(t) {
		for _, part := range shell(text) {
			for _, m := range used.FindAllStringSubmatch(part, -1) {
				if !strings.Contains(makefile, "\n"+m[1]+":") {
					t.Errorf("%s says make %s, which the Makefile does not have", path, m[1])
				}
			}
		}
	}
}

// built compiles both programs for a test.
func built(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, pkg := range map[string]string{"tollgate": "tollgate/cmd/tollgate", "launcher": "tollgate/launcher"} {
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, name), pkg).CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, out)
		}
	}
	return dir
}

// commandLine matches a command line of tollgate or launcher: at the start of a line of
// a block, or set as code.
var commandLine = regexp.MustCompile("(?m)(?:^(?: {4})?|`|\\$\\(|# |\\$ )(?:\\$ )?(?:bin/)?(tollgate|launcher) ([a-z][^`\n|>);&]*)")

// Every command line of the docs is given to its program with --help, which
// fails for a command that does not exist; its flags must be in that help.
func TestCommandsExist(t *testing.T) {
	dir := built(t)
	flag := regexp.MustCompile(`--[a-z][a-z-]*`)
	help := map[string]string{}
	for path, text := range pages(t) {
		for _, part := range shell(text) {
			for _, m := range commandLine.FindAllStringSubmatch(part, -1) {
				words := command(m[2])
				key := strings.Join(append([]string{m[1]}, words...), " ")
				if _, ok := help[key]; !ok {
					out, err := exec.CommandContext(t.Context(), filepath.Join(dir, m[1]), append(words, "--help")...).CombinedOutput()
					if err != nil {
						t.Errorf("%s says %q: %v\n%s", path, key, err, out)
					}
					help[key] = string(out)
				}
				for _, f := range flag.FindAllString(m[2], -1) {
					if !strings.Contains(help[key], f+"=") && !strings.Contains(help[key], f+" ") && !strings.Contains(help[key], f+"\n") {
						t.Errorf("%s gives %s the flag %s, which its --help does not know", path, key, f)
					}
				}
			}
		}
	}
	if len(help) < 15 {
		t.Errorf("only %d commands found in the docs", len(help))
	}
}

// shell is what of a page may be a command: blocks of shell, indented lines,
// and words set as code.
func shell(text string) []string {
	out := append(blocks(text, "sh"), blocks(text, "")...)
	for line := range strings.Lines(fence.ReplaceAllString(text, "")) {
		if strings.HasPrefix(line, "    ") {
			out = append(out, line)
		}
	}
	for _, word := range code(text) {
		out = append(out, "`"+word+"`")
	}
	return out
}

// command is the subcommand at the start of a command line.
func command(s string) []string {
	words := strings.Fields(s)
	if slices.Contains([]string{"keys", "ledger", "envoy", "config", "requests", "audit", "engines", "import"}, words[0]) && len(words) > 1 && regexp.MustCompile(`^[a-z]+$`).MatchString(words[1]) {
		return words[:2]
	}
	return words[:1]
}
