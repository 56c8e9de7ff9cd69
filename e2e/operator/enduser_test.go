package operator_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"tollgate/e2e/stack"
)

const sharedKey = "sk-test-webui-0123456789abcdef"

// usageBy asks for the sums of a grouping and returns the number of requests by name.
func usageBy(t *testing.T, s *stack.Stack, by string) map[string]int {
	t.Helper()
	a := s.Admin("GET", "/admin/usage?by="+by, "")
	var groups []map[string]any
	if err := json.Unmarshal(a.Bytes, &groups); err != nil {
		t.Fatalf("usage by %s: %d %s", by, a.StatusCode, a.Bytes)
	}
	out := map[string]int{}
	for _, g := range groups {
		out[g[by].(string)] = int(g["requests"].(float64))
	}
	return out
}

// Several people behind one Open WebUI are told apart, and nobody else can say for
// whom a request is. What the headers say reaches no engine.
func TestPeopleBehindOneKey(t *testing.T) {
	s := stack.Start(t, stack.Options{Keys: `[{"key":"` + stack.AdminKey + `","id":"root","user":"admin"},
		{"key":"` + stack.Key + `","id":"ann","user":"ann"},
		{"key":"` + sharedKey + `","id":"webui","user":"webui","trust_end_user":true}]`})
	ask := func(key string, stream bool, headers ...string) string {
		t.Helper()
		a := s.Do(s.HTTP1, "POST", stack.ChatPath, stack.Chat(stream, 5, ""), append([]string{"Authorization", "Bearer " + key}, headers...)...)
		if a.StatusCode != http.StatusOK {
			t.Fatalf("request: %d %s", a.StatusCode, a.Bytes)
		}
		return a.RequestID()
	}
	eve := []string{
		"X-OpenWebUI-User-Email", "eve@example.org", "X-OpenWebUI-User-Id", "4f2c", "X-OpenWebUI-User-Name", "Eve%20%C3%96berg", "X-OpenWebUI-User-Role", "admin",
	}
	for id, want := range map[string]string{
		ask(sharedKey, true, eve...):  "eve@example.org",
		ask(sharedKey, false, eve...): "eve@example.org",
		ask(sharedKey, true, "X-OpenWebUI-User-Name", "Eve%20%C3%96berg%E2%80%AE"): "Eve Öberg",
		ask(sharedKey, true, "X-OpenWebUI-User-Id", strings.Repeat("x", 4000)):     strings.Repeat("x", 128),
		ask(sharedKey, true):          "",
		ask(stack.Key, true, eve...):  "",
		ask(stack.Key, false, eve...): "",
	} {
		r := s.Settled(id)
		if r.EndUser != want || len(r.Secret) != 8 || r.RequestedModel != "tiny" {
			t.Errorf("end user %q, secret %q, requested model %q of key %s; want %q", r.EndUser, r.Secret, r.RequestedModel, r.KeyID, want)
		}
	}
	if by := usageBy(t, s, "end_user"); by["eve@example.org"] != 2 || by["Eve Öberg"] != 1 || by[""] != 3 {
		t.Errorf("usage by end user: %v", by)
	}
	own := s.Do(s.HTTP1, "GET", "/v1/usage?by=end_user", "", "Authorization", "Bearer "+sharedKey)
	if !strings.Contains(string(own.Bytes), `"end_user":"eve@example.org","requests":2`) {
		t.Errorf("the owner of the key: %s", own.Bytes)
	}
	if code, out, errs := s.Command("usage", "--by", "end_user"); code != 0 || !strings.Contains(out, "eve@example.org") {
		t.Errorf("tollgate usage: exit %d\n%s%s", code, out, errs)
	}
}

// The ledger tells who still uses the old secret of a rotated key.
func TestTheOldSecretOfARotationIsSeen(t *testing.T) {
	s := stack.Start(t, stack.Options{})
	before := s.Settled(s.Post(stack.ChatPath, stack.Chat(false, 3, "")).RequestID())
	var made struct {
		Key string `json:"key"`
	}
	if err := json.Unmarshal(s.Admin("POST", "/admin/keys/ann/rotate?grace=1h", "").Bytes, &made); err != nil || made.Key == "" {
		t.Fatal("rotate", err)
	}
	old := s.Settled(s.Post(stack.ChatPath, stack.Chat(true, 3, "")).RequestID())
	fresh := s.Settled(s.Do(s.HTTP1, "POST", stack.ChatPath, stack.Chat(true, 3, ""), "Authorization", "Bearer "+made.Key).RequestID())
	if old.Secret != before.Secret || fresh.Secret == old.Secret || len(fresh.Secret) != 8 || fresh.KeyID != old.KeyID {
		t.Errorf("secrets: before %q, old %q, fresh %q", before.Secret, old.Secret, fresh.Secret)
	}
}
