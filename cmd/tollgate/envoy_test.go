package main

import (
	"debug/elf"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/metertest"
)

// putLibrary writes a library of the meter into the CLI's folder and returns its path.
func (c *cli) putLibrary(name string) string {
	c.t.Helper()
	machine := elf.EM_X86_64
	if runtime.GOARCH == "arm64" {
		machine = elf.EM_AARCH64
	}
	return c.write(name, string(metertest.Library(c.t, machine, "envoy_dynamic_module_on_program_init")))
}

// putEnvoy writes a program that says it is an Envoy of that version.
func (c *cli) putEnvoy(version string) {
	c.t.Helper()
	path := c.write("envoy", "#!/bin/sh\necho 'envoy  version: 6d9bb7d9a85d616b220d1f8fe67b61f82bbdb8d3/"+version+"/Clean/RELEASE/BoringSSL'\n")
	if err := os.Chmod(path, 0o700); err != nil {
		c.t.Fatal(err)
	}
	c.env["ENVOY_BIN"] = path
}

const inEnvoy = "answers are metered inside Envoy: start Envoy 1.40.0 with ENVOY_DYNAMIC_MODULES_SEARCH_PATH="

// TestTheBootstrapNamesTheMeter: the bootstrap has the meter
// where that is asked for, and the command says what Envoy needs then.
func TestTheBootstrapNamesTheMeter(t *testing.T) {
	for _, c := range []struct {
		name, config, envoy string
		library             bool
		args                []string
		module              bool
		says                string
	}{
		{name: "nothing is asked", library: true},
		{name: "ext_proc over the configuration", config: "envoy: {meter: module}", library: true, args: []string{"--meter", "ext_proc"}},
		{name: "module", library: true, args: []string{"--meter", "module"}, module: true, says: inEnvoy},
		{name: "the configuration says module", config: "envoy: {meter: module}", library: true, module: true, says: inEnvoy},
		{name: "auto, and an Envoy that it is for", library: true, envoy: "1.40.0", args: []string{"--meter", "auto"}, module: true, says: inEnvoy},
		{name: "auto, and another Envoy", library: true, envoy: "1.41.3", args: []string{"--meter", "auto"}, says: "metered by tollgate (ext_proc): there is no library"},
		{name: "auto without a library", envoy: "1.40.0", args: []string{"--meter", "auto"}, says: "metered by tollgate (ext_proc): use the meter"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cli := newCLI(t)
			cli.write("c.yaml", c.config+"\n")
			cli.env["TOLLGATE_METER_LIBRARY"] = filepath.Join(cli.dir, "libtollgate_meter-9f2c41d07b3e.so")
			if c.library {
				cli.putLibrary("libtollgate_meter-9f2c41d07b3e.so")
			}
			if c.envoy != "" {
				cli.putEnvoy(c.envoy)
			}
			out, errs := cli.run(0, append([]string{"envoy", "config", "--config", "c.yaml"}, c.args...)...)
			if got := strings.Contains(out, "tollgate_meter-9f2c41d07b3e"); got != c.module {
				t.Errorf("the library is named: %v, want %v", got, c.module)
			}
			if !strings.Contains(errs, c.says) || c.says == "" && strings.Contains(errs, "metered") {
				t.Errorf("it says %q, want %q", errs, c.says)
			}
		})
	}
}

