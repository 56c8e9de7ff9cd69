package envoy_test

import (
	"strings"
	"testing"

	"tollgate/envoy"
)

func TestEnvoysVersionIsChecked(t *testing.T) {
	const line = "\n/opt/envoy  version: 4c1f5ea7db6e9c1c0e5e0a8ed4bbf5e3a2f0a1b2/VERSION/Clean/RELEASE/BoringSSL\n\n"
	for said, want := range map[string]struct{ newer, err string }{
		"":                            {"", "is not Envoy"},
		"true (GNU coreutils)":        {"", "is not Envoy"},
		"nginx version: nginx/1.27.0": {"", "is not Envoy"},
		"1.40.0":                      {}, "1.40.7": {}, "1.40.0-dev": {},
		"1.39.9":  {"", "is Envoy 1.39.9, which is too old"},
		"0.99.0":  {"", "too old"},
		"1.41.0":  {newer: "1.41.0"},
		"2.0.1":   {newer: "2.0.1"},
		"1.100.0": {newer: "1.100.0"},
	} {
		if strings.Count(said, ".") == 2 && !strings.Contains(said, " ") {
			said = strings.ReplaceAll(line, "VERSION", said)
		}
		newer, err := envoy.CheckVersion(said)
		if newer != want.newer || (err != nil) != (want.err != "") || err != nil && !strings.Contains(err.Error(), want.err) {
			t.Errorf("%q: got %q, %v, want %+v", said, newer, err, want)
		}
	}
}
