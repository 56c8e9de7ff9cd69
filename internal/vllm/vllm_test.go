package vllm_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"tollgate/internal/vllm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts an engine that answers with h and returns a client of it.
func serve(t *testing.T, o vllm.Options, h http.HandlerFunc) *vllm.Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	o.Address = strings.TrimPrefix(srv.URL, "http://")
	c := vllm.New(o)
	t.Cleanup(c.Close)
	return c
}

// page is an engine that answers everything with one text.
func page(t *testing.T, text string) *vllm.Client {
	t.Helper()
	return serve(t, vllm.Options{}, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) })
}

func TestReadyIsHealthyAndListsTheModel(t *testing.T) {
	healthy, models := http.StatusOK, `{"data":[{"id":"base"},{"id":"lora","parent":"base"}]}`
	c := serve(t, vllm.Options{}, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/health":
			w.WriteHeader(healthy)
		case "/v1/models":
			_, _ = io.WriteString(w, models)
		}
	})
	if err := c.Ready(t.Context()); err != nil {
		t.Errorf("any model: %v", err)
	}
	if err := c.Ready(t.Context(), "other", "lora"); err != nil {
		t.Errorf("one of two names: %v", err)
	}
	if err := c.Ready(t.Context(), "other"); err == nil || !strings.Contains(err.Error(), `"other"`) {
		t.Errorf("another program's port: %v", err)
	}
	models = `{"data":[]}`
	if err := c.Ready(t.Context()); !errors.Is(err, vllm.ErrNoModel) {
		t.Errorf("no model: %v", err)
	}
	models = `<html>`
	if err := c.Ready(t.Context()); err == nil {
		t.Error("a page is a list")
	}
	healthy = http.StatusServiceUnavailable
	var status *vllm.StatusError
	if err := c.Ready(t.Context()); !errors.As(err, &status) || *status != (vllm.StatusError{Path: "/health", Status: 503}) {
		t.Errorf("unhealthy: %v", err)
	}
}

