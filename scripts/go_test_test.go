// Package scripts_test tests the scripts that decide whether a run has passed.
package scripts_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestWhatMakesARunFail drives go_test.py over a module of its own.
func TestWhatMakesARunFail(t *testing.T) {
	script, err := filepath.Abs("go_test.py")
	if err != nil {
		t.Fatal(err)
	}
	const (
		pass     = "func TestPass(t *testing.T) {}"
		unsteady = `func TestUnsteady(t *testing.T) {
			if _, err := os.Stat("mark"); err == nil { return }
			os.WriteFile("mark", nil, 0o600)
			t.Error("the first time")
		}`
		failing = `func TestFailing(t *testing.T) { t.Run("part", func(t *testing.T) { t.Error("always") }) }`
	)
	for name, c := range map[string]struct {
		tests  string
		second string // SECOND_TRY
		passes bool
		says   string // part of the output
		silent string // not part of it
	}{
		"all pass":                 {pass, "2", true, "1 tests passed, 0 failed", "try"},
		"one fails":                {pass + "\n" + failing, "", false, "failed: toy.TestFailing/part", "try"},
		"one fails twice":          {pass + "\n" + failing, "2", false, "second try: toy\n", "UNSTEADY"},
		"one is unsteady":          {pass + "\n" + unsteady, "2", true, "UNSTEADY, passed at the second try: toy.TestUnsteady\n", "TestPass"},
		"no second try was wanted": {pass + "\n" + unsteady, "", false, "failed: toy.TestUnsteady", "try"},
		"too many for another try": {unsteady + "\n" + failing, "1", false, "failed: toy.TestUnsteady", "try"},
		"a panic is final":         {`func TestPanic(t *testing.T) { panic("so") }`, "2", false, "panic: so", "try"},
		"a race is final": {`func TestRace(t *testing.T) {
			if _, err := os.Stat("mark"); err == nil { return }
			os.WriteFile("mark", nil, 0o600)
			t.Error("WARNING: DATA RACE\nas the detector writes it")
			println("WARNING: DATA RACE")
		}`, "2", false, "DATA RACE", "try"},
		"a process that dies is final": {unsteady + `
		func TestZDies(t *testing.T) { os.Exit(1) }`, "2", false, "failed: toy.TestUnsteady", "try"},
		"what is skipped the second time": {unsteady + `
		func TestZSkips(t *testing.T) {
			if _, err := os.Stat("ran"); err == nil { t.Skip("later") }
			os.WriteFile("ran", nil, 0o600)
		}`, "2", false, "second try: toy\n", "UNSTEADY"},
		"it does not build": {`func TestBroken(t *testing.T) { x := 1 }`, "2", false, "declared and not used", "try"},
		"a skipped test":    {pass + "\n" + `func TestSkipped(t *testing.T) { t.Skip("no reason") }`, "2", false, "skipped, NOT ALLOWED: toy.TestSkipped: toy_test.go", "try"},
		"no test at all":    {"", "2", false, "no test ran at all", "try"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, "go.mod", "module toy\n\ngo 1.26\n")
			write(t, dir, "toy_test.go", "package toy\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\nvar _ = os.Stat\nvar _ testing.TB\n\n"+c.tests+"\n")
			cmd := exec.CommandContext(t.Context(), "python3", script, "-count=1", "./...")
			cmd.Dir, cmd.Env = dir, append(os.Environ(), "SECOND_TRY="+c.second, "GOFLAGS=-mod=mod", "GOWORK=off")
			out, err := cmd.CombinedOutput()
			if (err == nil) != c.passes {
				t.Errorf("got %v, want passes = %v", err, c.passes)
			}
			if !strings.Contains(string(out), c.says) {
				t.Errorf("does not say %q", c.says)
			}
			if strings.Contains(string(out), c.silent) {
				t.Errorf("says %q", c.silent)
			}
			if t.Failed() {
				t.Logf("output:\n%s", out)
			}
		})
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
