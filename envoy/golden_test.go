package envoy_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/config"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestBootstrapsAreTheGoldenOnes: each configuration of testdata/in is rendered
// and compared with the file of the same name in testdata/out.
func TestBootstrapsAreTheGoldenOnes(t *testing.T) {
	out, err := filepath.Abs("testdata/out")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir("testdata/in") // the configurations name files beside them
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("%d configurations, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			c, err := config.Load(file)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.ReplaceAll(string(render(t, c)), here, "/etc/tollgate")
			golden := filepath.Join(out, file)
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("bootstrap differs, -update rewrites it (-want +got):\n%s", diff)
			}
		})
	}
}
