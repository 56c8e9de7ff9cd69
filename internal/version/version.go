// Package version says which release this build is of.
package version

import (
	"runtime/debug"
	"strings"
)

// Release is the release that this tree is, or becomes. `make changelog` writes the
// entries of the same release.
const Release = "v0.1.0"

// commit is set by a build that knows its commit and builds without git:
// -ldflags "-X tollgate/internal/version.commit=abc1234".
var commit = ""

// String is the release, and behind a plus sign the commit where the build knows it:
// "v0.1.0+1f2e3d4c5b6a", with ".dirty" where the tree had changes.
func String() string {
	if c := Commit(); c != "" {
		return Release + "+" + c
	}
	return Release
}

// Commit is the short name of the commit that was built; "" where it is not known.
func Commit() string {
	if commit != "" {
		return commit
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	var name, dirty string
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			name = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = ".dirty"
		}
	}
	return strings.TrimSpace(name + dirty)
}
