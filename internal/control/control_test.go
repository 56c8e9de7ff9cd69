package control_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"tollgate/internal/control"
	"tollgate/internal/supervisor"
	"tollgate/internal/vllm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// call calls the handler and returns status and body.
func call(t *testing.T, h http.Handler, method, target, body string, header ...string) (int, string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("content-type: got %q", got)
	}
	return w.Code, strings.TrimSpace(w.Body.String())
}

func options(t *testing.T) control.Options {
	t.Helper()
	return control.Options{
		LogDir: t.TempDir(), Log: hclog.NewNullLogger(),
		Children: func() []supervisor.Status { return nil },
		Restart:  func(string) error { return control.ErrNoChild },
	}
}

func TestStateShowsTheChildren(t *testing.T) {
	o := options(t)
	at := time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)
	o.Children = func() []supervisor.Status {
		return []supervisor.Status{{
			Name: "vllm", State: supervisor.Ready, PID: 7, Since: at, Restarts: 1,
			LastExit: &supervisor.Exit{Code: -1, Signal: "killed", At: at},
		}}
	}
	status, body := call(t, control.Handler(o), "GET", "/state", "")
	want := `{"children":[{"name":"vllm","state":"ready","pid":7,"since":"2026-11-24T09:00:00Z","restarts":1,` +
		`"last_exit":{"code":-1,"signal":"killed","at":"2026-11-24T09:00:00Z"}}]}`
	if diff := cmp.Diff(want, body); status != 200 || diff != "" {
		t.Errorf("%d (-want +got):\n%s", status, diff)
	}
	if _, body := call(t, control.Handler(options(t)), "GET", "/state", ""); body != `{"children":[]}` {
		t.Errorf("no children: got %s", body)
	}
}

