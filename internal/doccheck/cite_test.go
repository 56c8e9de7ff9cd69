package doccheck_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	// outside matches a reference to a document that no clone has.
	outside = regexp.MustCompile(`\bdesign §|\.\./shared\b|\b(faults|promises|envoy-chain)\.(md|yaml)\b`)
	// citedPage matches a page of docs/ that a comment names.
	citedPage = regexp.MustCompile(`\bdocs/[a-z0-9/-]+\.md\b`)
)

// TestCommentsCiteWhatIsInTheTree: a rule that a comment cites must be found by
// who has only the clone.
func TestCommentsCiteWhatIsInTheTree(t *testing.T) {
	const root = "../.."
	out, err := exec.CommandContext(t.Context(), "git", "-C", root, "ls-files").Output()
	if err != nil {
		t.Fatalf("list the tree's files: %v", err)
	}
	looked := 0
	for name := range strings.FieldsSeq(string(out)) {
		switch filepath.Ext(name) {
		case ".go", ".lua", ".rs", ".py", ".yaml", ".yml", ".md", ".sh":
		default:
			continue
		}
		if strings.HasSuffix(name, "cite_test.go") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue // removed and not committed yet
		}
		if err != nil {
			t.Fatal(err)
		}
		looked++
		for i, line := range strings.Split(string(text), "\n") {
			if cited := outside.FindString(line); cited != "" {
				t.Errorf("%s:%d cites %q, which is not in the tree", name, i+1, cited)
			}
			for _, cited := range citedPage.FindAllString(line, -1) {
				if _, err := os.Stat(filepath.Join(root, cited)); err != nil {
					t.Errorf("%s:%d cites %s, which is not there", name, i+1, cited)
				}
			}
		}
	}
	if looked < 100 {
		t.Errorf("looked at %d files only", looked)
	}
}
