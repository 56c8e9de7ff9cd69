package envoy_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tollgate/envoy"
	"tollgate/internal/config"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// remotes are what "tollgate envoy config --service" says beside a configuration.
var remotes = map[string]*envoy.Remote{
	"service.yaml": {
		Addresses: []string{"tollgate.example.org:9443"}, Names: []string{"tollgate.example.org", "spiffe://example.org/ns/tollgate/sa/tollgate"},
		CertFile: "/etc/tollgate/envoy.crt", KeyFile: "/etc/tollgate/envoy.key", CAFile: "/etc/tollgate/ca.crt",
	},
	"services.yaml": {
		Addresses: []string{"10.0.0.2:9443", "10.0.0.3:9443"}, Names: []string{"10.0.0.2", "10.0.0.3"},
		CertFile: "/etc/tollgate/envoy.crt", KeyFile: "/etc/tollgate/envoy.key", CAFile: "/etc/tollgate/ca.crt",
	},
}

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
			p := params(t, c)
			p.Remote = remotes[file]
			doc, err := envoy.Render(p)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join(out, file), strings.ReplaceAll(string(doc), here, "/etc/tollgate"))
			secrets, err := envoy.Secrets(p)
			if err != nil {
				t.Fatal(err)
			}
			for _, secret := range secrets {
				name := strings.TrimSuffix(file, ".yaml") + "-" + strings.TrimPrefix(filepath.Base(secret.Path), "envoy-")
				golden(t, filepath.Join(out, name), strings.ReplaceAll(string(secret.Text), here, "/etc/tollgate"))
			}
		})
	}
}

// golden compares a file with what was rendered.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("bootstrap differs, -update rewrites it (-want +got):\n%s", diff)
	}
}
