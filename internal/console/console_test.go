package console_test

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"tollgate/internal/console"
)

func ask(method, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, http.NoBody)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	console.Handler("/console/", http.NotFoundHandler()).ServeHTTP(w, r)
	return w
}

func TestPages(t *testing.T) {
	for path, kind := range map[string]string{
		"/console/": "text/html", "/console/index.html": "text/html", "/console/main.js": "text/javascript",
		"/console/style.css": "text/css", "/console/vendor/uPlot.js": "text/javascript", "/console/icon.svg": "image/svg+xml",
	} {
		w := ask(http.MethodGet, path)
		if w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), kind) || w.Body.Len() == 0 {
			t.Errorf("%s: %d %s, %d bytes", path, w.Code, w.Header().Get("Content-Type"), w.Body.Len())
		}
		if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'self'") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s has the policy %q", path, csp)
		}
		if again := ask(http.MethodGet, path, "If-None-Match", w.Header().Get("ETag")); again.Code != http.StatusNotModified {
			t.Errorf("%s, known already: %d", path, again.Code)
		}
		if head := ask(http.MethodHead, path); head.Code != http.StatusOK || head.Body.Len() != 0 {
			t.Errorf("HEAD %s: %d, %d bytes", path, head.Code, head.Body.Len())
		}
	}
	for _, path := range []string{"/console/nope", "/console/static/index.html", "/console/../console.go", "/console/vendor", "/console/vendor/"} {
		if w := ask(http.MethodGet, path); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

// The policy lets nothing inline run, and text never becomes markup: what would break
// there, or break in, must not be in our files. Nothing of another origin is named.
func TestNothingInlineAndNoMarkupFromText(t *testing.T) {
	bad := regexp.MustCompile(`(?i)innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|<script(?:>|[^>]*>[^<])|<style|\sstyle=|\son[a-z]+="|https?://`)
	allowed := regexp.MustCompile(`http://www\.w3\.org/2000/svg`)
	seen := 0
	err := fs.WalkDir(os.DirFS("static"), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(name, "vendor/") {
			return err
		}
		seen++
		content, err := os.ReadFile("static/" + name)
		for i, line := range strings.Split(string(content), "\n") {
			if found := bad.FindString(allowed.ReplaceAllString(line, "")); found != "" {
				t.Errorf("%s:%d has %q", name, i+1, found)
			}
		}
		return err
	})
	if err != nil || seen < 15 {
		t.Errorf("%d files, %v", seen, err)
	}
}
