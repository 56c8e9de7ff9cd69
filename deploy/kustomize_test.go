package deploy_test

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what is rendered from the Helm chart")

// The base of kustomize is what the chart renders, but for its ConfigMap, which
// kustomize makes by itself from config.yaml.
func TestKustomizeBaseIsTheChart(t *testing.T) {
	values := []string{"--values", "kustomize/values.yaml"}
	out, err := runHelm(t, append([]string{"template", "tollgate", chart}, values...)...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var docs []string
	for doc := range strings.SplitSeq(strings.TrimPrefix(out, "---\n"), "\n---\n") {
		if !strings.Contains(doc, "\nkind: ConfigMap\n") {
			docs = append(docs, strings.TrimSpace(doc))
		}
	}
	text := strings.Join(docs, "\n---\n") + "\n"
	text = regexp.MustCompile(`(?m)^# Source: .*\n`).ReplaceAllString(text, "")
	text = regexp.MustCompile(`(?m)^      annotations:\n\s+# Another .*\n\s+checksum/config: .*\n`).ReplaceAllString(text, "")
	if strings.Contains(text, "checksum") {
		t.Error("the checksum of the configuration is left, which kustomize does not keep right")
	}
	same(t, "kustomize/base/tollgate.yaml", text)
	same(t, "kustomize/base/config.yaml", render(t, values...)["ConfigMap/tollgate"].Data["config.yaml"])
}

// same compares a file, or with -update writes it.
func same(t *testing.T, path, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, path); got != want {
		t.Errorf("%s is not what the chart renders: go test ./deploy -update", path)
	}
}

// Every configuration of kustomize is one that tollgate reads.
func TestKustomizeConfigurations(t *testing.T) {
	files, err := filepath.Glob("kustomize/*/config.yaml")
	more, err2 := filepath.Glob("kustomize/overlays/*/config.yaml")
	if files = append(files, more...); err != nil || err2 != nil || len(files) != 3 {
		t.Fatalf("%v %v: %v", err, err2, files)
	}
	for _, file := range files {
		if c := configOf(t, read(t, file)); c.StateDir != "/srv/tollgate/state" {
			t.Errorf("%s: state_dir is %s", file, c.StateDir)
		}
	}
}
