package doccheck_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	decisionTitle  = regexp.MustCompile(`^# (\d+)\. \S`)
	decisionStatus = regexp.MustCompile(`^\d{4}-\d{2}-\d{2} · (proposed|accepted|replaced by \d{4})$`)
)

// TestDecisionsHaveDateAndStatus holds every page of docs/decisions to the head
// of its template: a number that is the file's, a date and a status.
func TestDecisionsHaveDateAndStatus(t *testing.T) {
	pages, err := filepath.Glob("../../docs/decisions/[0-9]*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no decisions found: %v", err)
	}
	seen := map[string]string{}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.SplitN(string(text), "\n", 4)
		name := filepath.Base(page)
		title := decisionTitle.FindStringSubmatch(lines[0])
		switch {
		case title == nil:
			t.Errorf("%s does not begin with \"# N. Title\"", name)
		case strings.TrimLeft(name[:4], "0") != title[1]:
			t.Errorf("%s calls itself number %s", name, title[1])
		case seen[title[1]] != "":
			t.Errorf("%s and %s have the same number", name, seen[title[1]])
		case len(lines) < 4 || !decisionStatus.MatchString(lines[2]):
			t.Errorf("%s: the third line must be \"YYYY-MM-DD · status\"", name)
		default:
			seen[title[1]] = name
		}
	}
}
