package operator_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// schemathesis is the folder with what the fuzzer needs.
const schemathesis = "schemathesis"

// fuzz has schemathesis send what the document allows and what it does not, for that
// long, and fails where an answer is not as the document says.
func fuzz(t *testing.T, url string, long time.Duration, args ...string) {
	t.Helper()
	python := stack.Python(t, schemathesis, filepath.Join(schemathesis, "requirements.txt"))
	here, err := filepath.Abs(schemathesis)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), long+5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(filepath.Dir(python), "schemathesis"), append([]string{
		"--config-file", filepath.Join(here, "schemathesis.toml"), "run", url + "/admin/openapi.json", "--url", url,
		"--header", "Authorization: Bearer " + stack.AdminKey, "--max-time", strings.TrimSuffix(long.String(), "s"), "--no-color",
	}, args...)...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "SCHEMATHESIS_HOOKS=hooks", "PYTHONPATH="+here, "PYTHONDONTWRITEBYTECODE=1", "HOME="+cmd.Dir)
	out, err := cmd.CombinedOutput()
	said := strings.ReplaceAll(string(out), stack.AdminKey, "$KEY")
	if err != nil {
		t.Fatalf("schemathesis: %v\n%s", err, said)
	}
	t.Log(said[max(0, len(said)-1500):])
}

// Whatever is sent to the API, its answers are as its document says: no answer is an
// error of the server, what the document allows is taken and what it does not is refused.
func TestTheAPIIsAsItsDocumentSays(t *testing.T) {
	s := stack.StartHost(t, `[{"key":"`+stack.AdminKey+`","id":"root","user":"admin"},{"key":"`+stack.Key+`","id":"ann","user":"ann","quota":1000000,"quota_period":"day"}]`)
	s.Post(stack.ChatPath, stack.Chat(false, 3, ""))
	if long() {
		fuzz(t, s.URL, 10*time.Minute)
		return
	}
	fuzz(t, s.URL, 40*time.Second, "--seed", "1")
}
