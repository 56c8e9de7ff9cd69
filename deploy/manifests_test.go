package deploy_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"tollgate/internal/route"
)

// pair is a path with the methods that a manifest lets through.
type pair struct {
	path   string
	prefix bool
}

var (
	gatewayMatch = regexp.MustCompile(`\{method: (\w+), path: \{type: (\w+), value: ([^}]+)\}\}`)
	istioMatch   = regexp.MustCompile(`\{method: \{(?:exact|regex): ([A-Z|]+)\}, uri: \{(exact|prefix): ([^}]+)\}\}`)
)

// matches are the pairs of a manifest, with their methods.
func matches(t *testing.T, file string, form *regexp.Regexp) map[pair][]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	out := map[pair][]string{}
	for _, m := range form.FindAllStringSubmatch(string(text), -1) {
		at := pair{path: m[3], prefix: strings.Contains(strings.ToLower(m[2]), "prefix")}
		out[at] = append(out[at], strings.Split(m[1], "|")...)
	}
	return out
}

// A route that tollgate gains is a 404 behind somebody else's Envoy until it is in the
// manifests; one that it loses must go there too.
func TestManifestsHaveTheRoutesOfTollgate(t *testing.T) {
	want := map[pair][]string{}
	for _, r := range route.Table() {
		at := pair{path: r.Path, prefix: r.Prefix}
		if strings.HasPrefix(r.Path, route.Admin+"/") && r.Path != route.Admin+"/" {
			continue // below the prefix that the manifests have
		}
		want[at] = r.Methods
	}
	for file, form := range map[string]*regexp.Regexp{"envoy-gateway/base/routes.yaml": gatewayMatch, "istio/routes.yaml": istioMatch} {
		got := matches(t, file, form)
		for at, methods := range want {
			slices.Sort(got[at])
			sorted := slices.Sorted(slices.Values(methods))
			if !slices.Equal(got[at], sorted) {
				t.Errorf("%s: %+v has the methods %v, want %v", file, at, got[at], sorted)
			}
		}
		for at := range got {
			if _, ok := want[at]; !ok {
				t.Errorf("%s: %+v is no route of tollgate", file, at)
			}
		}
	}
}
