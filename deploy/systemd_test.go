package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// units are those that `make install` installs. The figure is the exposure that
// `systemd-analyze security` gives the unit, at most: 10 is a service without any
// bounds.
var units = map[string]struct {
	want     []string
	exposure float64
}{
	"tollgate.service": {[]string{
		"ExecStart=@/bin/launcher up --config /etc/tollgate/config.yaml", "ENVOY_BIN=@/lib/tollgate/envoy",
		"Type=notify", "WatchdogSec=", "WatchdogSignal=SIGKILL", "KillMode=mixed", "Delegate=yes", "RestartPreventExitStatus=2", "LimitNOFILE=65536",
	}, 2.5},
	"tollgate-serve.service": {[]string{"ExecStart=@/bin/tollgate serve --config /etc/tollgate/config.yaml", "Type=notify", "WatchdogSec=", "WatchdogSignal=SIGKILL"}, 1.5},
	"tollgate-vllm.service":  {[]string{"ExecStart=@/bin/launcher vllm --config /etc/tollgate/config.yaml", "Type=notify", "KillMode=mixed", "Delegate=yes"}, 5},
}

// TestUnitsAreInstalledWhole installs stand-ins of the programs by the Makefile
// and looks at what systemd would read. Where there is a systemd-analyze it has
// the last word.
func TestUnitsAreInstalledWhole(t *testing.T) {
	src, dest := t.TempDir(), t.TempDir()
	files := []string{"Makefile", "Tools.mk"}
	for unit := range units {
		files = append(files, "deploy/systemd/"+unit)
	}
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join("..", file))
		if err != nil {
			t.Fatal(err)
		}
		place(t, filepath.Join(src, file), string(text))
	}
	for _, name := range []string{"tollgate", "launcher"} {
		place(t, filepath.Join(src, "bin", name), "#!/bin/sh\n")
		if err := os.Chmod(filepath.Join(src, "bin", name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	prefix := filepath.Join(dest, "usr") // a real one, so that systemd-analyze finds the programs
	// build is taken for done: it needs the whole tree.
	cmd := exec.Command("make", "-o", "build", "install", "WITH_ENVOY=no", "PREFIX="+prefix)
	cmd.Dir = src
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for unit, u := range units {
		checkUnit(t, filepath.Join(prefix, "lib/systemd/system", unit), prefix, u.want)
		checkExposure(t, filepath.Join(prefix, "lib/systemd/system", unit), u.exposure)
	}
	for _, name := range []string{"tollgate", "launcher"} {
		info, err := os.Stat(filepath.Join(prefix, "bin", name))
		if err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// checkUnit looks into an installed unit.
func checkUnit(t *testing.T, path, prefix string, want []string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "@PREFIX@") {
		t.Errorf("%s: a place holder is left:\n%s", path, text)
	}
	for _, line := range want {
		if !strings.Contains(string(text), strings.ReplaceAll(line, "@", prefix)) {
			t.Errorf("%s: no %q", path, line)
		}
	}
	if analyze, err := exec.LookPath("systemd-analyze"); err == nil {
		if out, err := exec.Command(analyze, "verify", "--man=no", path).CombinedOutput(); err != nil || strings.Contains(string(out), "Unknown key") {
			t.Errorf("%s: %v\n%s", path, err, out)
		}
	}
}

// checkExposure asks a systemd that can judge a file (250 and later).
func checkExposure(t *testing.T, path string, most float64) {
	t.Helper()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		return
	}
	out, err := exec.Command(analyze, "security", "--offline=true", path).CombinedOutput()
	if strings.Contains(string(out), "unrecognized option") {
		return
	}
	found := regexp.MustCompile(`exposure level for \S+: ([0-9.]+)`).FindSubmatch(out)
	if err != nil || found == nil {
		t.Errorf("%s: %v\n%s", path, err, out)
		return
	}
	if got, err := strconv.ParseFloat(string(found[1]), 64); err != nil || got > most {
		t.Errorf("%s: exposure %s, at most %v is wanted\n%s", path, found[1], most, out)
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
