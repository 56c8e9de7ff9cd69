// Package metertest builds the programs of meter/ that tests compare this
// module's own meter with.
package metertest

import (
	"errors"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// Feed builds meter/feed and returns its path. Without cargo the test is skipped.
func Feed(tb testing.TB) string {
	tb.Helper()
	cargo, err := exec.LookPath("cargo")
	if errors.Is(err, exec.ErrNotFound) {
		tb.Skip("no cargo: the meter of meter/ cannot be built here")
	}
	_, here, _, _ := runtime.Caller(0)
	root := filepath.Join(filepath.Dir(here), "../..")
	target := filepath.Join(root, ".cache/meter-target")
	build := exec.CommandContext(tb.Context(), cargo, "build", "--release", "--locked", "--offline", "--quiet", "--package", "tollgate-meter-feed", "--target-dir", target) //nolint:gosec // cargo of this machine, fixed arguments
	build.Dir = filepath.Join(root, "meter")
	if out, err := build.CombinedOutput(); err != nil {
		tb.Fatalf("build meter/feed: %v\n%s", err, out)
	}
	return filepath.Join(target, "release", "feed")
}
