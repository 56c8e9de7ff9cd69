package limits_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// python is an interpreter that has the official clients in their pinned
// versions. Without Python or the network the test is skipped by name, and fails
// with E2E=require.
func python(t *testing.T) string {
	t.Helper()
	interpreter, err := pythonSDKs()
	return found(t, "Python clients (Python 3.11 or newer and the network are needed)", interpreter, err)
}

// nodeSDKs is the folder of a pinned Node and the official clients for it, under
// the same conditions.
func nodeSDKs(t *testing.T) string {
	t.Helper()
	dir, err := fetchNodeSDKs()
	return found(t, "Node clients (Python 3 with pip and the network are needed)", dir, err)
}

func found(t *testing.T, what, path string, err error) string {
	t.Helper()
	switch {
	case err == nil:
	case os.Getenv("E2E") == "require":
		t.Fatalf("no %s: %v", what, err)
	default:
		t.Skipf("no %s: %v", what, err)
	}
	return path
}

// pythonSDKs makes a virtual environment in the module's cache, once.
var pythonSDKs = sync.OnceValues(func() (string, error) {
	dir, err := filepath.Abs("../../.cache/venv/sdks")
	if err != nil {
		return "", err
	}
	interpreter := filepath.Join(dir, "bin/python")
	pinned, err := os.ReadFile("requirements.txt")
	if err != nil {
		return "", err
	}
	stamp := filepath.Join(dir, "requirements.txt")
	if have, err := os.ReadFile(stamp); err == nil && bytes.Equal(have, pinned) && exec.Command(interpreter, "-c", "import openai, anthropic").Run() == nil {
		return interpreter, nil
	}
	for _, args := range [][]string{
		{"python3", "-m", "venv", "--clear", dir},
		{interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--require-hashes", "--only-binary", ":all:", "-r", "requirements.txt"},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("%w\n%s", err, out)
		}
	}
	return interpreter, os.WriteFile(stamp, pinned, 0o600)
})

// fetchNodeSDKs runs the script that fetches them, once.
var fetchNodeSDKs = sync.OnceValues(func() (string, error) {
	var errs bytes.Buffer
	cmd := exec.Command("python3", "../../scripts/fetch_sdks.py")
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, &errs)
	}
	return strings.TrimSpace(string(out)), nil
})
