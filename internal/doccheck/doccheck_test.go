// Package doccheck_test keeps the documentation honest: what it links to, the
// commands, keys, routes, errors and metrics that it names, and the
// configurations that it shows all exist.
package doccheck_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../.."

// pages are all Markdown files of the project, by path relative to its root.
func pages(t *testing.T) map[string]string {
	t.Helper()
	out := files(t, ".md")
	delete(out, "CHANGELOG.md") // it tells of what was, too
	if len(out) < 15 {
		t.Fatalf("only %d pages found", len(out))
	}
	return out
}

// page is one file of the project.
func page(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// files are the project's files that end in suffix, without recordings and
// what is built or fetched.
func files(t *testing.T, suffix string) map[string]string {
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
		if d.IsDir() || !strings.HasSuffix(name, suffix) {
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err == nil {
			out[rel] = page(t, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

var fence = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

// blocks are the fenced blocks of a page in one language.
func blocks(text, language string) []string {
	var out []string
	for _, m := range fence.FindAllStringSubmatch(text, -1) {
		if m[1] == language {
			out = append(out, m[2])
		}
	}
	return out
}

// rows are the rows of all tables of a page, their cells trimmed.
func rows(text string) [][]string {
	var out [][]string
	for line := range strings.Lines(fence.ReplaceAllString(text, "")) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|--") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		out = append(out, cells)
	}
	return out
}

// code are the words of a page that are set as code.
func code(text string) []string {
	var out []string
	for _, m := range regexp.MustCompile("`([^`\n]+)`").FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		out = append(out, m[1])
	}
	return out
}

func TestLinksResolve(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#\s]*)(?:#([^)\s]*))?\)`)
	all := pages(t)
	for path, text := range all {
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			target := path
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(path), m[1])
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s links to %s, which does not exist", path, m[1])
				continue
			}
			if m[2] != "" && !anchors(all[target])[m[2]] {
				t.Errorf("%s links to %s#%s, and no heading there has that name", path, m[1], m[2])
			}
		}
	}
}

// anchors are the names that headings have in links.
func anchors(text string) map[string]bool {
	out := map[string]bool{}
	dropped := regexp.MustCompile("[^a-z0-9 _-]")
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		out[strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")] = true
	}
	return out
}

func TestTheReadmeIsShort(t *testing.T) {
	if n := strings.Count(page(t, "README.md"), "\n"); n > 150 {
		t.Errorf("README.md has %d lines, more than anybody reads first", n)
	}
}

// Every test that is named as a proof is a test of the package in its row.
func TestProofsExist(t *testing.T) {
	named := 0
	for _, row := range rows(page(t, "docs/proof.md")) {
		if len(row) != 3 || !strings.HasPrefix(row[2], "`Test") {
			continue
		}
		var source strings.Builder
		found, err := filepath.Glob(filepath.Join(root, strings.Trim(row[1], "`"), "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			rel, err := filepath.Rel(root, path)
			if err != nil {
				t.Fatal(err)
			}
			source.WriteString(page(t, rel))
		}
		for _, name := range code(row[2]) {
			named++
			if !strings.Contains(source.String(), "\nfunc "+name+"(t *testing.T) {") {
				t.Errorf("docs/proof.md names %s of %s, which does not exist", name, row[1])
			}
		}
	}
	if named < 10 {
		t.Errorf("only %d tests found in docs/proof.md", named)
	}
}
