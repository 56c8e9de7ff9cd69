//go:build vllm

package vllm_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"tollgate/e2e/stack"
)

// section is the vllm section that `make vllm` wrote, without what change
// replaces, and with more at its end.
func section(t *testing.T, change *strings.Replacer, more string) string {
	t.Helper()
	path := os.Getenv("TOLLGATE_VLLM_CONFIG")
	if path == "" {
		t.Fatal("TOLLGATE_VLLM_CONFIG names no configuration: run these tests by `make e2e-vllm`")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, lines, ok := strings.Cut(string(b), "\nvllm:\n")
	if !ok {
		t.Fatalf("%s has no vllm section", path)
	}
	return change.Replace(lines) + more
}

// unchanged keeps the section as it is.
var unchanged = strings.NewReplacer()

// core is the process of the engine's core.
func (h *host) core() int {
	h.t.Helper()
	for pid, line := range h.launcher.Processes() {
		if strings.HasPrefix(line, "VLLM::EngineCore") {
			return pid
		}
	}
	h.t.Fatalf("no engine core among %v", h.launcher.Processes())
	return 0
}

// direct asks vLLM itself.
func (h *host) direct(path, body string) (status int, answer string) {
	h.t.Helper()
	req, err := http.NewRequest(http.MethodPost, h.engine+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	// The key that the launcher has made for it.
	key, err := os.ReadFile(h.Path("state/run/engine.key"))
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(key)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// counters are the engine's own: prompt tokens and generated tokens.
func (h *host) counters() (prompt, generated int64) {
	h.t.Helper()
	resp, err := http.Get(h.engine + "/metrics")
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	sum := func(name string) (n int64) {
		for _, m := range families[name].GetMetric() {
			n += int64(m.GetCounter().GetValue())
		}
		return n
	}
	return sum("vllm:prompt_tokens_total"), sum("vllm:generation_tokens_total")
}

// quiet waits until no request runs in the engine and its counters rest.
func (h *host) quiet() {
	h.t.Helper()
	var last [2]int64
	still := 0
	stack.Eventually(h.t, time.Minute, "the engine to be idle", func() bool {
		prompt, generated := h.counters()
		now := [2]int64{prompt, generated}
		if still++; now != last {
			last, still = now, 0
		}
		return still > 20
	})
}

// models are the names that the gateway lists.
func (h *host) models() (names []string) {
	h.t.Helper()
	var list struct {
		Data []struct{ ID string }
	}
	a := h.Do(h.HTTP1, http.MethodGet, "/v1/models", "", "Authorization", "Bearer "+stack.Key)
	if err := json.Unmarshal(a.Bytes, &list); err != nil || a.StatusCode != http.StatusOK {
		h.t.Fatalf("/v1/models: %d, %v, %.300s", a.StatusCode, err, a.Bytes)
	}
	for _, m := range list.Data {
		names = append(names, m.ID)
	}
	return names
}

// failures collects what goroutines found wrong.
type failures struct {
	mu   sync.Mutex
	list []string
}

func (f *failures) add(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, fmt.Sprintf(format, args...))
}
