package clients_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
	"tollgate/internal/vllmsim"
)

// webUI is an Open WebUI that runs without a browser.
type webUI struct {
	t     *testing.T
	url   string
	token string
}

// TestOpenWebUI runs it as docs/clients.md says, and chats through its own API: its list
// has the models of the key, the answer is the model's, and the row names its user.
func TestOpenWebUI(t *testing.T) {
	t.Parallel()
	program := os.Getenv("OPENWEBUI_BIN")
	if program == "" {
		t.Skip("OPENWEBUI_BIN must name what scripts/fetch_openwebui.py prints; make proof has it")
	}
	s := stack.Start(t, stack.Options{
		Sim:  vllmsim.Options{Models: []string{"simulated"}},
		Keys: `[{"key": "` + stack.Key + `", "id": "webui", "user": "webui", "trust_end_user": true}, {"key": "` + stack.AdminKey + `", "id": "root", "user": "admin"}]`,
	})
	r := newReader(t, s)
	w := r.openWebUI(program)
	var list struct{ Data []struct{ ID string } }
	w.ask(http.MethodGet, "/api/models", "", &list)
	if len(list.Data) != 1 || list.Data[0].ID != "simulated" {
		t.Errorf("its models: %+v", list.Data)
	}
	var answer struct {
		Choices []struct{ Message struct{ Content string } }
	}
	w.ask(http.MethodPost, "/api/chat/completions", `{"model":"simulated","stream":false,"messages":[{"role":"user","content":"Hello!"}]}`, &answer)
	if len(answer.Choices) != 1 || !strings.Contains(answer.Choices[0].Message.Content, "simulated model") {
		t.Errorf("it showed %+v", answer)
	}
	stream := w.do(http.MethodPost, "/api/chat/completions", `{"model":"simulated","stream":true,"messages":[{"role":"user","content":"Hello!"}]}`)
	if !strings.Contains(string(stream), "data: [DONE]") {
		t.Errorf("its stream: %.2000s", stream)
	}
	r.checkBooks(2, ledger.Complete)
	for id, rec := range s.Records() {
		if rec.EndUser != "admin@localhost" {
			t.Errorf("%s: the row names %q, want the user whom Open WebUI makes without a sign-in", id, rec.EndUser)
		}
	}
}

// openWebUI starts the program with the page's commands.
func (r *reader) openWebUI(program string) *webUI {
	r.t.Helper()
	port := stack.FreePort(r.t)
	commands := strings.ReplaceAll(snippets(r.t, "Open WebUI", "sh")[0], home, r.s.URL)
	commands = strings.Replace(commands, "open-webui serve", fmt.Sprintf("exec open-webui serve --host 127.0.0.1 --port %d", port), 1)
	cmd := r.command(r.t.Context(), "/bin/sh", append(r.environment(),
		"PATH="+filepath.Dir(program)+":/usr/bin:/bin", "DATA_DIR="+r.home, "WEBUI_SECRET_KEY=a-secret-of-this-test-and-of-no-other", "WEBUI_AUTH=False", "OFFLINE_MODE=True",
		"ENABLE_OLLAMA_API=False", "BYPASS_EMBEDDING_AND_RETRIEVAL=True", "RAG_EMBEDDING_ENGINE=openai", // it has no models of its own
		"ANONYMIZED_TELEMETRY=False", "DO_NOT_TRACK=1", "HF_HUB_OFFLINE=1",
	), "-euc", commands)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = cmd.Wait() }()
	r.t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-done
		if r.t.Failed() {
			r.t.Logf("open-webui printed %s", out.Bytes()[max(0, out.Len()-4000):])
		}
	})
	w := &webUI{t: r.t, url: fmt.Sprintf("http://127.0.0.1:%d", port)}
	stack.Eventually(r.t, 2*patience, "Open WebUI to be there", func() bool {
		select {
		case <-done:
			r.t.Fatal("it has ended")
		default:
		}
		resp, err := http.Get(w.url + "/health")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	var user struct{ Token string }
	w.ask(http.MethodPost, "/api/v1/auths/signin", `{"email":"","password":""}`, &user)
	w.token = user.Token
	return w
}

func (w *webUI) do(method, path, body string) []byte {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+w.token)
	client := http.Client{Timeout: time.Minute}
	resp, err := client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		w.t.Fatalf("%s %s: %d %.2000s, %v", method, path, resp.StatusCode, text, err)
	}
	return text
}

func (w *webUI) ask(method, path, body string, answer any) {
	w.t.Helper()
	text := w.do(method, path, body)
	if err := json.Unmarshal(text, answer); err != nil {
		w.t.Fatalf("%s %s: %v: %.2000s", method, path, err, text)
	}
}
