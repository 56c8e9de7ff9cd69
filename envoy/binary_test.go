package envoy_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tollgate/envoy"
)

// place puts an executable at path and returns it.
func place(t *testing.T, path string, mode os.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBinaryIsTheFirstThatWasNamed(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	env := map[string]string{}
	expect := func(configured, want string) {
		t.Helper()
		got, err := envoy.Binary(configured, func(k string) string { return env[k] })
		if err != nil || got != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	_, err := envoy.Binary("", func(string) string { return "" })
	if !errors.Is(err, envoy.ErrNoBinary) || !strings.Contains(err.Error(), "make envoy") {
		t.Errorf("nothing there: got %v", err)
	}
	home := place(t, filepath.Join(dir, "home/.cache/tollgate/envoy/1.40.0/envoy"), 0o700)
	env["HOME"] = filepath.Join(dir, "home")
	expect("", home)
	env["XDG_CACHE_HOME"] = filepath.Join(dir, "xdg")
	expect("", place(t, filepath.Join(dir, "xdg/tollgate/envoy/1.40.0/envoy"), 0o700))
	expect("", place(t, filepath.Join(dir, ".cache/envoy/1.40.0/envoy"), 0o700))
	inPath := place(t, filepath.Join(dir, "bin/envoy"), 0o700)
	place(t, filepath.Join(dir, "notes/envoy"), 0o600) // no executable
	env["PATH"] = filepath.Join(dir, "notes") + ":" + filepath.Join(dir, "bin")
	expect("", inPath)
	env["ENVOY_BIN"] = "own/envoy"
	expect("", place(t, filepath.Join(dir, "own/envoy"), 0o700))
	env["ENVOY_BIN"] = "envoy"
	expect("", inPath)
	expect("cfg/envoy", place(t, filepath.Join(dir, "cfg/envoy"), 0o700))
}

func TestBinaryThatWasNamedAndIsNoneIsAnError(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	place(t, filepath.Join(dir, ".cache/envoy/1.40.0/envoy"), 0o700) // must not be taken instead
	plain := place(t, filepath.Join(dir, "plain"), 0o600)
	for _, given := range []string{"/nowhere/envoy", plain, dir, "not-in-path"} {
		if got, err := envoy.Binary(given, func(string) string { return "" }); err == nil {
			t.Errorf("envoy.binary %s: got %s, want an error", given, got)
		}
		getenv := func(k string) string { return map[string]string{"ENVOY_BIN": given}[k] }
		if got, err := envoy.Binary("", getenv); err == nil || !strings.Contains(err.Error(), "ENVOY_BIN") {
			t.Errorf("ENVOY_BIN %s: got %s, %v, want an error that names it", given, got, err)
		}
	}
}
