package stack

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

// Python is an interpreter that has the packages of requirements.txt, in a virtual
// environment of that name in the module's cache. Without Python or the network the
// test is skipped by name, and fails with E2E=require.
func Python(tb testing.TB, name, requirements string) string {
	tb.Helper()
	path, err := environment(filepath.Join(ModuleRoot(tb), ".cache", "venv", name), requirements)
	return found(tb, "Python clients (Python 3.11 or newer and the network are needed)", path, err)
}

// NodeSDKs is the folder of a pinned Node and the official clients for it, under
// the same conditions.
func NodeSDKs(tb testing.TB) string {
	tb.Helper()
	path, err := fetchNodeSDKs(ModuleRoot(tb))
	return found(tb, "Node clients (Python 3 with pip and the network are needed)", path, err)
}

func found(tb testing.TB, what, path string, err error) string {
	tb.Helper()
	switch {
	case err == nil:
	case os.Getenv("E2E") == "require":
		tb.Fatalf("no %s: %v", what, err)
	default:
		tb.Skipf("no %s: %v", what, err)
	}
	return path
}

// making is held while an environment is made.
var making sync.Mutex

// environment makes a virtual environment where it is not as the file wants it.
func environment(dir, requirements string) (string, error) {
	making.Lock()
	defer making.Unlock()
	interpreter := filepath.Join(dir, "bin/python")
	pinned, err := os.ReadFile(requirements) //nolint:gosec // a file of the test
	if err != nil {
		return "", err
	}
	stamp := filepath.Join(dir, "requirements.txt")
	if have, err := os.ReadFile(stamp); err == nil && bytes.Equal(have, pinned) && exec.Command(interpreter, "-c", "").Run() == nil { //nolint:gosec // of our own cache
		return interpreter, nil
	}
	for _, args := range [][]string{
		{"python3", "-m", "venv", "--clear", dir},
		{interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--require-hashes", "--only-binary", ":all:", "-r", requirements},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil { //nolint:gosec // the arguments are ours
			return "", fmt.Errorf("%w\n%s", err, out)
		}
	}
	return interpreter, os.WriteFile(stamp, pinned, 0o600) //nolint:gosec // in our own cache
}

// nodeSDKs is what [fetchNodeSDKs] has found.
var nodeSDKs struct {
	once sync.Once
	path string
	err  error
}

// fetchNodeSDKs runs the script that fetches them, once.
func fetchNodeSDKs(root string) (string, error) {
	nodeSDKs.once.Do(func() {
		var errs bytes.Buffer
		cmd := exec.Command("python3", filepath.Join(root, "scripts/fetch_sdks.py")) //nolint:gosec // a script of this module
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			nodeSDKs.err = fmt.Errorf("%w\n%s", err, &errs)
		}
		nodeSDKs.path = strings.TrimSpace(string(out))
	})
	return nodeSDKs.path, nodeSDKs.err
}
