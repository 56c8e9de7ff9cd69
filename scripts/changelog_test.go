package scripts_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tollgate/internal/version"
)

// A release may be assembled again until it is out: what came meanwhile is added.
func TestTheChangelogGrowsUntilTheReleaseIsOut(t *testing.T) {
	root := t.TempDir()
	script, err := os.ReadFile("changelog.py")
	if err != nil {
		t.Fatal(err)
	}
	put := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "python3", append([]string{filepath.Join(root, "scripts/changelog.py")}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	put("scripts/changelog.py", string(script))
	put(".changelog/a.md", "fix\nOne.\n")
	put(".changelog/b.md", "feature\nTwo,\nlong.\n")
	if out := run(); !strings.Contains(out, "## Unreleased") || !strings.Contains(out, "- Two, long.") {
		t.Errorf("the entries:\n%s", out)
	}
	run("v0.1.0")
	put(".changelog/c.md", "fix\nThree.\n")
	run("v0.1.0")
	run("v0.1.0")
	put(".changelog/d.md", "breaking\nFour.\n")
	run("v0.2.0")
	text, err := os.ReadFile(filepath.Join(root, "CHANGELOG.md"))
	if err != nil {
		t.Fatal(err)
	}
	got := regexp.MustCompile(`\(\d{4}-\d\d-\d\d\)`).ReplaceAllString(string(text), "(DATE)")
	want := "# Changelog\n\n## v0.2.0 (DATE)\n\n### Breaking\n\n- Four.\n\n## v0.1.0 (DATE)\n\n### Features\n\n- Two, long.\n\n### Fixes\n\n- One.\n- Three.\n"
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if left, _ := filepath.Glob(filepath.Join(root, ".changelog/*")); len(left) > 0 {
		t.Errorf("entries are left: %q", left)
	}
	put(".changelog/e.md", "news\nFive.\n")
	if out, err := exec.CommandContext(t.Context(), "python3", filepath.Join(root, "scripts/changelog.py")).CombinedOutput(); err == nil || !strings.Contains(string(out), "e.md") {
		t.Errorf("a kind that is none: %v\n%s", err, out)
	}
}

func TestTheTreeHasAChangelogOfItsRelease(t *testing.T) {
	text, err := os.ReadFile("../CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(text), "# Changelog\n\n## "+version.Release) {
		t.Errorf("the top section of CHANGELOG.md is not of %s", version.Release)
	}
}
