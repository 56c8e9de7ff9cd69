package stack

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// program finds a program that tests need: the one that the environment names,
// one of the names on PATH, then what the script has fetched into a folder of
// .cache. Where there is none the test is skipped by name; with E2E=require it
// fails instead.
func program(tb testing.TB, variable, fetched, script string, names ...string) string {
	tb.Helper()
	if named := os.Getenv(variable); named != "" {
		return named
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	found, err := filepath.Glob(filepath.Join(ModuleRoot(tb), ".cache", fetched))
	switch {
	case err != nil:
		tb.Fatal(err)
	case len(found) > 0:
		return found[len(found)-1]
	case os.Getenv("E2E") == "require":
		tb.Fatalf("E2E=require, but there is no %s: run %s", names[0], script)
	default:
		tb.Skipf("needs a real %s, see %s", names[0], script)
	}
	return ""
}
