package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestLimitsSayWhatIsUsedOfWhat: also where there is no limit, and where the store
// does not know what was used.
func TestLimitsSayWhatIsUsedOfWhat(t *testing.T) {
	const answer = `{"limits": [{"key_id": "team", "user": "ada",
		"now": {"concurrent": 2, "requests_in_window": 90, "tokens_in_window": 1500, "quota_used": -1},
		"limits": {"concurrent": 4, "requests_per_minute": null, "tokens_per_minute": 20000, "quota": null}}]}`
	admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/admin/limits" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("content-type", "application/json")
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(admin.Close)
	t.Setenv("TOLLGATE_KEY", "sk-0123456789abcdef0123456789abcdef")
	out, _ := newCLI(t).run(0, "limits", "--url", admin.URL)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	got := strings.Fields(lines[len(lines)-1])
	if want := "team ada 2/4 90/- 1500/20000 0/- -"; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q in\n%s", strings.Join(got, " "), want, out)
	}
}
