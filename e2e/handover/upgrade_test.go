package handover_test

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// TestUpgradeCutsNothing: a new tollgate takes the place of the running one under
// streams; Envoy stays. Where tollgate meters, it waits for them first, and says so.
func TestUpgradeCutsNothing(t *testing.T) {
	s := stack.Start(t, stack.Options{NoStart: true})
	l := stack.NewLauncher(t, s.Dir, s.URL)
	says := "it meters by ext_proc, so it waits for live streams first"
	if s.Module {
		l.Cmd.Env = append(l.Cmd.Env, "TOLLGATE_METER_LIBRARY="+stack.MeterLibrary(t))
		says = "streams go on inside Envoy"
	} else {
		l.Cmd.Env = append(l.Cmd.Env, "TOLLGATE_METER_LIBRARY=/nowhere/libtollgate_meter-none.so")
	}
	l.Start()
	l.Ready(60 * time.Second)
	tollgate, envoy := l.Child("tollgate").PID, l.Child("envoy").PID
	c := start(t, s, 20, 100)
	cmd := exec.CommandContext(t.Context(), l.Cmd.Path, "upgrade", "--config", "config.yaml")
	cmd.Dir, cmd.Env = l.Dir, l.Cmd.Env
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), says) || !strings.Contains(string(out), "upgraded from tollgate ") {
		t.Errorf("upgrade: %v\n%s", err, out)
	}
	t.Logf("%s", out)
	c.whole(t)
	if now := l.Child("tollgate").PID; now == tollgate || now == 0 {
		t.Errorf("tollgate is %d, before %d", now, tollgate)
	}
	if now := l.Child("envoy").PID; now != envoy {
		t.Errorf("Envoy is %d, before %d", now, envoy)
	}
	settled(t, s)
	l.Signal(syscall.SIGTERM)
	if code := l.Exit(30 * time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
