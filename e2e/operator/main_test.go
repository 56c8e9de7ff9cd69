// Package operator_test holds what an operator relies on through a real Envoy: who a
// request is put down to, an API that is as its document says, changes that are all on
// record, and commands with manuals.
//
// PROOF=1 runs the long forms.
package operator_test

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

func TestMain(m *testing.M) {
	m.Run()
	stack.Clean()
}

// long tells that the long forms are wanted.
func long() bool { return os.Getenv("PROOF") != "" }

// host is a gateway that a launcher looks after, with an engine that takes adapters;
// the adapter "support" may be loaded.
func host(t *testing.T, keys string) *stack.Stack {
	t.Helper()
	dir := t.TempDir()
	adapter := filepath.Join(dir, "adapters", "support")
	if err := os.MkdirAll(adapter, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(adapter, "adapter_config.json"), []byte(`{"r":8}`), 0o600); err != nil {
		t.Fatal(err)
	}
	s := stack.Start(t, stack.Options{
		Dir: dir, Keys: keys, NoStart: true, Engine: "127.0.0.1:" + strconv.Itoa(stack.FreePort(t)),
		VLLM: "  auto_start: true\n  launch_mode: simulated\n  model: tiny\n  lora: {enabled: true, dir: " + filepath.Join(dir, "adapters") + ", runtime: {enabled: true}}",
	})
	l := stack.NewLauncher(t, s.Dir, s.URL)
	l.Start()
	l.Ready(90 * time.Second)
	s.Ready()
	return s
}
