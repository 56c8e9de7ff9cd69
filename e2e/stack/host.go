package stack

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// StartHost starts a gateway that a launcher looks after, with a simulated engine that
// takes adapters: "support" may be loaded. keys is the key file; empty: [Key] and
// [AdminKey].
func StartHost(tb testing.TB, keys string) *Stack {
	tb.Helper()
	dir := tb.TempDir()
	adapter := filepath.Join(dir, "adapters", "support")
	if err := os.MkdirAll(adapter, 0o750); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(adapter, "adapter_config.json"), []byte(`{"r":8}`), 0o600); err != nil {
		tb.Fatal(err)
	}
	s := Start(tb, Options{
		Dir: dir, Keys: keys, NoStart: true, Engine: "127.0.0.1:" + strconv.Itoa(FreePort(tb)),
		VLLM: "  auto_start: true\n  launch_mode: simulated\n  model: tiny\n  lora: {enabled: true, dir: " + filepath.Join(dir, "adapters") + ", runtime: {enabled: true}}",
	})
	l := NewLauncher(tb, s.Dir, s.URL)
	l.Start()
	l.Ready(90 * time.Second)
	s.Ready()
	return s
}
