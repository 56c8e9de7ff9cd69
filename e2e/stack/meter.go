package stack

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tollgate/envoy"
	"tollgate/internal/config"
)

// hostVariable says where answers are metered: [config.MeterModule],
// [config.MeterExtProc], or where this machine's tollgate would.
const hostVariable = "E2E_METER"

// Module reports whether answers are metered inside Envoy: where E2E_METER says so,
// and without it where there is a library.
func Module(tb testing.TB) bool {
	tb.Helper()
	switch host := os.Getenv(hostVariable); host {
	case config.MeterModule:
		MeterLibrary(tb)
		return true
	case config.MeterExtProc:
		return false
	case "":
		_, err := meterLibrary(tb)
		return err == nil
	default:
		tb.Fatalf("%s is %q, want %s or %s", hostVariable, host, config.MeterModule, config.MeterExtProc)
		return false
	}
}

// MeterLibrary is the library of the meter as an absolute path.
func MeterLibrary(tb testing.TB) string {
	tb.Helper()
	path, err := meterLibrary(tb)
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

func meterLibrary(tb testing.TB) (string, error) {
	tb.Helper()
	getenv := func(name string) string {
		if given := os.Getenv(name); given != "" || name != envoy.LibraryVariable {
			return given
		}
		return envoy.NewestLibrary(filepath.Join(ModuleRoot(tb), ".cache/meter"))
	}
	return envoy.MeterLibrary("", getenv)
}

// NeedModule skips a test of what only the meter inside Envoy does.
func NeedModule(tb testing.TB) {
	tb.Helper()
	if !Module(tb) {
		tb.Skip("needs the meter inside Envoy, which needs cargo, see make build")
	}
}

// AnotherEnvoy starts one more Envoy before the same tollgate and returns the stack as
// its clients see it.
func (s *Stack) AnotherEnvoy() *Stack {
	s.tb.Helper()
	o, cfg := *s, *s.Cfg
	port := FreePort(s.tb)
	cfg.Listen = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	o.Cfg, o.URL = &cfg, "http://"+cfg.Listen
	o.Envoy = &Process{tb: s.tb, name: "another envoy", log: s.Path("envoy2.out"), command: func() *exec.Cmd {
		return o.envoyCommand(func(p *envoy.Params) { p.AdminSocket = "run/envoy2-admin.sock" })
	}}
	o.Envoy.Start()
	Eventually(s.tb, 20*time.Second, "the other Envoy to be ready", func() bool {
		a := AdminOf(s.tb, o.Cfg.InState("run/envoy2-admin.sock"))
		return strings.Contains(a("/stats?filter=^cluster.vllm.membership_healthy$"), "membership_healthy: 1")
	})
	return &o
}
