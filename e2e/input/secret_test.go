package input_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// TestSecretsStayWhereTheyBelong runs requests of every kind with marked
// prompts and keys, and looks for the marks wherever somebody might.
func TestSecretsStayWhereTheyBelong(t *testing.T) {
	const (
		prompt  = "CANARYPROMPT7f3a"
		answer  = "CANARYANSWER91bc"
		badKey  = "sk-CANARYKEY-0123456789abcdef"
		session = "CANARYCOOKIE55"
		model   = "CANARYMODEL3d8e" // told back to the client that asked for it alone
	)
	marks := []string{prompt, answer, badKey, session, stack.Key, stack.AdminKey, disabledKey}
	dir := t.TempDir()
	// What it receives is in a file of dir, too.
	collector := stack.StartCollector(t, dir)
	s := stack.Start(t, stack.Options{Dir: dir, Keys: manyKeys, Config: "request: {idle_timeout: 1s}\notel: {endpoint: \"" + collector.GRPC + "\"}"})
	chat := func(more string) string {
		return `{"model":"tiny","max_tokens":20,"user":"` + prompt + `","messages":[{"role":"user","content":"` + prompt + `"}]` + more + `}`
	}
	text := `,"sim":{"text":"` + answer + ` and more words of it"`
	var answers []*stack.Answer
	ask := func(body string, header ...string) {
		answers = append(answers, s.Post(stack.ChatPath, body, header...))
	}
	ask(chat(text+`}`), "Cookie", session)
	ask(chat(`,"stream":true` + text + `}`))
	ask(chat(`,"stream":true` + text + `,"cut_after":2}`))
	ask(chat(`,"stream":true` + text + `,"pause_after":1}`))
	ask(chat(text + `,"hang":true}`))
	ask(chat(text + `,"error_status":500}`))
	ask(chat(`,"n":"` + prompt + `"`))
	ask(chat(`,"` + prompt + `":1,"` + prompt + `":2`))
	ask(chat(`,"stop":"`+prompt) + "\xff")
	ask(prompt)
	ask(strings.Replace(chat(""), `"tiny"`, `"`+model+`"`, 1))
	ask(chat(""), "Authorization", "Bearer "+badKey)
	ask(chat(""), "Authorization", "Bearer "+badKey+","+badKey)
	ask(chat(""), "Authorization", "Bearer "+disabledKey)
	ask(chat(""), "Authorization", "Bearer "+stack.Key, "X-Api-Key", badKey)
	answers = append(answers, s.Post("/v1/"+badKey, chat("")), s.Post("/v1/messages", strings.Replace(chat(""), "{", "[", 1)),
		s.Admin("GET", "/admin/keys", ""), s.Admin("GET", "/admin/requests", ""), s.Admin("GET", "/admin/usage", ""),
		s.Admin("POST", "/admin/reload-keys", ""), s.Admin("GET", "/admin/keys/"+badKey, ""))
	s.Write("keys.json", manyKeys[:len(manyKeys)-60])
	answers = append(answers, s.Admin("POST", "/admin/reload-keys", ""))
	if code, _, stderr := s.Command("keys", "disable", stack.Key); code != 2 || strings.Contains(stderr, stack.Key) {
		t.Errorf("a key as argument: exit %d, %s", code, stderr)
	}
	_, stdout, stderr := s.Command("config", "check")
	s.Idle(5 * time.Second)
	last := s.Post(stack.ChatPath, chat("")).RequestID()
	collector.Find("the last span", func(span *stack.Span) bool { return span.Attributes["tollgate.request.id"] == last })
	if n := len(collector.Spans()); n < 10 {
		t.Errorf("%d spans", n)
	}

	find := func(where string, content []byte) {
		for _, m := range marks {
			if bytes.Contains(content, []byte(m)) {
				t.Errorf("%s holds %s", where, m)
			}
		}
	}
	for i, a := range answers {
		if a.StatusCode >= 400 || i >= 15 {
			find("answer "+strconv.Itoa(i), a.Bytes)
		}
	}
	marks = append(marks, model)
	find("config check", []byte(stdout+stderr))
	find("metrics", s.Admin("GET", "/metrics", "").Bytes)
	for _, p := range []*stack.Process{s.Tollgate, s.Envoy} {
		for _, name := range []string{"cmdline", "environ"} {
			b, err := os.ReadFile("/proc/" + strconv.Itoa(p.PID()) + "/" + name)
			if err != nil || len(b) == 0 {
				t.Fatalf("%s: %d bytes, %v", name, len(b), err)
			}
			find(name, b)
		}
	}
	inFiles(t, s.Dir, find)
	log, err := os.ReadFile(s.Path("logs/gateway.log"))
	if err != nil || !bytes.Contains(log, []byte(`"key_id":"ann"`)) {
		t.Errorf("the log does not tell of the requests: %v", err)
	}
}

// inFiles looks at every file of the stack but its keys: ledger, logs, state.
func inFiles(t *testing.T, dir string, find func(where string, content []byte)) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() == "keys.json" {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		find(d.Name(), b)
		return err
	})
	if err != nil || files < 5 {
		t.Errorf("looked at %d files: %v", files, err)
	}
}
