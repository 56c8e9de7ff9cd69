package envoy_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// listed is the first cell of a row of README.md's tables of extensions and of
// runtime features.
var listed = regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")

func TestEveryExtensionAndRuntimeFeatureIsInTheReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(readme), "\n## Extensions and runtime features\n")
	if !ok {
		t.Fatal("README.md has no such section")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var want []string
	for _, row := range listed.FindAllStringSubmatch(section, -1) {
		want = append(want, row[1])
	}
	used := map[string]bool{}
	for _, b := range []*bootstrapv3.Bootstrap{bootstrapOf(t, defaults()), bootstrapOf(t, everything()), bootstrapOf(t, metered())} {
		for _, layer := range b.GetLayeredRuntime().GetLayers() {
			if layer.GetStaticLayer() == nil {
				t.Errorf("runtime layer %s is not in this file: what it switches on cannot be listed", layer.GetName())
			}
			for name := range layer.GetStaticLayer().GetFields() {
				used[name] = true
			}
		}
		walk(t, b.ProtoReflect(), func(m protoreflect.Message) {
			if name, ok := extension(m.Descriptor().FullName()); ok {
				used[name] = true
			}
		})
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(used))); diff != "" {
		t.Errorf("README.md lists (-), envoy.yaml uses (+):\n%s", diff)
	}
}

// extension is the package of a message of an extension without its ends:
// filters.http.cors of envoy.extensions.filters.http.cors.v3.CorsPolicy.
func extension(name protoreflect.FullName) (string, bool) {
	inner, ok := strings.CutPrefix(string(name), "envoy.extensions.")
	pkg, _, _ := strings.Cut(inner, ".v3.")
	return pkg, ok
}