func TestTheKeyIsReadEachTimeAndGoesWhereItIsNeeded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	var sent []string
	c := serve(t, vllm.Options{KeyFile: file}, func(w http.ResponseWriter, r *http.Request) {
		sent = append(sent, r.URL.Path+" "+r.Header.Get("Authorization"))
		if r.URL.Path == "/v1/models" {
			_, _ = io.WriteString(w, `{"data":[{"id":"m"}]}`)
		}
	})
	for _, key := range []string{"one", "two"} {
		if err := os.WriteFile(file, []byte(key+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Models(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	_ = c.Health(t.Context())
	_, _ = c.Metrics(t.Context())
	_, _ = c.LoadAdapter(t.Context(), vllm.Adapter{Name: "a"})
	_, _ = c.UnloadAdapter(t.Context(), "a")
	want := []string{
		"/v1/models Bearer one", "/v1/models Bearer two", "/health ", "/metrics ",
		"/v1/load_lora_adapter Bearer two", "/v1/unload_lora_adapter Bearer two",
	}
	if diff := cmp.Diff(want, sent); diff != "" {
		t.Errorf("sent (-want +got):\n%s", diff)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Models(t.Context()); !errors.Is(err, os.ErrNotExist) || len(sent) != len(want) {
		t.Errorf("without the file: %v; asked %d times", err, len(sent))
	}
}

func TestMetricsAreSummedOverTheEngine(t *testing.T) {
	for name, c := range map[string]struct {
		page string
		want vllm.Metrics
		err  error
	}{
		"typed, two ranks": {
			page: `# HELP vllm:prompt_tokens_total Number of prefill tokens.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="a b{ 9"} 3.0
vllm:prompt_tokens_total{engine="1",model_name="m"} 4.0
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0"} 1e+06
# TYPE vllm:generation_tokens_created gauge
vllm:generation_tokens_created{engine="0"} 99
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0"} 2.0
vllm:num_requests_running{engine="1"} 5.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0"} 6.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 6.0
# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{engine="0"} 40.0
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{engine="0"} 32.0
# TYPE vllm:e2e_request_latency_seconds histogram
this line would be an error for the parser
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1.79550220529e+09
`,
			want: vllm.Metrics{Prompt: 7, Generation: 1_000_000, Running: 7, Waiting: 6, PrefixQueries: 40, PrefixHits: 32, Started: 1795502205.29},
		},
		"without types":  {page: "vllm:prompt_tokens_total 3\nvllm:generation_tokens_total 4\n", want: vllm.Metrics{Prompt: 3, Generation: 4}},
		"no counter":     {page: "# nothing\n", err: vllm.ErrNoCounters},
		"one of the two": {page: "vllm:prompt_tokens_total 3\n", err: vllm.ErrNoCounters},
		"another page":   {page: "<html>", err: vllm.ErrNoCounters},
	} {
		got, err := page(t, c.page).Metrics(t.Context())
		if !errors.Is(err, c.err) || got != c.want {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	if _, err := page(t, "vllm:prompt_tokens_total{ 3\nvllm:generation_tokens_total 4\n").Metrics(t.Context()); err == nil {
		t.Error("a broken line is none")
	}
}

func TestAnAnswerWithoutEndIsAnError(t *testing.T) {
	c := serve(t, vllm.Options{Timeout: time.Minute}, func(w http.ResponseWriter, r *http.Request) {
		line := []byte(strings.Repeat(" ", 64<<10-1) + "\n")
		for r.Context().Err() == nil {
			if _, err := w.Write(line); err != nil {
				return
			}
		}
	})
	if err := c.Health(t.Context()); !errors.Is(err, vllm.ErrTooLong) {
		t.Errorf("health: %v", err)
	}
	if _, err := c.Models(t.Context()); !errors.Is(err, vllm.ErrTooLong) {
		t.Errorf("models: %v", err)
	}
	if _, err := c.Metrics(t.Context()); !errors.Is(err, vllm.ErrTooLong) {
		t.Errorf("metrics: %v", err)
	}
	if _, err := c.UnloadAdapter(t.Context(), "a"); !errors.Is(err, vllm.ErrTooLong) {
		t.Errorf("adapter: %v", err)
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	asked := 0
	c := serve(t, vllm.Options{}, func(w http.ResponseWriter, r *http.Request) {
		asked++
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	})
	var status *vllm.StatusError
	if err := c.Health(t.Context()); !errors.As(err, &status) || status.Status != http.StatusTemporaryRedirect {
		t.Errorf("health: %v", err)
	}
	if a, err := c.LoadAdapter(t.Context(), vllm.Adapter{Name: "a"}); err != nil || a.Status != http.StatusTemporaryRedirect {
		t.Errorf("adapter: %+v, %v", a, err)
	}
	if asked != 2 {
		t.Errorf("asked %d times", asked)
	}
}

func TestAdapters(t *testing.T) {
	var body []byte
	answer, status := "Success: LoRA adapter 'a' added successfully.\n", http.StatusOK
	c := serve(t, vllm.Options{}, func(w http.ResponseWriter, r *http.Request) {
		body, _ = io.ReadAll(r.Body)
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("got %s %s", r.Method, r.Header)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	})
	got, err := c.LoadAdapter(t.Context(), vllm.Adapter{Name: "a", Path: "/adapters/a", LoadInplace: true})
	if err != nil || got != (vllm.Answer{Status: 200, Message: "Success: LoRA adapter 'a' added successfully."}) {
		t.Errorf("load: %+v, %v", got, err)
	}
	if want := `{"lora_name":"a","lora_path":"/adapters/a","load_inplace":true}`; string(body) != want {
		t.Errorf("load sends %s, want %s", body, want)
	}
	answer, status = `{"error":{"message":"cannot be found","type":"NotFoundError","param":null,"code":404}}`, http.StatusNotFound
	got, err = c.UnloadAdapter(t.Context(), "a")
	if err != nil || got != (vllm.Answer{Status: 404, Message: "cannot be found"}) {
		t.Errorf("unload: %+v, %v", got, err)
	}
	if want := `{"lora_name":"a"}`; string(body) != want {
		t.Errorf("unload sends %s, want %s", body, want)
	}
}

func TestAnErrorTellsRefusalFromSilence(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	silent := vllm.New(vllm.Options{Address: l.Addr().String(), Timeout: 50 * time.Millisecond})
	if err := silent.Health(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("silence: %v", err)
	}
	_ = l.Close()
	if err := silent.Health(t.Context()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("refusal: %v", err)
	}
}
