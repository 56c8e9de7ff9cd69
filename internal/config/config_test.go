package config_test

import (
	"bytes"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/config"
)

var update = flag.Bool("update", false, "rewrite golden files")

func problems(t *testing.T, err error) []config.Problem {
	t.Helper()
	var e *config.Error
	if !errors.As(err, &e) || len(e.Problems) == 0 {
		t.Fatalf("got %v, want a *config.Error with problems", err)
	}
	return e.Problems
}

func TestAllMistakesAreReportedAtOnceWithLineAndSuggestion(t *testing.T) {
	data, err := os.ReadFile("testdata/wrong.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, err = config.Parse("wrong.yaml", data)
	got := err.Error() + "\n"
	for _, secret := range []string{"sk-this", "hf_secret"} {
		if strings.Contains(got, secret) {
			t.Errorf("the error shows the value %s", secret)
		}
	}
	if n := len(problems(t, err)); strings.Count(got, "\n") != n {
		t.Errorf("lines: got %d, want one per problem, %d", strings.Count(got, "\n"), n)
	}
	const golden = "testdata/wrong.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
}

func TestEmptyFilesAreTheDefault(t *testing.T) {
	for _, text := range []string{"", "\n\n", "# nothing\n# here", "---\n", "\xef\xbb\xbf", "null", "log:\nvllm: null\nrate_limit: ~\n", "{}", "vllm: {lora: null}\nlisten:\r\n"} {
		got, err := config.Parse("c.yaml", []byte(text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if diff := cmp.Diff(config.Default(), got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}

func TestSampleIsTheDefault(t *testing.T) {
	got, err := config.Parse("sample", config.Sample(false))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(config.Default(), got); diff != "" {
		t.Errorf("sample (-want +got):\n%s", diff)
	}
	got, err = config.Parse("sample", config.Sample(true))
	if err != nil {
		t.Fatal(err)
	}
	want := config.Default()
	want.VLLM.AutoStart, want.VLLM.LaunchMode = true, "simulated"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("simulated sample (-want +got):\n%s", diff)
	}
	if !bytes.Contains(config.Sample(true), []byte("model: Qwen/")) {
		t.Error("the simulated sample does not say how to name a real model")
	}
}

func TestValuesReachTheirFields(t *testing.T) {
	const text = `
listen: 0.0.0.0:8443
cors: {allow_origins: [https://chat.example.org]}
rate_limit: {qps: 2.5, concurrent: 1_000, tokens_per_minute: null}
request: {idle_timeout: 1h30m, isolate_prefix_cache: true}
drain_timeout: 0s
store: {kind: redis, redis: {addresses: ["[::1]:6379", redis.local:6379], timeout: 20ms}}
vllm:
  model: Qwen/Qwen3-0.6B
  auto_start: true
  args: [--max-model-len, 4096, --gpu-memory-utilization, 0.90, --flag, "true"]
  extra_env:
    CUDA_VISIBLE_DEVICES: 0
    HF_HOME: "/data/hf"
  lora: {enabled: true, max_lora_rank: 320, preload: [{name: a, path: p/a}]}
`
	got, err := config.Parse("c.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	qps, concurrent := 2.5, int64(1000)
	want := config.Default()
	want.Listen = "0.0.0.0:8443"
	want.CORS.AllowOrigins = []string{"https://chat.example.org"}
	want.RateLimit.QPS, want.RateLimit.Concurrent = &qps, &concurrent
	want.Request.IdleTimeout, want.Request.IsolatePrefixCache = 90*time.Minute, true
	want.DrainTimeout = 0
	want.Store.Kind = "redis"
	want.Store.Redis.Addresses, want.Store.Redis.Timeout = []string{"[::1]:6379", "redis.local:6379"}, 20*time.Millisecond
	want.VLLM.Model, want.VLLM.AutoStart = "Qwen/Qwen3-0.6B", true
	want.VLLM.Args = []string{"--max-model-len", "4096", "--gpu-memory-utilization", "0.90", "--flag", "true"}
	want.VLLM.ExtraEnv = map[string]string{"CUDA_VISIBLE_DEVICES": "0", "HF_HOME": "/data/hf"}
	want.VLLM.LoRA.Enabled, want.VLLM.LoRA.MaxLoRARank = true, 320
	want.VLLM.LoRA.Preload = []config.Adapter{{Name: "a", Path: "p/a"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
}

func TestOneMistakeIsOneProblem(t *testing.T) {
	for text, want := range map[string]string{
		"listen: :8080":                   "c:1:9: listen: has no host",
		"listen: 127.0.0.1":               "c:1:9: listen: \"127.0.0.1\" is not HOST:PORT",
		"listen: 127.0.0.1:0":             "c:1:9: listen: must have a port",
		"listen: localhost:80":            "c:1:9: listen: must have an IP address",
		"listne: x":                       "c:1:1: listne: is not a known key; did you mean \"listen\"?",
		"api_keys_file: x":                "did you mean \"auth.api_keys_file\"?",
		"zzzzzzzzzz: x":                   "known here: listen, tls",
		"log: info":                       "c:1:6: log: must be a section, is text",
		"log: {level: info, level: warn}": "c:1:20: log.level: is set twice, first in line 1",
		"\nlog:\n  level: loud":           "c:3:10: log.level: \"loud\" is not allowed",
		"vllm: {auto_start: true}":        "c:1:20: vllm.auto_start: vllm.auto_start needs vllm.model",
		"store: {kind: redis}":            "store.redis.addresses: is empty",
		"drain_timeout: 60":               "c:1:16: drain_timeout: needs a unit; write 60s",
		"drain_timeout: 0":                "drain_timeout: needs a unit",
		"drain_timeout: \"60\"":           "drain_timeout: \"60\" is not a duration",
		"drain_timeout: -1s":              "drain_timeout: must be between 0s and",
		"rate_limit: {qps: .nan}":         "rate_limit.qps: must be a number",
		"rate_limit: {qps: 1e999}":        "rate_limit.qps: ",
		"rate_limit: {concurrent: 0}":     "rate_limit.concurrent: must be at least 1",
		"- a\n- b":                        "must be a mapping",
		"listen":                          "must be a mapping",
		"a: &x 1\nb: *x":                  "c:1:4: anchors and aliases",
		"a: {<<: {b: 1}}":                 "merge keys",
		"a: !!str 1":                      "tags",
		"listen: 127.0.0.1:1\n---\nlisten: 127.0.0.1:2\n": "a second document",
		"listen: \"127":                           "is not valid YAML",
		"a: [b":                                   "is not valid YAML",
		"listen: a: b":                            "is not valid YAML",
		strings.Repeat("[", 3000):                 "nested too deeply",
		strings.Repeat("- ", 3000):                "nested too deeply",
		strings.Repeat("{a: ", 3000):              "nested too deeply",
		"\xff\xfel\x00":                           "is UTF-16",
		"l\x00i\x00":                              "c:1:2: has a NUL byte",
		"\n  \xc3\x28":                            "c:2:3: is not UTF-8",
		"a: \x1b[0m":                              "control character",
		strings.Repeat("#", config.MaxSize+1):     "is larger than 1024 KiB",
		"launcher: {listen: 127.0.0.1:1}":         "launcher.listen: needs launcher.token_file",
		"tls: {cert_file: x, key_file: testdata}": "tls.cert_file: names a file that cannot be read: no such file",
		"vllm: {lora: {max_lora_rank: 12}}":       "allowed: 1, 8, 16, 32, 64, 128, 256, 320, 512",
		"vllm: {model: --trust-remote-code}":      "vllm.model: is not the name of a model",
		"request: {max_body_mb: 64, max_inflight_body_mb: 32}":  "request.max_inflight_body_mb: is below max_body_mb",
		"metrics_listen: 127.0.0.1:8080":                        "metrics_listen: is the same as listen",
		"vllm: {extra_env: {A: null}}":                          "vllm.extra_env.A: is empty",
		"vllm: {extra_env: {A: x, A: y}}":                       "vllm.extra_env.A: is set twice",
		"vllm: {extra_env: [A=1]}":                              "vllm.extra_env: must be a table",
		"cors: {allow_origins: [https://a.example/path]}":       "cors.allow_origins[0]: \"https://a.example/path\" is not an origin",
		"sk-secretsecretsecretsecretsecretsecretsecret: sk-foo": "is not a known key",
	} {
		_, err := config.Parse("c", []byte(text))
		if err == nil {
			t.Errorf("%.60q: parsed, want %s", text, want)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q:\n got %v\nwant %s", text, err, want)
		}
		if strings.Contains(err.Error(), "sk-") {
			t.Errorf("%.60q: the error shows a secret: %v", text, err)
		}
	}
}

// parses reports that data is either a configuration or a problem with a line.
func parses(t *testing.T, data []byte) {
	t.Helper()
	cfg, err := config.Parse("c.yaml", data)
	if err == nil {
		if cfg == nil {
			t.Fatalf("%q: neither configuration nor error", data)
		}
		return
	}
	for _, p := range problems(t, err) {
		if p.Line < 1 || p.Column < 1 || p.Message == "" || strings.ContainsAny(p.String(), "\n\x00") {
			t.Fatalf("%q: problem %#v has no line or is not on one line", data, p)
		}
	}
}

func TestTruncatedSampleParsesOrNamesALine(t *testing.T) {
	data := config.Sample(true)
	for i := range data {
		parses(t, data[:i])
	}
}

func TestFlippedBitsNeverPanic(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		data := bytes.Clone(config.Sample(true))
		data[r.IntN(len(data))] ^= 1 << r.IntN(8)
		parses(t, data)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(config.Sample(false))
	f.Add(config.Sample(true))
	wrong, err := os.ReadFile("testdata/wrong.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(wrong)
	for _, s := range []string{"", "{", "a: [b", "\"", "? a\n: b", "--- \n...\n---", "- - - a", "log: |\n  x", "vllm: {args: [>-\n a]}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) <= config.MaxSize {
			parses(t, data)
		}
	})
}

func TestHugeFilesEndInTime(t *testing.T) {
	for name, text := range map[string]string{
		"lists":    strings.Repeat("- a\n", config.MaxSize/thin/4),
		"keys":     strings.Repeat("a: b\n", config.MaxSize/thin/5),
		"comments": strings.Repeat("#\n", config.MaxSize/thin/2),
		"text":     "listen: " + strings.Repeat("a", config.MaxSize/thin-8),
		"quoted":   "listen: \"" + strings.Repeat("\\n", config.MaxSize/thin/2-5) + "\"",
		"block":    "listen: |\n" + strings.Repeat("  a\n", config.MaxSize/4/thin-5),
		"deep":     deep(),
		"flow":     "vllm: {args: [" + strings.Repeat("a, ", config.MaxSize/thin/3-10) + "]}",
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			parses(t, []byte(text))
			if took := time.Since(start); took > time.Minute {
				t.Errorf("took %v", took)
			}
		})
	}
}

func deep() string {
	var b strings.Builder
	for i := 0; b.Len() < config.MaxSize/2/thin; i++ {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

func TestWarnings(t *testing.T) {
	for text, want := range map[string][]string{
		"": nil,
		"listen: 0.0.0.0:8080\nmetrics_listen: 0.0.0.0:9464":                       {"without TLS", "without a key"},
		"store: {kind: redis, redis: {addresses: [\"10.0.0.9:6379\"]}}":            {"redis"},
		"store: {kind: redis, redis: {addresses: [\"127.0.0.1:6379\"]}}":           nil,
		"store: {kind: redis, redis: {addresses: [\"127.0.0.1:1\"], timeout: 1s}}": {"nobody passes"},
		"launchers: [\"10.0.0.2:1\"]":                                              {"token_file"},
		"vllm: {lora: {runtime: {enabled: true}}}":                                 {"lora.enabled"},
		"vllm: {auto_start: true, launch_mode: simulated, host: 0.0.0.0}":          {"vllm.host 0.0.0.0"},
		"vllm: {auto_start: true, launch_mode: simulated, args: [--host, \"::\"]}": {"--host"},
		"admin_listen: 0.0.0.0:8081":                                               {"admin key"},
		"admin_listen: 127.0.0.1:8081":                                             nil,
		"central: {postgres_file: /dev/null}":                                      {"set store.kind: redis"},
	} {
		cfg, err := config.Parse("c", []byte(text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		got := cfg.Warnings()
		if len(got) != len(want) {
			t.Errorf("%q: got %q, want %d warnings", text, got, len(want))
			continue
		}
		for i := range want {
			if !strings.Contains(got[i], want[i]) || strings.Contains(got[i], "sk-abc") {
				t.Errorf("%q: got %q, want it to say %q", text, got[i], want[i])
			}
		}
	}
}

func TestPathPrefersTheFlag(t *testing.T) {
	env := func(v string) func(string) string {
		return func(name string) string {
			if name == "CONFIG_FILE" {
				return v
			}
			return ""
		}
	}
	for _, c := range []struct{ flag, env, want string }{
		{"a.yaml", "b.yaml", "a.yaml"},
		{"", "b.yaml", "b.yaml"},
		{"", "", filepath.Join("config", "config.yaml")},
	} {
		if got := config.Path(c.flag, env(c.env)); got != c.want {
			t.Errorf("Path(%q) with CONFIG_FILE=%q: got %q, want %q", c.flag, c.env, got, c.want)
		}
	}
}
