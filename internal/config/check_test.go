package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"tollgate/internal/config"
)

// one is the only problem of a text.
func one(t *testing.T, text string) config.Problem {
	t.Helper()
	_, err := config.Parse("c", []byte(text))
	if err == nil {
		t.Fatalf("%q: no mistake", text)
	}
	p := problems(t, err)
	if len(p) != 1 {
		t.Fatalf("%q: %v", text, err)
	}
	return p[0]
}

func TestAnArgumentIsOneWord(t *testing.T) {
	for _, arg := range []string{`"--max-model-len 8192"`, `"-tp 2"`, `"--a\tb"`, `'--override-x {"a": 1}'`} {
		if p := one(t, "vllm: {args: ["+arg+"]}"); p.Key != "vllm.args[0]" || !strings.Contains(p.Suggestion, "write two") {
			t.Errorf("%s: %s", arg, p)
		}
	}
	for _, args := range []string{`--max-model-len, 8192`, `"--max-model-len", "8192"`, `'--x={"a": 1}'`, `'--x', '{"a": 1}'`, `"two words"`, `"--chat-template", "a b.jinja"`} {
		if _, err := config.Parse("c", []byte("vllm: {args: ["+args+"]}")); err != nil {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestAKeyIsNoArgument(t *testing.T) {
	for _, args := range []string{`--api-key, sk-hidden`, `--api-key=sk-hidden`, `--api_key, sk-hidden`, `"--api-key sk-hidden"`, `"--api_key=sk-hidden"`} {
		p := one(t, "vllm: {args: ["+args+"]}")
		if p.Key != "vllm.args[0]" || !strings.Contains(p.Suggestion, "vllm.api_key_file") || strings.Contains(p.String(), "sk-hidden") {
			t.Errorf("%s: %s", args, p)
		}
	}
	if _, err := config.Parse("c", []byte(`vllm: {args: [--api-key-x, a]}`)); err != nil {
		t.Error(err)
	}
}

func TestTwoListenersNeedTwoPorts(t *testing.T) {
	for text, key := range map[string]string{
		"metrics_listen: 127.0.0.1:8080":                               "metrics_listen",
		"listen: 127.0.0.1:9464":                                       "listen",
		"listen: 0.0.0.0:9464":                                         "listen",
		"listen: 127.0.0.1:1\nmetrics_listen: localhost:1":             "metrics_listen",
		"listen: \"[::]:1\"\nmetrics_listen: 127.0.0.1:1":              "metrics_listen",
		"admin_listen: 127.0.0.1:9464":                                 "admin_listen",
		"admin_listen: 127.0.0.1:8080":                                 "admin_listen",
		"vllm: {auto_start: true, launch_mode: simulated, port: 9464}": "vllm.port",
		"listen: 10.0.0.1:8000\nvllm: {host: 0.0.0.0, auto_start: true, launch_mode: simulated}": "listen",
	} {
		if p := one(t, text); p.Key != key || !strings.Contains(p.String(), "port") {
			t.Errorf("%q: %s", text, p)
		}
	}
	for _, text := range []string{
		"", "metrics_listen: 127.0.0.1:8081", "listen: 10.0.0.1:9464", "vllm: {host: 10.0.0.2, port: 8080}",
		"listen: 0.0.0.0:8080\nvllm: {endpoints: [\"10.0.0.2:8080\"]}", "admin_listen: 127.0.0.2:8080",
	} {
		if _, err := config.Parse("c", []byte(text)); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// A port alone is told in one step what it should be, and what is told is right.
func TestAPortAloneIsCorrectedInOneStep(t *testing.T) {
	for text, want := range map[string]string{
		"listen: 8080":                        "127.0.0.1:8080",
		"metrics_listen: 9000":                "127.0.0.1:9000",
		"admin_listen: 8081":                  "127.0.0.1:8081",
		"vllm: {endpoints: [8001]}":           "127.0.0.1:8001",
		"launchers: [9466]":                   "127.0.0.1:9466",
		"store: {redis: {addresses: [6379]}}": "127.0.0.1:6379",
	} {
		p := one(t, text)
		if !strings.Contains(p.Suggestion, want) || strings.Contains(p.Suggestion, "quotes") {
			t.Errorf("%q: %s", text, p)
		}
	}
	if _, err := config.Parse("c", []byte("listen: 127.0.0.1:8080")); err != nil {
		t.Error(err)
	}
}

func TestFilesWithSecretsThatOthersCanReadAreWarnedOf(t *testing.T) {
	dir := t.TempDir()
	file := func(mode os.FileMode) string {
		path := filepath.Join(dir, mode.String())
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for mode, want := range map[os.FileMode]int{0o600: 0, 0o400: 0, 0o640: 0, 0o644: 1, 0o660: 1, 0o604: 1, 0o666: 1} {
		for _, key := range []string{"auth: {api_keys_file: %}", "vllm: {api_key_file: %}", "launcher: {token_file: %}", "store: {redis: {password_file: %}}"} {
			text := strings.Replace(key, "%", file(mode), 1)
			cfg, err := config.Parse("c", []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if w := cfg.Warnings(); len(w) != want || want == 1 && !strings.Contains(w[0], "chmod 600") {
				t.Errorf("%s with mode %v: %q", key, mode, w)
			}
		}
	}
}

func TestTheLogsHaveABound(t *testing.T) {
	if cfg := config.Default(); cfg.Log.MaxTotalMB != 2048 {
		t.Errorf("default %d", cfg.Log.MaxTotalMB)
	}
	if p := one(t, "log: {max_total_mb: 50}"); p.Key != "log.max_total_mb" || !strings.Contains(p.Suggestion, "100") {
		t.Errorf("%s", p)
	}
	one(t, "log: {max_total_mb: 0}")
}

// The head of the written file says which values are not the default, and no
// others are.
func TestTheSampleSaysWhatIsNotTheDefault(t *testing.T) {
	for _, simulated := range []bool{false, true} {
		text := string(config.Sample(simulated))
		cfg, err := config.Parse("c", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if simulated != strings.Contains(text, "but vllm.auto_start and vllm.launch_mode") {
			t.Errorf("simulated %v: %.200s", simulated, text)
		}
		want := config.Default()
		if simulated {
			if !cfg.VLLM.AutoStart || cfg.VLLM.LaunchMode != "simulated" {
				t.Errorf("got %+v", cfg.VLLM)
			}
			cfg.VLLM.AutoStart, cfg.VLLM.LaunchMode = want.VLLM.AutoStart, want.VLLM.LaunchMode
		}
		if diff := cmp.Diff(want, cfg, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("simulated %v (-default +sample):\n%s", simulated, diff)
		}
	}
}
