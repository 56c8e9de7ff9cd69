package doccheck_test

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestBoundsAreHeldByTests: each row of the table of bounds names a test of a package
// that exists, and settings that exist.
func TestBoundsAreHeldByTests(t *testing.T) {
	text := page(t, "docs/threat-model.md")
	_, text, _ = strings.Cut(text, "\n## Bounds\n")
	text, _, _ = strings.Cut(text, "\n## ")
	known := settings(t)
	tests, named := 0, 0
	for _, row := range rows(text) {
		if len(row) != 4 || row[0] == "what" || strings.HasPrefix(row[0], "-") {
			continue
		}
		for _, word := range code(row[1]) {
			if !strings.Contains(word, ".") && !strings.Contains(word, "_") {
				continue // a field of a key
			}
			named++
			if _, ok := known[word]; !ok {
				t.Errorf("%s: %s is no setting", row[0], word)
			}
		}
		proof := code(row[3])
		if len(proof) != 2 {
			t.Errorf("%s: a package and a test are wanted, %q is there", row[0], row[3])
			continue
		}
		tests++
		if !hasTest(t, proof[0], proof[1]) {
			t.Errorf("%s: %s has no %s", row[0], proof[0], proof[1])
		}
	}
	if tests < 20 || named < 15 {
		t.Errorf("only %d tests and %d settings found", tests, named)
	}
}

// hasTest looks for a test function in the files of a package.
func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range found {
		rel, err := filepath.Rel(root, path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(page(t, rel), "\nfunc "+name+"(t *testing.T) {") {
			return true
		}
	}
	return false
}
