package input_test

import (
	"net/http"
	"strings"
	"testing"

	"tollgate/e2e/stack"
	"tollgate/internal/route"
)

// /health says to strangers whether it works, and to insiders what works.
func TestHealthForStrangersAndInsiders(t *testing.T) {
	s := stack.Start(t, stack.Options{})
	const short = `{"status":"ok","vllm":[{"ready":true}]}`
	for name, c := range map[string]struct {
		lines []string
		whole bool
	}{
		"a local client":                   {nil, true},
		"by another name":                  {[]string{"Host: gate.example"}, false},
		"through a proxy":                  {[]string{"X-Forwarded-For: 192.0.2.1"}, false},
		"a page of somebody else's":        {[]string{"Origin: https://evil.example"}, false},
		"who says it of himself":           {[]string{"Host: gate.example", route.InsiderHeader + ": yes"}, false},
		"with an ordinary key":             {[]string{"Host: gate.example", "Authorization: Bearer " + stack.Key}, false},
		"with a wrong key":                 {[]string{"Host: gate.example", "Authorization: Bearer sk-nobody-0123456789abcdef"}, false},
		"with an administrator's key":      {[]string{"Host: gate.example", "Authorization: Bearer " + stack.AdminKey}, true},
		"with an administrator's, proxied": {[]string{"X-Forwarded-For: 192.0.2.1", "x-api-key: " + stack.AdminKey}, true},
	} {
		a := s.Raw(request("GET", "/health", "", c.lines...))
		got := strings.TrimSpace(string(a.Bytes))
		if a.Response == nil || a.StatusCode != http.StatusOK || (got == short) == c.whole || strings.Contains(got, `"target"`) != c.whole || strings.Contains(got, `"default_key"`) != c.whole {
			t.Errorf("%s: %v %s", name, a.Response, got)
		}
	}
}

// Another site's page that has pointed its name to this machine reads nothing
// from the page that needs no key.
func TestTheScrapePageHasLoopbackNamesOnly(t *testing.T) {
	s := stack.Start(t, stack.Options{})
	for host, want := range map[string]int{"": http.StatusOK, "localhost:9464": http.StatusOK, "evil.example": http.StatusForbidden} {
		for _, path := range []string{"/metrics", "/healthz"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.Scrape+path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = host
			resp, err := s.HTTP1.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s as %q: %d, want %d", path, host, resp.StatusCode, want)
			}
		}
	}
}
