package console_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// says runs a command that must succeed, and looks for words in what it prints.
func says(s *stack.Stack, want []string, args ...string) string {
	s.TB().Helper()
	code, out, errs := s.Command(args...)
	if code != 0 {
		s.TB().Fatalf("tollgate %v: exit %d\n%s%s", args, code, out, errs)
	}
	for _, w := range want {
		if !strings.Contains(out+errs, w) {
			s.TB().Errorf("tollgate %v does not say %q:\n%s%s", args, w, out, errs)
		}
	}
	return out
}

// The commands of an operator, on this host by the socket and from elsewhere with a
// key. What they change is on record, with who did it.
func TestCommands(t *testing.T) {
	s := start(t)
	traffic(t, s, 2)
	says(s, []string{"health", "ok", "running requests  2", "ready"}, "status")
	says(s, []string{"ann-laptop", "running"}, "requests")
	says(s, []string{"running requests: 2"}, "top", "--once")
	says(s, []string{"2/4", "ann-laptop", "/100000"}, "limits")
	says(s, []string{"2/4"}, "limits", "ann-laptop")
	says(s, []string{"complete"}, "requests", "--ended", "--end", "complete", "--limit", "3")
	var rows []struct {
		RequestID string `json:"request_id"`
	}
	if err := json.Unmarshal([]byte(says(s, nil, "requests", "--output", "json")), &rows); err != nil || len(rows) != 2 {
		t.Fatalf("requests as JSON: %d rows, %v", len(rows), err)
	}
	says(s, []string{"is cut"}, "requests", "cancel", rows[0].RequestID)
	if r := s.Settled(rows[0].RequestID); r.Reason != "cancelled" {
		t.Errorf("the cancelled request ended as %q", r.Reason)
	}
	says(s, []string{"ann-laptop", "50000"}, "keys", "show", "ann-laptop")
	says(s, []string{"changed"}, "keys", "set", "ann-laptop", "--tokens-per-minute", "60000", "--note", "by hand")
	remote := []string{"--url", s.URL, "--key", stack.AdminKey}
	says(s, []string{"changed"}, append(remote, "keys", "set", "ann-laptop", "--concurrent", "unlimited", "--expires-at", "90d")...)
	says(s, []string{"health", "ok"}, append(remote, "status")...)
	shown := says(s, []string{"60000", "by hand"}, append(remote, "keys", "show", "ann-laptop", "--output", "json")...)
	if !strings.Contains(shown, `"concurrent": null`) || !strings.Contains(shown, "expires_at") {
		t.Errorf("the key after two changes: %s", shown)
	}
	stack.Eventually(t, 10*time.Second, "the audit of three changes", func() bool {
		_, out, _ := s.Command("audit", "--output", "csv")
		return strings.Contains(out, "local:") && strings.Contains(out, "root,127.0.0.1,key.change,ann-laptop") && strings.Contains(out, "request.cancel")
	})
	says(s, []string{"the chain holds"}, "audit", "verify")
	code, _, errs := s.Command("--url", s.URL, "--key", annKey, "status")
	if code != 1 || strings.Contains(errs, annKey) {
		t.Errorf("a key that is no administrator's: exit %d, %s", code, errs)
	}
	if code, _, errs := s.Command("requests", "cancel", "nobody"); code != 1 || !strings.Contains(errs, "No live request") {
		t.Errorf("cancel nothing: exit %d, %s", code, errs)
	}
}

// A key's owner may ask of themselves when nothing is left to them.
func TestSelfServiceWhenNothingIsLeft(t *testing.T) {
	s := stack.Start(t, stack.Options{Keys: `[{"key":"` + stack.AdminKey + `","id":"root","user":"admin"},
		{"key":"` + annKey + `","id":"ann","user":"ann","quota":30,"limits":{"concurrent":1,"requests_per_minute":3}}]`})
	bearer := []string{"Authorization", "Bearer " + annKey}
	_, cancel := s.Open(s.HTTP1, annKey, stack.Chat(true, 500, `"delay_ms":100`))
	defer cancel()
	for range 3 {
		s.Do(s.HTTP1, "POST", stack.ChatPath, stack.Chat(false, 20, ""), bearer...)
	}
	for _, path := range []string{"/v1/key", "/v1/usage", "/v1/requests"} {
		if a := s.Do(s.HTTP1, "GET", path, "", bearer...); a.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", path, a.StatusCode, a.Bytes)
		}
		if a := s.Do(s.HTTP1, "GET", path, ""); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s without a key: %d", path, a.StatusCode)
		}
	}
}
