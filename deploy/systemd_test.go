package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestUnitsAreInstalledWhole installs stand-ins of the programs by the Makefile
// and looks at what systemd would read. Where there is a systemd-analyze it has
// the last word.
func TestUnitsAreInstalledWhole(t *testing.T) {
	src, dest := t.TempDir(), t.TempDir()
	for _, file := range []string{"Makefile", "Tools.mk", "deploy/systemd/tollgate.service", "deploy/systemd/tollgate-vllm.service"} {
		text, err := os.ReadFile(filepath.Join("..", file))
		if err != nil {
			t.Fatal(err)
		}
		place(t, filepath.Join(src, file), string(text))
	}
	for _, name := range []string{"tollgate", "launcher"} {
		place(t, filepath.Join(src, "bin", name), "#!/bin/sh\n")
	}
	prefix := filepath.Join(dest, "usr") // a real one, so that systemd-analyze finds the programs
	// build is taken for done: it needs the whole tree.
	cmd := exec.Command("make", "-o", "build", "install", "WITH_ENVOY=no", "PREFIX="+prefix)
	cmd.Dir = src
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for unit, want := range map[string][]string{
		"tollgate.service": {
			"ExecStart=" + prefix + "/bin/launcher up --config /etc/tollgate/config.yaml", "ENVOY_BIN=" + prefix + "/lib/tollgate/envoy",
			"KillMode=mixed", "Delegate=yes", "RestartPreventExitStatus=2", "LimitNOFILE=65536",
		},
		"tollgate-vllm.service": {"ExecStart=" + prefix + "/bin/launcher vllm --config /etc/tollgate/config.yaml", "KillMode=mixed", "Delegate=yes"},
	} {
		checkUnit(t, filepath.Join(prefix, "lib/systemd/system", unit), want)
	}
	for _, name := range []string{"tollgate", "launcher"} {
		info, err := os.Stat(filepath.Join(prefix, "bin", name))
		if err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// checkUnit looks into an installed unit.
func checkUnit(t *testing.T, path string, want []string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "@") {
		t.Errorf("%s: a place holder is left:\n%s", path, text)
	}
	for _, line := range want {
		if !strings.Contains(string(text), line) {
			t.Errorf("%s: no %q", path, line)
		}
	}
	if analyze, err := exec.LookPath("systemd-analyze"); err == nil {
		if out, err := exec.Command(analyze, "verify", "--man=no", path).CombinedOutput(); err != nil || strings.Contains(string(out), "Unknown key") {
			t.Errorf("%s: %v\n%s", path, err, out)
		}
	}
}

func place(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
