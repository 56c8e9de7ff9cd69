package scripts_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSkipsWithoutCargoAreAllowed: a test of what only the meter inside Envoy does is
// named in allowed_skips.txt, and asks for the meter before it says which one it
// wants. Nothing else would tell before somebody without cargo runs make test.
func TestSkipsWithoutCargoAreAllowed(t *testing.T) {
	allowed, err := os.ReadFile("allowed_skips.txt")
	if err != nil {
		t.Fatal(err)
	}
	const needs, wants = "stack.NeedModule(t)", `t.Setenv("E2E_METER"`
	begins := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	found := 0
	err = filepath.WalkDir("../e2e", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		places := begins.FindAllStringSubmatchIndex(string(text), -1)
		for _, at := range places {
			name, body := string(text[at[2]:at[3]]), string(text[at[0]:])
			body, _, _ = strings.Cut(body, "\n}\n")
			asked := strings.Index(body, needs)
			if asked < 0 {
				continue
			}
			found++
			full := "tollgate/" + strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), "../") + "." + name + " "
			if !strings.Contains(string(allowed), "\n"+full) {
				t.Errorf("allowed_skips.txt does not name %s", full)
			}
			if set := strings.Index(body, wants); set >= 0 && set < asked {
				t.Errorf("%s sets E2E_METER before %s: without cargo it fails where it should be skipped", full, needs)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 10 {
		t.Errorf("found %d tests, want ten and more: is this the right folder?", found)
	}
}
