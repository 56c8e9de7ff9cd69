package envoy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Version is the Envoy that the bootstrap is written for and tested with.
const Version = "1.40.0"

// meterVersions are the Envoys whose interface for libraries was compared with the
// meter's, and whose answers the conformance suite has seen metered by it. Nothing
// in Envoy checks the one, and it has changed in patch releases.
var meterVersions = []string{"1.40.0"}

// ErrNoBinary says that there is no Envoy on this machine yet.
var ErrNoBinary = errors.New("no envoy found: run `make envoy`, put one into PATH, or name it in envoy.binary or ENVOY_BIN")

// Binary is the Envoy to run, as an absolute path: configured, then ENVOY_BIN,
// then PATH, then the one that `make envoy` fetched. A given name without a
// slash is looked up in PATH. What was given and is no executable is an error,
// not a reason to look elsewhere.
func Binary(configured string, getenv func(string) string) (string, error) {
	if configured != "" {
		return named("envoy.binary", configured, getenv)
	}
	if given := getenv("ENVOY_BIN"); given != "" {
		return named("ENVOY_BIN", given, getenv)
	}
	if path, ok := inPath("envoy", getenv); ok {
		return path, nil
	}
	for _, dir := range fetchedIn(getenv) {
		if path, err := executable(filepath.Join(dir, "envoy", Version, "envoy")); err == nil {
			return path, nil
		}
	}
	return "", ErrNoBinary
}

// named is the binary that source gives.
func named(source, given string, getenv func(string) string) (string, error) {
	if !strings.Contains(given, "/") {
		if path, ok := inPath(given, getenv); ok {
			return path, nil
		}
		return "", fmt.Errorf("find envoy: %s names %q, which is not in PATH (`make envoy` fetches one)", source, given)
	}
	path, err := executable(given)
	if err != nil {
		return "", fmt.Errorf("find envoy named by %s (`make envoy` fetches one): %w", source, err)
	}
	return path, nil
}

func inPath(name string, getenv func(string) string) (string, bool) {
	for _, dir := range filepath.SplitList(getenv("PATH")) {
		if path, err := executable(filepath.Join(dir, name)); err == nil {
			return path, true
		}
	}
	return "", false
}

// fetchedIn are the folders that may hold a fetched Envoy.
func fetchedIn(getenv func(string) string) []string {
	dirs := []string{".cache"}
	if cache := getenv("XDG_CACHE_HOME"); cache != "" {
		return append(dirs, filepath.Join(cache, "tollgate"))
	}
	if home := getenv("HOME"); home != "" {
		return append(dirs, filepath.Join(home, ".cache", "tollgate"))
	}
	return dirs
}

// executable is path as an absolute path, if it can be run.
func executable(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(abs)
	if err != nil {
		return "", err
	}
	if info.IsDir() || info.Mode()&0o111 == 0 {
		return "", fmt.Errorf("%s: not an executable file", abs)
	}
	return abs, nil
}
