package main

import (
	"encoding/json"
	"runtime"
	"strings"
	"testing"

	"tollgate/envoy"
	"tollgate/internal/version"
)

func TestVersionNamesAllThatAReportNeeds(t *testing.T) {
	c := newCLI(t)
	out, _ := c.run(exitDone, "version")
	for _, want := range []string{"tollgate       " + version.Release, runtime.Version(), envoy.Version, "ledger schema"} {
		if !strings.Contains(out, want) {
			t.Errorf("version does not say %q:\n%s", want, out)
		}
	}
	out, _ = c.run(exitDone, "version", "--output", "json")
	var v versions
	if err := json.Unmarshal([]byte(out), &v); err != nil || v.LedgerSchema < 1 || v.Envoy != envoy.Version {
		t.Errorf("version --output json: %v\n%s", err, out)
	}
}
