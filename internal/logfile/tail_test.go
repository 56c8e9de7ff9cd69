package logfile_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tollgate/internal/logfile"
)

func TestTail(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a.log", "one\ntwo\nthr\xffee\nfour")
	write("empty.log", "")
	write("long.log", strings.Repeat("x", 2<<20)+"\nlast\n")
	write("secret.txt", "no")
	if err := os.Symlink(filepath.Join(dir, "secret.txt"), filepath.Join(dir, "link.log")); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "out.log")
	if err := os.WriteFile(outside, []byte("no"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "out.log")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		lines int
		want  []string
	}{
		{"a.log", 2, []string{"thr\uFFFDee", "four"}},
		{"a.log", 100, []string{"one", "two", "thr\uFFFDee", "four"}},
		{"a.log", 0, []string{}},
		{"empty.log", 5, []string{}},
		{"long.log", 5, []string{"last"}},
	} {
		got, err := logfile.Tail(dir, c.name, c.lines)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%d lines of %s: %q, %v; want %q", c.lines, c.name, got, err, c.want)
		}
	}
	for _, name := range []string{"b.log", "secret.txt", "../a.log", "x/a.log", "", ".", "a-20261124T120000.000.log"} {
		if got, err := logfile.Tail(dir, name, 5); !errors.Is(err, logfile.ErrNoLog) {
			t.Errorf("%q: %q, %v; want that there is no such log", name, got, err)
		}
	}
	if got, err := logfile.Tail(dir, "out.log", 5); err == nil {
		t.Errorf("a link out of the folder: %q", got)
	}
}
