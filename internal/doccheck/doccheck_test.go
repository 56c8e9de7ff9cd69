// Package doccheck_test keeps the documentation honest: what it links to, the
// commands and metrics it names, and the configuration it shows all exist.
package doccheck_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tollgate/internal/config"
)

const root = "../.."

// pages are all Markdown files of the project by path.
func pages(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(name, ".md") {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			out[path] = string(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 10 {
		t.Fatalf("only %d pages found", len(out))
	}
	return out
}

func TestLinksResolve(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)
	for path, text := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s links to %s, which does not exist", path, m[1])
			}
		}
	}
}

func TestTheConfigurationShownIsTheDefault(t *testing.T) {
	text := pages(t)[filepath.Join(root, "docs/configuration.md")]
	if !strings.Contains(text, "```yaml\n"+string(config.Sample(false))+"```\n") {
		t.Error("docs/configuration.md does not show the file that is written: copy internal/config/sample.yaml into it")
	}
}

func TestConfigurationsInPagesAreValid(t *testing.T) {
	block := regexp.MustCompile("(?s)```yaml\n(.*?)```")
	for path, text := range pages(t) {
		if strings.Contains(path, "decisions") || strings.Contains(path, "envoy/README") {
			continue
		}
		for _, m := range block.FindAllStringSubmatch(text, -1) {
			// The certificate of the example is nobody's.
			yaml := regexp.MustCompile(`/etc/tollgate/(cert|key)\.pem`).ReplaceAllString(m[1], `""`)
			if _, err := config.Parse(path, []byte(yaml)); err != nil {
				t.Errorf("a configuration in %s is wrong:\n%v", path, err)
			}
		}
	}
}

func TestMakeTargetsExist(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	used := regexp.MustCompile("(?m)(?:^ {4}|`)make ([a-z][a-z0-9-]*)")
	for path, text := range pages(t) {
		for _, m := range used.FindAllStringSubmatch(text, -1) {
			if !strings.Contains(string(makefile), "\n"+m[1]+":") {
				t.Errorf("%s says make %s, which the Makefile does not have", path, m[1])
			}
		}
	}
}

// Every command line of the docs is given to its program with --help, which
// fails for a command that does not exist; its flags must be in that help.
func TestCommandsExist(t *testing.T) {
	dir := t.TempDir()
	for name, pkg := range map[string]string{"tollgate": "tollgate/cmd/tollgate", "launcher": "tollgate/launcher"} {
		if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, name), pkg).CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, out)
		}
	}
	line := regexp.MustCompile("(?m)(?:^ {4}|`)(?:bin/)?(tollgate|launcher) ([a-z][^`\n]*)")
	flag := regexp.MustCompile(`--[a-z-]+`)
	help := map[string]string{}
	for path, text := range pages(t) {
		for _, m := range line.FindAllStringSubmatch(text, -1) {
			words := command(m[2])
			key := m[1] + " " + strings.Join(words, " ")
			if _, ok := help[key]; !ok {
				out, err := exec.Command(filepath.Join(dir, m[1]), append(words, "--help")...).CombinedOutput()
				if err != nil {
					t.Errorf("%s says %q: %v\n%s", path, key, err, out)
				}
				help[key] = string(out)
			}
			for _, f := range flag.FindAllString(m[2], -1) {
				if !strings.Contains(help[key], f) {
					t.Errorf("%s gives %s the flag %s, which its --help does not know", path, key, f)
				}
			}
		}
	}
	if len(help) < 10 {
		t.Errorf("only %d commands found in the docs", len(help))
	}
}

// command is the subcommand at the start of a command line.
func command(s string) []string {
	groups := map[string]bool{"keys": true, "ledger": true, "envoy": true, "config": true}
	words := strings.Fields(s)
	if len(words) > 1 && groups[words[0]] && !strings.HasPrefix(words[1], "-") {
		first, _, _ := strings.Cut(words[1], "|")
		return []string{words[0], first}
	}
	return words[:1]
}

func TestMetricsExist(t *testing.T) {
	source := sources(t)
	named := regexp.MustCompile(`\b(tollgate_[a-z_]+|http_[a-z_]+_(?:total|seconds|requests)|token_usage_total)\b`)
	for path, text := range pages(t) {
		if strings.HasSuffix(path, "envoy/README.md") {
			continue // it names clusters of Envoy, not metrics
		}
		for _, m := range named.FindAllString(text, -1) {
			if !strings.Contains(source, `"`+strings.TrimPrefix(m, "tollgate_")+`"`) {
				t.Errorf("%s names the metric %s, which no code has", path, m)
			}
		}
	}
}

// sources is all Go code but tests.
func sources(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		b.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
