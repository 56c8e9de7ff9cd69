package scripts_test

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// CI is what `make ci` says, and that runs each suite once. The last line names the proofs
// that it leaves out.
func TestCIIsWhatMakeSaysAndRunsNothingTwice(t *testing.T) {
	script, err := os.ReadFile("../.ci/run")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(script), "\nmake --no-print-directory ci\n"); n != 1 || strings.Count(string(script), "make --") != 1 {
		t.Errorf(".ci/run does not run make ci alone:\n%s", script)
	}
	last := script[bytes.LastIndexByte(bytes.TrimSpace(script), '\n')+1:]
	if !bytes.HasPrefix(last, []byte("echo ")) || !bytes.Contains(last, []byte("make scale")) || !bytes.Contains(last, []byte("make proof")) {
		t.Errorf("the last line of .ci/run does not say what it has not run: %s", last)
	}
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	ci := regexp.MustCompile(`(?m)^ci: (check .*?) ##`).FindSubmatch(makefile)
	if ci == nil || !strings.Contains(string(makefile), "go mod tidy -diff && go mod verify") {
		t.Fatal("make ci does not begin with check, or that does not ask whether the module is tidy")
	}
	// -n prints the recipes and runs none. It does run those that call make, which check does.
	targets := strings.Fields(strings.TrimPrefix(string(ci[1]), "check"))
	cmd := exec.CommandContext(t.Context(), "make", append([]string{"--no-print-directory", "-n"}, targets...)...)
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("make -n %v: %v", targets, err)
	}
	for _, suite := range []string{"./e2e/...", "-tags vllm", "go list ./..."} {
		if n := strings.Count(string(out), suite); n != 1 {
			t.Errorf("make %v has %q %d times:\n%s", targets, suite, n, out)
		}
	}
}

// A rule that stands twice in the configuration of the linter stops the linter.
func TestTheLintersConfigurationIsRead(t *testing.T) {
	text, err := os.ReadFile("../.golangci.yml")
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if err := yaml.Unmarshal(text, &v); err != nil { // it refuses a key that stands twice
		t.Error(err)
	}
}