func TestLogsAreCountedAndCleaned(t *testing.T) {
	o := options(t)
	for _, name := range []string{"vllm.log", "vllm-20200101T000000.000.log.gz", "mine.txt"} {
		if err := os.WriteFile(filepath.Join(o.LogDir, name), []byte("xy"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h := control.Handler(o)
	var stats struct {
		Files int `json:"files"`
	}
	if status, body := call(t, h, "GET", "/log-stats", ""); status != 200 || json.Unmarshal([]byte(body), &stats) != nil || stats.Files != 2 {
		t.Errorf("log-stats: got %d %s", status, body)
	}
	for _, days := range []string{"", "x", "-1", "1.5", "999999", "99999999999999999999"} {
		if status, body := call(t, h, "POST", "/clean-logs?days="+days, ""); status != 400 {
			t.Errorf("days=%s: got %d %s", days, status, body)
		}
	}
	status, body := call(t, h, "POST", "/clean-logs?days=7", "")
	if status != 200 || !strings.HasPrefix(body, `{"removed":["vllm-20200101T000000.000.log.gz"],"freed_bytes":2,"stats":{`) {
		t.Errorf("clean-logs: got %d %s", status, body)
	}
	if _, err := os.Stat(filepath.Join(o.LogDir, "mine.txt")); err != nil {
		t.Error(err)
	}
}

func TestOnlyTheTokenOpensTCP(t *testing.T) {
	o := options(t)
	o.Token = "t0ken"
	h := control.Handler(o)
	for header, want := range map[string]int{"": 401, "Bearer ": 401, "Bearer wrong": 401, "t0ken": 401, "Bearer t0ken": 200} {
		if got, body := call(t, h, "GET", "/state", "", "Authorization", header); got != want {
			t.Errorf("%q: got %d %s, want %d", header, got, body, want)
		}
	}
}

func TestUnknownPathsMethodsAndChildren(t *testing.T) {
	h := control.Handler(options(t))
	for _, c := range [][2]string{{"GET", "/"}, {"POST", "/state"}, {"GET", "/clean-logs?days=7"}, {"POST", "/restart?child=x"}} {
		if got, body := call(t, h, c[0], c[1], ""); got != 404 || !strings.Contains(body, `"message"`) {
			t.Errorf("%s %s: got %d %s", c[0], c[1], got, body)
		}
	}
	if got, body := call(t, h, "POST", "/load-lora-adapter", `{"lora_name":"a"}`); got != 409 {
		t.Errorf("no adapters here: got %d %s", got, body)
	}
}

// engine plays the adapter routes of a vLLM.
type engine struct {
	calls  []string
	loaded map[string]string
}

func (e *engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Name    string `json:"lora_name"`
		Path    string `json:"lora_path"`
		Inplace bool   `json:"load_inplace"`
	}
	body, _ := io.ReadAll(r.Body)
	if err := json.Unmarshal(body, &req); err != nil || r.Header.Get("Content-Type") != "application/json" {
		http.Error(w, "bad", http.StatusBadRequest)
		return
	}
	e.calls = append(e.calls, fmt.Sprintf("%s %s %s %s", r.URL.Path, req.Name, r.Header.Get("Authorization"), string(body)))
	_, there := e.loaded[req.Name]
	switch {
	case r.URL.Path == "/v1/load_lora_adapter" && there && !req.Inplace:
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":{"message":"already loaded","type":"InvalidUserInput","param":null,"code":400}}`)
	case r.URL.Path == "/v1/load_lora_adapter":
		e.loaded[req.Name] = req.Path
		fmt.Fprintf(w, "Success: LoRA adapter '%s' added successfully.", req.Name)
	case there:
		delete(e.loaded, req.Name)
		fmt.Fprintf(w, "Success: LoRA adapter '%s' removed successfully.", req.Name)
	default:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"error":{"message":"cannot be found","type":"NotFoundError","param":null,"code":404}}`)
	}
}

// adapters is an engine and the API in front of it.
func adapters(t *testing.T) (*engine, *control.Adapters, http.Handler, string) {
	t.Helper()
	e := &engine{loaded: map[string]string{}}
	srv := httptest.NewServer(e)
	t.Cleanup(srv.Close)
	dir := t.TempDir()
	o := options(t)
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("k\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	client := vllm.New(vllm.Options{Address: strings.TrimPrefix(srv.URL, "http://"), KeyFile: key})
	t.Cleanup(client.Close)
	o.Adapters = control.NewAdapters(control.AdaptersOptions{
		Dir: dir, StateFile: filepath.Join(t.TempDir(), "state", "lora.json"), Engine: client,
		Reserved: []string{"base"}, Log: hclog.NewNullLogger(),
	})
	return e, o.Adapters, control.Handler(o), dir
}

func folder(t *testing.T, dir string, files ...string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAdaptersAreLoadedAndLoadedAgainAfterARestart(t *testing.T) {
	e, a, h, dir := adapters(t)
	for _, name := range []string{"a", "b", "c"} {
		folder(t, filepath.Join(dir, name), "adapter_config.json", "adapter_model.safetensors")
	}
	e.loaded["preloaded"] = "by argument"
	for _, body := range []string{`{"lora_name":"x","lora_path":"a"}`, `{"lora_name":"b"}`, `{"lora_name":"c","lora_path":"` + dir + `/c"}`} {
		if got, answer := call(t, h, "POST", "/load-lora-adapter", body); got != 200 || !strings.Contains(answer, "added successfully") {
			t.Fatalf("%s: got %d %s", body, got, answer)
		}
	}
	if got, answer := call(t, h, "POST", "/load-lora-adapter", `{"lora_name":"b"}`); got != 400 || !strings.Contains(answer, "already loaded") {
		t.Errorf("twice: got %d %s", got, answer)
	}
	for body, want := range map[string]int{`{"lora_name":"c"}`: 200, `{"lora_name":"preloaded"}`: 200, `{"lora_name":"none"}`: 404} {
		if got, answer := call(t, h, "POST", "/unload-lora-adapter", body); got != want {
			t.Errorf("unload %s: got %d %s, want %d", body, got, answer, want)
		}
	}
	if !strings.Contains(e.calls[0], "Bearer k") {
		t.Errorf("the engine's key is missing: %s", e.calls[0])
	}
	base, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"x": base + "/a", "b": base + "/b"}
	if diff := cmp.Diff(want, e.loaded); diff != "" {
		t.Errorf("loaded (-want +got):\n%s", diff)
	}
	e.loaded = map[string]string{"preloaded": "by argument"} // a new engine
	a.Reapply(t.Context())
	if diff := cmp.Diff(want, e.loaded); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}
}

func TestAdaptersComeFromTheFolderOnly(t *testing.T) {
	e, _, h, dir := adapters(t)
	outside := t.TempDir()
	folder(t, outside, "adapter_config.json")
	folder(t, filepath.Join(dir, "empty"))
	folder(t, filepath.Join(dir, "pickled"), "adapter_config.json", "adapter_model.bin")
	folder(t, filepath.Join(dir, "linked"), "adapter_config.json")
	for from, to := range map[string]string{"out": outside, "linked/adapter_model.safetensors": "/etc/hostname"} {
		if err := os.Symlink(to, filepath.Join(dir, from)); err != nil {
			t.Fatal(err)
		}
	}
	for _, body := range []string{
		`{"lora_name":"a","lora_path":"../` + filepath.Base(outside) + `"}`, `{"lora_name":"a","lora_path":"` + outside + `"}`,
		`{"lora_name":"a","lora_path":"out"}`, `{"lora_name":"a","lora_path":"."}`, `{"lora_name":"a","lora_path":"none"}`,
		`{"lora_name":"empty"}`, `{"lora_name":"pickled"}`, `{"lora_name":"linked"}`, `{"lora_name":"../a"}`, `{"lora_name":"a..b"}`,
		`{"lora_name":""}`, `{"lora_name":"a/b"}`, `{"lora_name":"-a"}`, `{"lora_name":"base","lora_path":"empty"}`, `{}`, `[]`, `x`, ``,
		`{"lora_name":"empty","unknown":1}`, `{"lora_name":"a","lora_name":"b"}`,
	} {
		if got, answer := call(t, h, "POST", "/load-lora-adapter", body); got != 400 {
			t.Errorf("%s: got %d %s", body, got, answer)
		}
	}
	if len(e.calls) != 0 {
		t.Errorf("the engine was asked: %q", e.calls)
	}
}

func TestAnEngineThatIsDownIs503AndNothingIsRemembered(t *testing.T) {
	dir, state := t.TempDir(), filepath.Join(t.TempDir(), "lora.json")
	folder(t, filepath.Join(dir, "a"), "adapter_config.json")
	o := options(t)
	o.Adapters = control.NewAdapters(control.AdaptersOptions{
		Dir: dir, StateFile: state, Engine: vllm.New(vllm.Options{Address: "127.0.0.1:1"}),
		Log: hclog.NewNullLogger(),
	})
	if got, answer := call(t, control.Handler(o), "POST", "/load-lora-adapter", `{"lora_name":"a"}`); got != 503 {
		t.Errorf("got %d %s", got, answer)
	}
	if _, err := os.Stat(state); !os.IsNotExist(err) {
		t.Errorf("remembered: %v", err)
	}
}
