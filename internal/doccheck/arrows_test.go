package doccheck_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestFilesUseEachOtherOneWay: in these packages no file uses, over whatever other
// files, a file that uses it. A reader can begin with the file that uses none.
func TestFilesUseEachOtherOneWay(t *testing.T) {
	for _, dir := range []string{"internal/admission", "internal/redisstore"} {
		t.Run(dir, func(t *testing.T) {
			uses := fileUses(t, filepath.Join("../..", dir))
			for _, file := range slices.Sorted(maps.Keys(uses)) {
				if way := wayBack(uses, file, file, map[string]bool{}); way != nil {
					t.Errorf("%s uses itself: %s", file, strings.Join(way, " uses "))
				}
			}
		})
	}
}

// fileUses tells for each file of a package which others it uses. Imports are not
// loaded: what comes from them is of no interest here.
func fileUses(t *testing.T, dir string) map[string]map[string]bool {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files in %s: %v", dir, err)
	}
	set, files := token.NewFileSet(), []*ast.File{}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}, Selections: map[*ast.SelectorExpr]*types.Selection{}}
	config := types.Config{Error: func(error) {}, Importer: noImports{}}
	pkg, _ := config.Check(dir, set, files, info) // its errors are those of the imports
	name := func(p token.Pos) string { return filepath.Base(set.Position(p).Filename) }
	uses := map[string]map[string]bool{}
	for at, object := range info.Uses {
		if object.Pkg() != pkg {
			continue
		}
		from, to := name(at.Pos()), name(object.Pos())
		if from != to {
			if uses[from] == nil {
				uses[from] = map[string]bool{}
			}
			uses[from][to] = true
		}
	}
	return uses
}

// wayBack finds a way from a file to a target over what they use.
func wayBack(uses map[string]map[string]bool, from, target string, seen map[string]bool) []string {
	seen[from] = true
	for _, next := range slices.Sorted(maps.Keys(uses[from])) {
		if next == target {
			return []string{from, target}
		}
		if seen[next] {
			continue
		}
		if way := wayBack(uses, next, target, seen); way != nil {
			return append([]string{from}, way...)
		}
	}
	return nil
}

type noImports struct{}

var errNoImports = errors.New("imports are not loaded")

func (noImports) Import(string) (*types.Package, error) { return nil, errNoImports }
