package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tollgate/internal/config"
)

func TestWhatWouldFailAtTheStartIsFoundByTheCheck(t *testing.T) {
	for text, want := range map[string]string{
		`vllm: {args: ["--max-model-len 8192"]}`:               "c.yaml:1:15: vllm.args[0]: is a flag and its value in one text; write two: [--max-model-len, VALUE], or --max-model-len=VALUE",
		`vllm: {args: ["-tp 2"]}`:                              "c.yaml:1:15: vllm.args[0]: is a flag and its value in one text; write two: [-tp, VALUE], or -tp=VALUE",
		`vllm: {args: [--api-key, very-secret]}`:               "c.yaml:1:15: vllm.args[0]: --api-key would show the key in the process list and in the log; put it into a file and name that in vllm.api_key_file",
		`vllm: {args: [--dtype, auto, --api_key=very-secret]}`: "c.yaml:1:30: vllm.args[2]: --api-key would show the key in the process list and in the log; put it into a file and name that in vllm.api_key_file",
		`vllm: {args: ["--api-key very-secret"]}`:              "c.yaml:1:15: vllm.args[0]: --api-key would show the key in the process list and in the log; put it into a file and name that in vllm.api_key_file",
		"listen: 8080":                   "c.yaml:1:9: listen: 8080 is not HOST:PORT; write for example 127.0.0.1:8080",
		"metrics_listen: 9000":           "c.yaml:1:17: metrics_listen: 9000 is not HOST:PORT; write for example 127.0.0.1:9000",
		"metrics_listen: 127.0.0.1:8080": "c.yaml:1:17: metrics_listen: is the same as listen; give it a port of its own",
		"listen: 0.0.0.0:9464":           "c.yaml:1:9: listen: has the port of metrics_listen; give it a port of its own",
		"vllm: {auto_start: true, launch_mode: simulated, port: 8080}":                "c.yaml:1:56: vllm.port: is the same as listen; give it a port of its own",
		"vllm: {auto_start: true, launch_mode: simulated, port: 9464, host: 0.0.0.0}": "c.yaml:1:56: vllm.port: has the port of metrics_listen; give it a port of its own",
	} {
		_, err := config.Parse("c.yaml", []byte(text))
		if err == nil || err.Error() != want {
			t.Errorf("%s:\ngot  %v\nwant %s", text, err, want)
		}
	}
	for _, text := range []string{
		"vllm: {port: 8080}", // not ours
		"{listen: \"127.0.0.1:9464\", metrics_listen: \"127.0.0.2:9464\"}",
		`vllm: {args: ["--chat-template", "{% for m in messages %}", "--override-generation-config={\"temperature\": 0}"]}`,
		`vllm: {args: ["--served-model-name", "-a name"]}`,
	} {
		if _, err := config.Parse("c.yaml", []byte(text)); err != nil && !strings.Contains(text, "-a name") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestOnlyALocalEngineOfOursGetsAKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("sk-own"), 0o600); err != nil {
		t.Fatal(err)
	}
	for more, want := range map[string]bool{
		"auto_start: true":                                                 true,
		"auto_start: true, host: localhost":                                true,
		"auto_start: true, host: \"::1\"":                                  true,
		`auto_start: true, endpoints: ["127.0.0.1:8000"]`:                  true,
		"auto_start: false":                                                false,
		"auto_start: true, host: 0.0.0.0":                                  false,
		"auto_start: true, args: [--host, 0.0.0.0]":                        false,
		"auto_start: true, args: [--host=127.0.0.1]":                       false,
		"auto_start: true, api_key_file: " + file:                          false,
		`auto_start: true, endpoints: ["127.0.0.1:8000", "10.0.0.2:8000"]`: false,
	} {
		cfg, err := config.Parse("c.yaml", []byte("vllm: {launch_mode: simulated, "+more+"}"))
		if err != nil {
			t.Errorf("%s: %v", more, err)
			continue
		}
		if got := cfg.GetsKey(); got != want {
			t.Errorf("%s: got %v, want %v", more, got, want)
		}
	}
}
