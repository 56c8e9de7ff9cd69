package envoy_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tollgate/envoy"
	"tollgate/internal/config"
)

// binary is the Envoy of this machine. Where there is none the test is skipped
// by name, or fails when E2E=require.
func binary(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	path, err := envoy.Binary("", os.Getenv)
	if err != nil { // go test runs in the package's folder, the fetched one lies under the root
		path = filepath.Join(root, ".cache", "envoy", envoy.Version, "envoy")
		_, err = os.Stat(path)
	}
	switch {
	case err == nil:
		return path
	case os.Getenv("E2E") == "require":
		t.Fatalf("E2E=require, but: %v", envoy.ErrNoBinary)
	default:
		t.Skip("needs a real Envoy, see make envoy")
	}
	return ""
}

func TestRealEnvoyAcceptsTheConfig(t *testing.T) {
	bin := binary(t)
	keys := t.TempDir()
	writePair(t, keys, "edge.test")
	if err := os.WriteFile(filepath.Join(keys, "vllm"), []byte("sk-engine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*config.Config){
		"default":        func(*config.Config) {},
		"tls":            func(c *config.Config) { c.TLS = pairIn(keys) },
		"ipv6":           func(c *config.Config) { c.Listen, c.VLLM.Host = "[::1]:8080", "::1" },
		"all interfaces": func(c *config.Config) { c.Listen = "[::]:8080" },
		"names":          func(c *config.Config) { c.VLLM.Endpoints = []string{"localhost:8000", "127.0.0.1:8001", "[::1]:8002"} },
		"api key file":   func(c *config.Config) { c.VLLM.APIKeyFile = filepath.Join(keys, "vllm") },
		"one origin":     func(c *config.Config) { c.CORS.AllowOrigins = []string{"https://chat.example.com"} },
		"no origin":      func(c *config.Config) { c.CORS.AllowOrigins = nil },
		"hostile origin": func(c *config.Config) { c.CORS.AllowOrigins = []string{`x", %REQ(a)% {{ . }} \ ' : # 😀`} },
		"short timeouts": func(c *config.Config) {
			c.Request.BodyTimeout, c.Request.IdleTimeout = time.Millisecond, 1500*time.Microsecond
		},
		"everything small": func(c *config.Config) { c.Request.MaxBodyMB, c.DrainTimeout, c.Envoy.Concurrency = 1, 0, 1 },
	} {
		t.Run(name, func(t *testing.T) {
			c := defaults()
			change(c)
			// A folder so deep that absolute socket paths would be refused.
			dir := filepath.Join(t.TempDir(), strings.Repeat("deep/", 30))
			p, err := envoy.ParamsFor(c)
			if err != nil {
				t.Fatal(err)
			}
			file, err := envoy.Write(dir, p)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, bin, append(envoy.Args(file, c), "--mode", "validate")...)
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, bad := range []string{`"level":"warning"`, `"level":"error"`, "deprecated", "work-in-progress"} {
				if strings.Contains(string(out), bad) {
					t.Errorf("%s in\n%s", bad, out)
				}
			}
		})
	}
}
