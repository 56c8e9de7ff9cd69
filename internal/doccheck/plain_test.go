package doccheck_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strings"
	"testing"
)

// riddles are words that stand for a noun and make a reader guess it. CONTRIBUTING.md
// has the rules.
var riddles = regexp.MustCompile(`\b([Ww]hoever|[Ww]homever|of (ours|theirs)|(no|some)body's)\b`)

func TestCommentsNameTheirSubjects(t *testing.T) {
	for path, text := range files(t, ".go") {
		file, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, group := range file.Comments {
			for line := range strings.Lines(group.Text()) {
				if word := riddles.FindString(line); word != "" {
					t.Errorf("%s: %q in %q: name the thing", path, word, strings.TrimSpace(line))
				}
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.BasicLit); ok && s.Kind == token.STRING && !strings.HasSuffix(path, "_test.go") {
				if word := riddles.FindString(s.Value); word != "" {
					t.Errorf("%s: %q in %.80s: name the thing", path, word, s.Value)
				}
			}
			return true
		})
	}
}
