package operator_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/audit"
)

// entries reads the audit, newest first.
func entries(t *testing.T, s *stack.Stack, query string) []audit.Entry {
	t.Helper()
	var page struct{ Entries []audit.Entry }
	a := s.Admin("GET", "/admin/audit?"+query, "")
	if err := json.Unmarshal(a.Bytes, &page); err != nil || a.StatusCode != http.StatusOK {
		t.Fatalf("audit: %d %s", a.StatusCode, a.Bytes)
	}
	return page.Entries
}

// onRecord does something and waits for the entry that it must leave.
func onRecord(t *testing.T, s *stack.Stack, what, action, target, who, from string, do func()) {
	t.Helper()
	last := int64(0)
	if newest := entries(t, s, "limit=1"); len(newest) > 0 {
		last = newest[0].Seq
	}
	do()
	var seen []string
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		seen = nil
		for _, e := range entries(t, s, "limit=50") {
			if e.Seq <= last {
				break
			}
			if e.Action == action && e.Target == target && strings.HasPrefix(e.Who, who) && strings.HasPrefix(e.From, from) {
				return
			}
			seen = append(seen, fmt.Sprintf("%s of %s by %s from %s", e.Action, e.Target, e.Who, e.From))
		}
		time.Sleep(200 * time.Millisecond)
	}
	t.Errorf("%s leaves no entry %s of %s by %s from %s; the new ones are %q", what, action, target, who, from, seen)
}

// changing lists the operations of the API that may change something.
func changing(t *testing.T, s *stack.Stack) map[string]bool {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(s.Admin("GET", "/admin/openapi.json", "").Bytes, &doc); err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for path, methods := range doc.Paths {
		for method := range methods {
			if method != "get" && method != "parameters" {
				out[strings.ToUpper(method)+" "+path] = true
			}
		}
	}
	return out
}

// Every operation that changes something, and every other way of changing it, leaves
// an entry with who did it and from where. An operation that this table lacks fails.
func TestEveryChangeIsOnRecord(t *testing.T) {
	s := stack.StartHost(t, `[{"key":"`+stack.AdminKey+`","id":"root","user":"admin"},{"key":"`+stack.Key+`","id":"ann","user":"ann"}]`)
	engine := "127.0.0.1:" + strconv.Itoa(stack.FreePort(t))
	live, cancel := s.Open(s.HTTP1, stack.Key, stack.Chat(true, 5000, `"delay_ms":100`))
	defer cancel()
	left := changing(t, s)
	for _, c := range []struct {
		operation, path, body string
		action, target        string
	}{
		{"POST /admin/keys", "/admin/keys", `{"id":"bob","user":"bob"}`, "key.add", "bob"},
		{"PATCH /admin/keys/{id}", "/admin/keys/bob", `{"limits":{"concurrent":2}}`, "key.change", "bob"},
		{"POST /admin/keys/{id}/rotate", "/admin/keys/bob/rotate", "", "key.change", "bob"},
		{"DELETE /admin/keys/{id}", "/admin/keys/bob", "", "key.remove", "bob"},
		{"DELETE /admin/requests/{id}", "/admin/requests/" + live.RequestID(), "", "request.cancel", live.RequestID()},
		{"POST /admin/engines", "/admin/engines", `{"address":"` + engine + `"}`, "engine.add", engine},
		{"DELETE /admin/engines/{address}", "/admin/engines/" + engine, "", "engine.remove", engine},
		{"POST /admin/load-lora-adapter", "/admin/load-lora-adapter", `{"lora_name":"support","lora_path":"support"}`, "adapter.load", "support"},
		{"POST /admin/unload-lora-adapter", "/admin/unload-lora-adapter", `{"lora_name":"support"}`, "adapter.unload", "support"},
		{"POST /admin/clean-logs", "/admin/clean-logs?days=30", "", "log.clean", "logs"},
		{"POST /admin/children/{name}/restart", "/admin/children/vllm/restart", "", "child.restart", "vllm"},
	} {
		method, _, _ := strings.Cut(c.operation, " ")
		onRecord(t, s, c.operation, c.action, c.target, "root", "127.0.0.1", func() {
			if a := s.Admin(method, c.path, c.body); a.StatusCode >= http.StatusBadRequest {
				t.Errorf("%s: %d %s", c.operation, a.StatusCode, a.Bytes)
			}
		})
		delete(left, c.operation)
	}
	onRecord(t, s, "POST /admin/reload-keys after an edit by hand", "key.add", "eve", audit.ByFile, "", func() {
		addByHand(t, s, `{"key":"sk-test-eve-0123456789abcdef","id":"eve","user":"eve"}`)
		s.Admin("POST", "/admin/reload-keys", "")
	})
	delete(left, "POST /admin/reload-keys")
	for operation := range left {
		t.Errorf("%s changes something and is not in this table", operation)
	}
	byOtherWays(t, s, engine)
	if code, out, errs := s.Command("audit", "verify"); code != 0 {
		t.Errorf("audit verify: exit %d %s%s", code, out, errs)
	}
}

// addByHand puts an entry into the key file, as an editor does.
func addByHand(t *testing.T, s *stack.Stack, entry string) {
	t.Helper()
	file, err := os.ReadFile(s.Path("keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	whole := strings.TrimRight(strings.TrimSpace(string(file)), "]")
	s.Write("keys.json", strings.TrimSpace(whole)+","+entry+"]")
}

// byOtherWays changes things by hand, by the commands of this host, and by a command
// from elsewhere.
func byOtherWays(t *testing.T, s *stack.Stack, engine string) {
	t.Helper()
	onRecord(t, s, "an editor", "key.add", "ned", audit.ByFile, "", func() {
		addByHand(t, s, `{"key":"sk-test-ned-0123456789abcdef","id":"ned","user":"ned"}`)
	})
	command := func(what, action, target, who, from string, args ...string) {
		t.Helper()
		onRecord(t, s, what, action, target, who, from, func() {
			if code, out, errs := s.Command(args...); code != 0 {
				t.Errorf("tollgate %v: exit %d\n%s%s", args, code, out, errs)
			}
		})
	}
	command("keys add", "key.add", "kim", "local:", "local", "keys", "add", "--user", "kim", "--id", "kim")
	command("keys set", "key.change", "kim", "local:", "local", "keys", "set", "kim", "--concurrent", "2")
	command("keys rotate", "key.change", "kim", "local:", "local", "keys", "rotate", "kim")
	command("keys disable", "key.change", "kim", "local:", "local", "keys", "disable", "kim")
	command("keys enable", "key.change", "kim", "local:", "local", "keys", "enable", "kim")
	command("keys remove", "key.remove", "kim", "local:", "local", "keys", "remove", "kim")
	command("engines add", "engine.add", engine, "local:", "local", "engines", "add", engine)
	command("engines remove", "engine.remove", engine, "local:", "local", "engines", "remove", engine)
	command("keys set from elsewhere", "key.change", "ann", "root", "127.0.0.1", "--url", s.URL, "--key", stack.AdminKey, "keys", "set", "ann", "--note", "far")
	live, cancel := s.Open(s.HTTP1, stack.Key, stack.Chat(true, 5000, `"delay_ms":100`))
	defer cancel()
	command("requests cancel", "request.cancel", live.RequestID(), "local:", "local", "requests", "cancel", live.RequestID())
}