// TestTheBootstrapWithTheMeterIsTheGoldenOne: it is the one that the launcher writes.
func TestTheBootstrapWithTheMeterIsTheGoldenOne(t *testing.T) {
	testdata, err := filepath.Abs("../../envoy/testdata")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(testdata, "out/meter.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	c := newCLI(t)
	library := c.putLibrary("libtollgate_meter-9f2c41d07b3e.so")
	t.Chdir(filepath.Join(testdata, "in"))
	out, _ := c.run(0, "envoy", "config", "--config", "meter.yaml", "--meter-library", library)
	out = strings.ReplaceAll(out, filepath.Join(testdata, "in"), "/etc/tollgate")
	// Both are of the machine.
	bounds := regexp.MustCompile(`(max_active_downstream_connections|max_heap_size_bytes): \d+`)
	if diff := cmp.Diff(bounds.ReplaceAllString(string(want), "$1"), bounds.ReplaceAllString(out, "$1")); diff != "" {
		t.Errorf("it differs (-want +got):\n%s", diff)
	}
}

func TestAMeterThatIsNotThereIsAnError(t *testing.T) {
	c := newCLI(t)
	for _, args := range [][]string{{"--meter", "module"}, {"--meter-library", "nowhere/libtollgate_meter-1.so"}} {
		c.env["TOLLGATE_METER_LIBRARY"] = filepath.Join(c.dir, "libtollgate_meter-none.so")
		out, errs := c.run(1, append([]string{"envoy", "config"}, args...)...)
		if out != "" || !strings.Contains(errs, "put the meter inside Envoy: ") || !strings.Contains(errs, "or use --meter ext_proc") {
			t.Errorf("%v: got %q, %q", args, out, errs)
		}
	}
	c.run(2, "envoy", "config", "--meter", "nothing")
}

// TestTheBootstrapForAnotherHost is the golden one, and names the hosts of the flags as
// those that tollgate's certificate must have.
func TestTheBootstrapForAnotherHost(t *testing.T) {
	testdata, err := filepath.Abs("../../envoy/testdata")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(testdata, "out/services.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	c := newCLI(t)
	t.Chdir(filepath.Join(testdata, "in"))
	flags := []string{"--service", "10.0.0.2:9443", "--service", "10.0.0.3:9443", "--ca-file", "ca.crt", "--cert-file", "envoy.crt", "--key-file", "envoy.key"}
	out, _ := c.run(0, append([]string{"envoy", "config", "--config", "services.yaml"}, flags...)...)
	out = strings.ReplaceAll(out, filepath.Join(testdata, "in"), "/etc/tollgate")
	bounds := regexp.MustCompile(`(max_active_downstream_connections|max_heap_size_bytes): \d+`) // of the machine
	if diff := cmp.Diff(bounds.ReplaceAllString(string(want), "$1"), bounds.ReplaceAllString(out, "$1")); diff != "" {
		t.Errorf("it differs (-want +got):\n%s", diff)
	}
	c.write("c.yaml", "state_dir: "+filepath.Join(c.dir, "state")+"\n")
	c.run(0, append([]string{"envoy", "config", "--write", "--config", filepath.Join(c.dir, "c.yaml")}, flags...)...)
	secret, err := os.ReadFile(filepath.Join(c.dir, "state/run/envoy-service-authority.yaml"))
	if err != nil || !strings.Contains(string(secret), `san_type: IP_ADDRESS, matcher: { exact: "10.0.0.3" }`) || !strings.Contains(string(secret), testdata+"/in/ca.crt") {
		t.Errorf("%v, %s", err, secret)
	}
	out, _ = c.run(0, "envoy", "config", "--config", filepath.Join(c.dir, "c.yaml"), "--service", "unix:/run/a", "--service", "unix:/run/b")
	if !strings.Contains(out, `path: "/run/a/run/grpc.sock"`) || !strings.Contains(out, `path: "/run/b/run/http.sock"`) || strings.Contains(out, "UpstreamTlsContext") {
		t.Errorf("two on this host:\n%s", out)
	}
}

func TestFlagsForAnotherHostBelongTogether(t *testing.T) {
	c := newCLI(t)
	files := []string{"--ca-file", "a", "--cert-file", "b", "--key-file", "c"}
	at := []string{"--service", "10.0.0.2:9443"}
	for says, args := range map[string][]string{
		"--ca-file is missing":                          at,
		"--key-file is missing":                         append(append([]string{}, at...), files[:4]...),
		"--ca-file is for a tollgate on another host":   files,
		"--server-name is for a tollgate":               {"--server-name", "x"},
		"want HOST:PORT":                                append([]string{"--service", "10.0.0.2"}, files...),
		"all over the network, or all on this host":     append([]string{"--service", "unix:/run/a", "--service", "10.0.0.2:9443", "--server-name", "x"}, files...),
		"the meter inside Envoy is for":                 append(append([]string{"--meter", "module"}, at...), files...),
		"--cert-file is for a tollgate on another host": {"--service", "unix:/run/a", "--cert-file", "b"},
	} {
		status := 2
		if strings.HasPrefix(says, "all over") {
			status = 1
		}
		if out, errs := c.run(status, append([]string{"envoy", "config"}, args...)...); out != "" || !strings.Contains(errs, says) {
			t.Errorf("%v: %q, %q", args, out, errs)
		}
	}
}
