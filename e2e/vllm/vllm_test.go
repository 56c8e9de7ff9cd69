//go:build vllm

package vllm_test

import (
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
	"tollgate/internal/supervisor"
)

// withoutForcedUsage leaves it to the gateway alone to ask for usage, so that
// vLLM's own answers without usage can be compared.
var withoutForcedUsage = strings.NewReplacer(`"--enforce-eager"`, `"--enforce-eager", "--no-enable-force-include-usage"`)

// TestARealVLLM is one start of the engine, which takes half a minute, and all
// that it can be asked in one life and in the next.
func TestARealVLLM(t *testing.T) {
	h := start(t, section(t, withoutForcedUsage, "  restart: {backoff_min: 100ms}\n"))
	if diff := cmp.Diff([]string{"tiny"}, h.models()); diff != "" {
		t.Errorf("models (-want +got):\n%s", diff)
	}
	t.Run("bytes and ledger", func(t *testing.T) { bytesAndLedger(t, h.in(t)) })
	t.Run("refusals", func(t *testing.T) { refusals(t, h.in(t)) })
	t.Run("200 mixed requests", func(t *testing.T) { mixed(t, h.in(t)) })
	t.Run("requests of a minute", func(t *testing.T) { oldRequests(t, h.in(t)) })
	t.Run("an adapter's life", func(t *testing.T) { adapterLife(t, h.in(t)) })
}

const withA = `{"model":"a","max_tokens":8,"temperature":0,` + hello + `}`

// text is the first choice's.
func text(a *stack.Answer) string {
	choices, _ := a.JSON()["choices"].([]any)
	if len(choices) == 0 {
		return ""
	}
	choice, _ := choices[0].(map[string]any)
	message, _ := choice["message"].(map[string]any)
	s, _ := message["content"].(string)
	return s
}

// listed waits for the gateway to list exactly these models.
func (h *host) listed(want ...string) {
	h.t.Helper()
	stack.Eventually(h.t, 20*time.Second, "the models to be "+strings.Join(want, ", "), func() bool { return slices.Equal(h.models(), want) })
}

// adapterLife: loaded, used, still there after a crash, unloaded, gone.
func adapterLife(t *testing.T, h *host) {
	t.Helper()
	h.noAdapter("before it is loaded")
	h.refusedAdapters()
	h.changeAdapter("load", `{"lora_name":"a","lora_path":"a"}`)
	h.listed("tiny", "a")
	adapted, plain := h.Post(chat, withA), h.Post(chat, withT)
	if adapted.StatusCode != http.StatusOK || text(adapted) == text(plain) {
		t.Fatalf("the adapter changes nothing: %d %q, %q", adapted.StatusCode, text(adapted), text(plain))
	}
	if rec := h.Settled(adapted.RequestID()); rec.Model != "a" || rec.Counts.Completion != 8 || rec.Quality != ledger.Exact {
		t.Errorf("the record: model %q, %d tokens, %s", rec.Model, rec.Counts.Completion, rec.Quality)
	}
	h.crash("killed between requests", syscall.SIGKILL, h.vllm().PID)
	h.listed("tiny", "a")
	// It is put back as soon as the engine is ready, and known within a second.
	stack.Eventually(t, 30*time.Second, "the adapter to be back", func() bool { return h.Post(chat, withA).StatusCode == http.StatusOK })
	if again := h.Post(chat, withA); again.StatusCode != http.StatusOK || text(again) != text(adapted) {
		t.Errorf("after the restart: %d %q, want %q", again.StatusCode, text(again), text(adapted))
	}
	h.changeAdapter("unload", `{"lora_name":"a"}`)
	h.listed("tiny")
	h.noAdapter("after it is unloaded")
}

// noAdapter asks for the adapter in vain.
func (h *host) noAdapter(when string) {
	h.t.Helper()
	if a := h.Post(chat, withA); a.StatusCode != http.StatusNotFound {
		h.t.Errorf("%s: %d %.300s", when, a.StatusCode, a.Bytes)
	}
}

// changeAdapter loads or unloads by the admin API.
func (h *host) changeAdapter(what, body string) {
	h.t.Helper()
	if a := h.Admin(http.MethodPost, "/admin/"+what+"-lora-adapter", body); a.StatusCode != http.StatusOK || !ok(a) {
		h.t.Fatalf("%s: %d %.300s", what, a.StatusCode, a.Bytes)
	}
}

// refusedAdapters are adapters that must not be loaded.
func (h *host) refusedAdapters() {
	h.t.Helper()
	for _, body := range []string{
		`{"lora_name":"a","lora_path":"../../../../etc"}`,
		`{"lora_name":"../a","lora_path":"a"}`,
		`{"lora_name":"tiny","lora_path":"a"}`,  // the base model's name
		`{"lora_name":"big","lora_path":"big"}`, // rank 32: vLLM refuses
		`{"lora_name":"x","lora_path":"nothing"}`,
	} {
		if a := h.Admin(http.MethodPost, "/admin/load-lora-adapter", body); a.StatusCode < 400 || ok(a) {
			h.t.Errorf("load %s: %d %.300s, want an error", body, a.StatusCode, a.Bytes)
		}
	}
	h.listed("tiny")
}

// ok says whether every host did what the admin API was asked.
func ok(a *stack.Answer) bool {
	hosts, _ := a.JSON()["hosts"].([]any)
	for _, host := range hosts {
		if h, _ := host.(map[string]any); h["ok"] != true {
			return false
		}
	}
	return len(hosts) > 0
}

// crash kills a process of the engine and waits until the engine is back.
func (h *host) crash(how string, sig syscall.Signal, pid int) supervisor.Status {
	h.t.Helper()
	before := h.vllm()
	old := h.engineGroup(before.PID)
	if err := syscall.Kill(pid, sig); err != nil {
		h.t.Fatal(err)
	}
	return h.back(how, before, old)
}
