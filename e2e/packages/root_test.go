//go:build packages

package packages_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// given is a folder that the environment names; without it there is nothing to test.
func given(t *testing.T, variable string) string {
	t.Helper()
	dir := os.Getenv(variable)
	if dir == "" {
		t.Fatalf("%s is not set: run `make test-packages`", variable)
	}
	return dir
}

// the is the one file of the release that fits the pattern.
func the(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(given(t, "DIST_DIR"), pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s is %v, %v", pattern, found, err)
	}
	return found[0]
}

// system is a fresh Debian: a layer over the one that was made once.
type system struct {
	t   *testing.T
	dir string
}

func newSystem(t *testing.T) *system {
	t.Helper()
	base := t.TempDir()
	for _, name := range []string{"upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(base, name), 0o755); err != nil { //nolint:gosec // a root folder
			t.Fatal(err)
		}
	}
	s := &system{t, filepath.Join(base, "root")}
	layers := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", given(t, "ROOT_DIR"), filepath.Join(base, "upper"), filepath.Join(base, "work"))
	run(t, "mount", "-t", "overlay", "overlay", "-o", layers, s.dir)
	t.Cleanup(func() { run(t, "umount", "-l", s.dir) })
	return s
}

// put copies a file of the release to /tmp of the system and returns its path there.
func (s *system) put(path string) string {
	s.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	name := "/tmp/" + filepath.Base(path)
	if err := os.WriteFile(filepath.Join(s.dir, name), data, 0o600); err != nil {
		s.t.Fatal(err)
	}
	return name
}

// in runs a shell in the system, which must succeed, and returns what it says.
func (s *system) in(script string) string {
	s.t.Helper()
	return run(s.t, "chroot", s.dir, "/bin/sh", "-ec", script)
}

// want compares what a script says, without spaces around it.
func (s *system) want(script, want string) {
	s.t.Helper()
	if got := strings.TrimSpace(s.in(script)); got != want {
		s.t.Errorf("%s says %q, want %q", script, got, want)
	}
}

// run runs a program, which must succeed, and returns what it says.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...) //nolint:gosec // of the test
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
