package console_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/vllmsim"
)

const annKey = "sk-test-ann-0123456789abcdef"

// hostile are names that a page must show and never run.
var hostile = []string{`<img src=x onerror="document.title='owned'">`, strings.Repeat("long", 60)}

func start(t *testing.T) *stack.Stack {
	t.Helper()
	keys := `[{"key":"` + stack.AdminKey + `","id":"root","user":"admin"},
		{"key":"` + annKey + `","id":"ann-laptop","user":"ann","quota":100000,"quota_period":"month","limits":{"concurrent":4,"tokens_per_minute":50000}}`
	var more strings.Builder
	for i, name := range hostile {
		fmt.Fprintf(&more, ",\n{\"key\":\"sk-test-hostile-0123456789-%d\",\"id\":\"hostile-%d\",\"user\":%q,\"note\":%q}", i, i, name, "\u202Egnorw\u202C")
	}
	return stack.Start(t, stack.Options{Keys: keys + more.String() + "]", Sim: vllmsim.Options{Models: []string{"tiny", `<b>bold</b>`, strings.Repeat("m", 10_000)}}})
}

// traffic makes a few settled requests, and leaves streams that run until the end.
func traffic(t *testing.T, s *stack.Stack, live int) {
	t.Helper()
	for i := range 6 {
		key := []string{annKey, "sk-test-hostile-0123456789-0", "sk-test-hostile-0123456789-1"}[i%3]
		a := s.Do(s.HTTP1, "POST", stack.ChatPath, stack.Chat(false, 20, ""), "Authorization", "Bearer "+key)
		if a.StatusCode != http.StatusOK {
			t.Fatalf("request: %d %s", a.StatusCode, a.Bytes)
		}
	}
	for range live {
		_, cancel := s.Open(s.HTTP1, annKey, stack.Chat(true, 5000, `"delay_ms":100`))
		t.Cleanup(cancel)
	}
}

// An administrator goes over every page and does everything that can be done there.
func TestAnAdministrator(t *testing.T) {
	s := start(t)
	traffic(t, s, 2)
	b := open(t, s.URL, 1440, 900)
	b.accessible("sign in")
	b.signIn("sk-nobody-has-this-0123456789")
	b.sees("No enabled key has this secret.")
	b.signIn(stack.AdminKey)
	for _, name := range []string{"Now", "Live", "Usage", "Keys", "Requests", "Engines", "Trust", "My key"} {
		b.page(name)
		b.accessible(name)
		b.picture(strings.ToLower(strings.ReplaceAll(name, " ", "-")))
	}
	cutsAStream(b, s)
	editsKeys(b, s)
	if title := eval[string](b, "document.title"); strings.Contains(title, "owned") {
		t.Error("a hostile name ran")
	}
	b.page("Requests")
	b.fill("End", "cancelled")
	b.press("Search")
	b.sees("cancelled")
	b.page("Trust")
	b.press("Check the ledger")
	b.sees("Ledger: everything holds.")
	b.press("Check the audit")
	b.sees("Audit: everything holds.")
	b.sees("key.change")
	b.good(stack.AdminKey)
}

// Every page fits a phone and can be used there.
func TestAnAdministratorWithAPhone(t *testing.T) {
	s := start(t)
	traffic(t, s, 1)
	b := open(t, s.URL, 390, 844)
	b.signIn(stack.AdminKey)
	for _, name := range []string{"Now", "Live", "Usage", "Keys", "Requests", "Engines", "Trust", "My key"} {
		b.page(name)
		b.accessible(name)
		if wide := eval[int](b, `document.documentElement.scrollWidth`); wide > 390 {
			t.Errorf("%s is %d pixels wide on a phone of 390", name, wide)
		}
		b.picture(strings.ToLower(strings.ReplaceAll(name, " ", "-")) + "-phone")
	}
	b.good(stack.AdminKey)
}

func cutsAStream(b *browser, s *stack.Stack) {
	b.t.Helper()
	b.page("Live")
	b.sees("2 of 2 running requests")
	id := eval[string](b, `document.querySelector("button[aria-label^='Cut request']").getAttribute("aria-label").slice("Cut request ".length)`)
	b.press("Cut request " + id)
	b.press("Cut it")
	b.sees("1 of 1 running requests")
	if r := s.Settled(id); r.Reason != "cancelled" {
		b.t.Errorf("the stream that was cut ended as %q", r.Reason)
	}
}

