// Package moving_test moves in from other gateways as docs/moving says, and sends what
// their clients send, unchanged.
package moving_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/vllmsim"
)

func TestMain(m *testing.M) {
	m.Run()
	stack.Clean()
}

// The keys of internal/litellm/testdata/keys.json, which LiteLLM's own code made.
func secret(name string) string { return "sk-canary-" + name + "-0123456789" }

// TestClientsOfLiteLLMKeepTheirKeys: configuration and keys are imported by the command,
// the stack starts with what it wrote, and requests with the old keys and names pass.
func TestClientsOfLiteLLMKeepTheirKeys(t *testing.T) { //nolint:gocyclo // one story, told step by step
	engine := stack.NewEngine(t, vllmsim.Options{Models: []string{"Qwen/Qwen3-8B"}})
	dir := t.TempDir()
	lite := filepath.Join(dir, "litellm.yaml")
	write(t, lite, fmt.Sprintf(`model_list:
- model_name: chat
  litellm_params: {model: hosted_vllm/Qwen/Qwen3-8B, api_base: "http://%s/v1", api_key: sk-canary-engine}
router_settings: {model_group_alias: {gpt-4: chat}}
general_settings: {master_key: sk-canary-master}
`, engine.Addr))
	keys := "../../internal/litellm/testdata/keys.json"
	run := func(want int, args ...string) string {
		t.Helper()
		all := append([]string{"--config", filepath.Join(dir, "config.yaml"), "import", "litellm", lite, "--keys", absolute(t, keys)}, args...)
		cmd := exec.Command(stack.Binary(t, "tollgate"), all...)
		cmd.Dir = dir
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Fatalf("%v: exit status %d, want %d\n%s", args, got, want, out)
		}
		if strings.Contains(string(out), "sk-canary") {
			t.Errorf("%v shows a secret:\n%s", args, out)
		}
		return string(out)
	}
	if out := run(0); !strings.Contains(out, "Nothing was changed") || !strings.Contains(out, "alice-laptop") {
		t.Errorf("it says\n%s", out)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Fatalf("without --write there are files: %v, %v", files, err)
	}
	if out := run(0, "--write"); !strings.Contains(out, "6 keys added") {
		t.Errorf("it says\n%s", out)
	}
	if out := run(2, "--write"); !strings.Contains(out, "exists and is left as it is") {
		t.Errorf("a second time it says\n%s", out)
	}
	if out := run(0, "--write", "--keys-only"); !strings.Contains(out, "0 keys added") || !strings.Contains(out, "6 were here already") {
		t.Errorf("keys a second time: it says\n%s", out)
	}

	edge := stack.FreePort(t)
	text, err := os.ReadFile(filepath.Join(dir, "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "config.yaml"), fmt.Sprintf("%slisten: 127.0.0.1:%d\nmetrics_listen: 127.0.0.1:%d\nenvoy: {concurrency: 2}\n", text, edge, stack.FreePort(t)))
	l := stack.NewLauncher(t, dir, fmt.Sprintf("http://127.0.0.1:%d", edge))
	l.Start()
	l.Ready(60 * time.Second)

	for _, c := range []struct {
		name, key, method, path, model string
		want                           int
	}{
		{"a name of LiteLLM", secret("alice"), http.MethodPost, "/v1/chat/completions", "chat", 200},
		{"another name of the group", secret("plain"), http.MethodPost, "/chat/completions", "gpt-4", 200},
		{"the served name", secret("plain"), http.MethodPost, "/v1/chat/completions", "Qwen/Qwen3-8B", 200},
		{"a name that the key may not use", secret("alice"), http.MethodPost, "/v1/chat/completions", "gpt-4", 404},
		{"a blocked key", secret("block"), http.MethodPost, "/v1/chat/completions", "chat", 401},
		{"a key whose budget is spent", secret("spent"), http.MethodPost, "/v1/chat/completions", "chat", 401},
		{"a key of a login", secret("login"), http.MethodPost, "/v1/chat/completions", "chat", 401},
		{"the master key", "sk-canary-master", http.MethodPost, "/v1/chat/completions", "chat", 401},
		{"the list of models", secret("alice"), http.MethodGet, "/v1/models", "", 200},
		{"a user called admin", secret("admin"), http.MethodGet, "/admin/keys", "", 403},
	} {
		status, body := ask(t, l.URL, c.key, c.method, c.path, c.model)
		if status != c.want {
			t.Errorf("%s: %d, want %d: %s", c.name, status, c.want, body)
		}
		if c.want == 200 && c.model != "" && !strings.Contains(body, "[DONE]") {
			t.Errorf("%s: no end: %s", c.name, body)
		}
	}
	usage := exec.Command(stack.Binary(t, "tollgate"), "--config", "config.yaml", "usage", "--by", "key", "--format", "json")
	usage.Dir = dir
	out, err := usage.Output()
	var groups []struct {
		Key      string `json:"key"`
		Requests int    `json:"requests"`
	}
	if err != nil || json.Unmarshal(out, &groups) != nil || len(groups) != 2 {
		t.Errorf("the ledger has %s, %v; want two keys", out, err)
	}
}

// ask sends what a client of LiteLLM sends.
func ask(t *testing.T, base, key, method, path, model string) (int, string) {
	t.Helper()
	body := ""
	if model != "" {
		body = fmt.Sprintf(`{"model":%q,"stream":true,"max_tokens":5,"messages":[{"role":"user","content":"hi"}]}`, model)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp.StatusCode, string(answer)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}
