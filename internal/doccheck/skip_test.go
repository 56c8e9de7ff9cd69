package doccheck_test

import (
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var testBegins = regexp.MustCompile(`(?m)^func (Test\w+)\(`)

// TestSkipsWithoutCargoAreAllowed: a test of what only the meter inside Envoy does is
// named in allowed_skips.txt, and asks for the meter before it says which one it
// wants. Nothing else would tell before somebody without cargo runs make test.
func TestSkipsWithoutCargoAreAllowed(t *testing.T) {
	const needs, wants = "stack.NeedModule(t)", `t.Setenv("E2E_METER"`
	allowed, found := page(t, "scripts/allowed_skips.txt"), 0
	for file, text := range files(t, "_test.go") {
		file = filepath.ToSlash(file)
		if !strings.HasPrefix(file, "e2e/") {
			continue
		}
		for _, at := range testBegins.FindAllStringSubmatchIndex(text, -1) {
			body, _, _ := strings.Cut(text[at[0]:], "\n}\n")
			before, _, asks := strings.Cut(body, needs)
			if !asks {
				continue
			}
			found++
			name := "tollgate/" + path.Dir(file) + "." + text[at[2]:at[3]]
			if !strings.Contains(allowed, "\n"+name+" ") {
				t.Errorf("allowed_skips.txt does not name %s", name)
			}
			if strings.Contains(before, wants) {
				t.Errorf("%s sets E2E_METER before %s: without cargo it fails where it should be skipped", name, needs)
			}
		}
	}
	if found < 10 {
		t.Errorf("found %d tests, want ten and more: is this the right folder?", found)
	}
}