// editsKeys makes a key, limits it, rotates it, and takes it away again.
func editsKeys(b *browser, s *stack.Stack) {
	b.t.Helper()
	b.page("Keys")
	b.press("New key")
	b.fill("User", "bob")
	b.fill("Id (empty: made for you)", "bob-1")
	b.fill("Requests at once", "3")
	b.press("Create")
	b.sees("This is the only time that the key is shown.")
	secret := eval[string](b, `document.querySelector("pre.secret").innerText`)
	works := func(secret string) int {
		return s.Do(s.HTTP1, "GET", "/v1/key", "", "Authorization", "Bearer "+secret).StatusCode
	}
	if got := works(secret); got != http.StatusOK {
		b.t.Errorf("the new key: %d", got)
	}
	b.press("I have it")
	b.press("Edit key bob-1")
	b.sees("Never used.")
	b.fill("Tokens a minute", "1000")
	b.press("Save")
	stack.Eventually(b.t, 10*time.Second, "the limit", func() bool {
		return strings.Contains(string(s.Admin("GET", "/admin/keys/bob-1", "").Bytes), `"limits":{"concurrent":3,"tokens_per_minute":1000}`)
	})
	b.press("Edit key bob-1")
	b.press("Rotate …")
	b.fill("The old secret works for", "0s")
	b.press("Rotate")
	b.sees("The old one has ended.")
	fresh := eval[string](b, `document.querySelector("pre.secret").innerText`)
	if works(secret) != http.StatusUnauthorized || works(fresh) != http.StatusOK {
		b.t.Errorf("after the rotation: old %d, new %d", works(secret), works(fresh))
	}
	b.press("I have it")
	b.press("Disable")
	stack.Eventually(b.t, 10*time.Second, "the key is refused", func() bool { return works(fresh) == http.StatusUnauthorized })
	b.press("Edit key bob-1")
	b.press("Delete …")
	b.press("Delete it")
	stack.Eventually(b.t, 10*time.Second, "the key is gone", func() bool { return s.Admin("GET", "/admin/keys/bob-1", "").StatusCode == http.StatusNotFound })
	b.good(stack.AdminKey, secret, fresh)
}

// The owner of a key sees that key and nothing else, on a phone too, and when
// nothing is left of its slots; the playground streams and counts.
func TestTheOwnerOfAKey(t *testing.T) {
	s := start(t)
	traffic(t, s, 1)
	b := open(t, s.URL, 390, 844)
	b.signIn(annKey)
	b.page("My key")
	b.sees("ann-laptop")
	b.accessible("my key")
	if pages := eval[int](b, `document.querySelectorAll("nav a").length`); pages != 1 {
		t.Errorf("%d pages for a key that is no administrator's", pages)
	}
	if wide := eval[bool](b, `document.documentElement.scrollWidth > 390`); wide {
		t.Error("the page is wider than a phone")
	}
	b.fill("Message", "Hello there")
	b.press("Send")
	b.sees("output tokens in")
	if text := b.text(); strings.Contains(text, "hostile") || strings.Contains(text, "owned") {
		t.Errorf("somebody else's: %s", text)
	}
	b.press("Sign out")
	b.sees("Sign in")
	b.good(annKey)
	if left := eval[string](b, "document.body.innerText"); strings.Contains(left, "ann-laptop") {
		t.Error("after signing out the page still shows the key")
	}
}

// Browsers are led to the console, programs are not; the page of somebody else may
// neither frame nor read it.
func TestTheDoor(t *testing.T) {
	s := start(t)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	a := s.Do(client, "GET", "/", "", "Accept", "text/html,application/xhtml+xml")
	if a.StatusCode != http.StatusFound || a.Header.Get("Location") != "/console/" {
		t.Errorf("a browser at /: %d, to %q", a.StatusCode, a.Header.Get("Location"))
	}
	if a := s.Do(s.HTTP1, "GET", "/", "", "Accept", "*/*"); a.StatusCode != http.StatusOK || !strings.Contains(string(a.Bytes), "tollgate") {
		t.Errorf("a program at /: %d %s", a.StatusCode, a.Bytes)
	}
	a = s.Do(s.HTTP1, "GET", "/console/", "", "Origin", "https://evil.example")
	if a.StatusCode != http.StatusOK || a.Header.Get("Access-Control-Allow-Origin") != "" || !strings.Contains(a.Header.Get("Content-Security-Policy"), "frame-ancestors 'none'") {
		t.Errorf("a foreign page: %d, allow %q, policy %q", a.StatusCode, a.Header.Get("Access-Control-Allow-Origin"), a.Header.Get("Content-Security-Policy"))
	}
	if a := s.Do(s.HTTP1, "GET", "/console/..%2fadmin/keys", ""); a.StatusCode != http.StatusNotFound {
		t.Errorf("a way out of the console: %d", a.StatusCode)
	}
	if a := s.Do(s.HTTP1, "POST", "/console/", ""); a.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST to the console: %d", a.StatusCode)
	}
}
