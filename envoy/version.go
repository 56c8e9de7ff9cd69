package envoy

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// saidVersion is in what an Envoy says to --version: COMMIT/VERSION/STATE/TYPE/TLS.
var saidVersion = regexp.MustCompile(`version: *[0-9a-f]+/([0-9]+)\.([0-9]+)\.([0-9]+)\S*/`)

// CheckVersion reads what a program says to --version. An error means that it is
// no Envoy, or one that is too old for the bootstrap. A version that is newer
// than [Version], but for the patch level, is returned.
func CheckVersion(said string) (newer string, err error) {
	version := VersionOf(said)
	if version == "" {
		return "", errors.New("is not Envoy: its answer to --version names none; `make envoy` fetches the right one, envoy.binary or ENVOY_BIN names another")
	}
	switch got, want := minor(version), minor(Version); {
	case got < want:
		return "", fmt.Errorf("is Envoy %s, which is too old: %s is needed; `make envoy` fetches it", version, Version)
	case got > want:
		return version, nil
	}
	return "", nil
}

// VersionOf is the version in what an Envoy says to --version; "" where it names none.
func VersionOf(said string) string {
	m := saidVersion.FindStringSubmatch(said)
	if m == nil {
		return ""
	}
	return strings.Join(m[1:], ".")
}

// minor makes the first two numbers of a version comparable.
func minor(version string) int {
	f := strings.Split(version, ".")
	high, _ := strconv.Atoi(f[0])
	low, _ := strconv.Atoi(f[1])
	return high*1000 + low
}
