package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What is named and cannot be used ends the start where the module was asked for, and
// is said where it was not; nobody is left to guess who meters.
func TestTheLauncherSaysWhoMeters(t *testing.T) {
	for name, c := range map[string]struct {
		more    string
		library string
		code    int
		says    string
	}{
		"auto, none there":    {"", "", 0, "no library of the meter found"},
		"auto, no library":    {"", "libtext.so", 0, "libtext.so is no library of the meter"},
		"ext_proc":            {"envoy: {meter: ext_proc}\n", "libtext.so", 0, "as envoy.meter says"},
		"module, none there":  {"envoy: {meter: module}\n", "", exitUsage, "envoy.meter is module: no library of the meter found"},
		"module, a text file": {"envoy: {meter: module}\n", "libtext.so", exitUsage, "libtext.so is no library of the meter"},
		"module, not there":   {"envoy: {meter: module}\n", "libnone.so", exitUsage, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStack(t, c.more)
			if err := os.WriteFile(filepath.Join(s.dir, "libtext.so"), []byte("no library"), 0o600); err != nil {
				t.Fatal(err)
			}
			if c.library != "" {
				s.cmd.Env = append(s.cmd.Env, "TOLLGATE_METER_LIBRARY="+c.library)
			}
			s.start()
			if c.code == 0 {
				s.ready()
				s.signal(syscall.SIGTERM)
			}
			if got := s.wait(20 * time.Second); got != c.code {
				t.Errorf("exit code %d, want %d", got, c.code)
			}
			if said := s.stderr.String(); strings.Count(said, c.says) != 1 {
				t.Errorf("does not say %q, once:\n%s", c.says, said)
			}
		})
	}
}
