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
		"who says it of himself":           {[]string{"Host: gate.example", route.LocalHeader + ": yes"}, false},
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

// With a listener of their own, administrators' paths are there and nowhere else.
func TestAdministratorsMayHaveADoorOfTheirOwn(t *testing.T) {
	port := stack.FreePort(t)
	s := stack.Start(t, stack.Options{Config: "admin_listen: 127.0.0.1:" + itoa(port)})
	public, private := s.URL, "http://127.0.0.1:"+itoa(port)
	for _, c := range []struct {
		method, path    string
		public, private int
	}{
		{"GET", "/admin/keys", 404, 200},
		{"GET", "/metrics", 404, 200},
		{"PUT", "/admin/keys", 404, 405},
		{"GET", "/v1/models", 200, 404},
		{"POST", "/v1/models", 405, 404},
		{"GET", "/health", 200, 200},
		{"GET", "/nowhere", 404, 404},
		{"GET", "/admin/../admin/keys", 404, 200},
	} {
		for base, want := range map[string]int{public: c.public, private: c.private} {
			s.URL = base
			if a := s.Admin(c.method, c.path, ""); a.StatusCode != want {
				t.Errorf("%s %s on %s: %d %s, want %d", c.method, c.path, base, a.StatusCode, a.Bytes, want)
			}
		}
	}
	s.URL = private
	if a := s.Post(stack.ChatPath, hello); a.StatusCode != http.StatusNotFound {
		t.Errorf("inference on the administrators' listener: %d %s", a.StatusCode, a.Bytes)
	}
	if a := s.Do(s.HTTP1, "GET", "/health", ""); a.JSON()["default_key"] == nil {
		t.Errorf("a local client there: %s", a.Bytes)
	}
	s.URL = public
	if a := s.Post(stack.ChatPath, hello); a.StatusCode != http.StatusOK {
		t.Errorf("inference: %d %s", a.StatusCode, a.Bytes)
	}
}

// Pages of other origins read nothing of an administrator's, on one listener or two.
func TestAdminAnswersNoForeignOrigin(t *testing.T) {
	s := stack.Start(t, stack.Options{})
	const origin, admin = "Origin: https://evil.example", "Authorization: Bearer " + stack.AdminKey
	for name, a := range map[string]*stack.Answer{
		"an answer":     s.Raw(request("GET", "/admin/keys", "", origin, admin)),
		"a refusal":     s.Raw(request("GET", "/admin/keys", "", origin)),
		"the metrics":   s.Raw(request("GET", "/metrics", "", origin, admin)),
		"a preflight":   s.Raw(request("OPTIONS", "/admin/keys", "", origin, "Access-Control-Request-Method: DELETE")),
		"one for these": s.Raw(request("OPTIONS", "/metrics", "", origin, "Access-Control-Request-Method: GET")),
	} {
		if a.Response == nil || a.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %v", name, a.Response)
		}
	}
}
