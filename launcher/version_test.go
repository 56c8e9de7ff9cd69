package main

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"tollgate/envoy"
	"tollgate/internal/version"
)

func TestVersionNamesAllThatAReportNeeds(t *testing.T) {
	dir := t.TempDir()
	fake := "#!/bin/sh\n[ \"$*\" = 'version --output json' ] && echo '{\"tollgate\":\"v9.8.7\",\"go\":\"x\",\"ledger_schema\":42}'\n"
	if err := os.WriteFile(filepath.Join(dir, "tollgate"), []byte(fake), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][]string{
		dir:         {"launcher       " + version.Release, runtime.Version(), envoy.Version, "tollgate       v9.8.7", "ledger schema  42"},
		t.TempDir(): {"launcher       " + version.Release, "tollgate       not known: tollgate is neither at"},
	} {
		var out, errOut bytes.Buffer
		code := run([]string{"version"}, process{
			getenv: func(string) string { return "" }, environ: []string{"PATH=" + path}, stdin: strings.NewReader(""), stdout: &out, stderr: &errOut,
		})
		if code != exitOK {
			t.Errorf("exit code %d: %s", code, &errOut)
		}
		for _, w := range want {
			if !strings.Contains(out.String(), w) {
				t.Errorf("version does not say %q:\n%s", w, &out)
			}
		}
	}
}
