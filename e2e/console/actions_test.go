package console_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cdpbrowser "github.com/chromedp/cdproto/browser"

	"tollgate/e2e/stack"
)

const keysOfAHost = `[{"key":"` + stack.AdminKey + `","id":"root","user":"admin"},{"key":"` + annKey + `","id":"ann-laptop","user":"ann","limits":{"concurrent":4}}]`

// What an administrator may do on a host with a launcher: cut a key, take it back,
// rotate it with a countdown, save a report, look at one request and at a log, load and
// unload an adapter, restart the engine.
func TestActionsOnAHost(t *testing.T) {
	s := stack.StartHost(t, keysOfAHost)
	done := s.Do(s.HTTP1, "POST", stack.ChatPath, stack.Chat(false, 20, ""), "Authorization", "Bearer "+annKey)
	b := open(t, s.URL, 1440, 900)
	b.signIn(stack.AdminKey)
	cutsAKey(b, s)
	rotatesWithACountdown(b, s)
	savesAReport(b)
	b.page("Requests")
	b.press("Show request " + done.RequestID())
	b.sees("It ended as “complete”, counted exact.")
	b.press("Close")
	b.page("Engines")
	b.fill("Log", "gateway.log")
	b.sees("request_id")
	b.fill("Adapter", "support")
	b.press("Load")
	b.sees("The adapter is loaded.")
	b.press("Unload")
	b.sees("The adapter is unloaded.")
	b.press("Restart vllm")
	b.press("Restart it")
	b.sees("vllm is being restarted.")
	stack.Eventually(t, 60*time.Second, "the engine to be there again, after a restart that somebody asked for", func() bool {
		var hosts struct {
			Hosts []struct {
				Children []struct {
					Name, State string
					By          struct{ Asked int } `json:"restarts_by"`
				}
			}
		}
		_ = json.Unmarshal(s.Admin("GET", "/admin/children", "").Bytes, &hosts)
		for _, h := range hosts.Hosts {
			for _, c := range h.Children {
				if c.Name == "vllm" && c.State == "ready" && c.By.Asked == 1 {
					return true
				}
			}
		}
		return false
	})
	b.good(stack.AdminKey)
}

func cutsAKey(b *browser, s *stack.Stack) {
	b.t.Helper()
	live, cancel := s.Open(s.HTTP1, annKey, stack.Chat(true, 5000, `"delay_ms":100`))
	defer cancel()
	b.page("Live")
	b.press("Disable key ann-laptop")
	b.press("Disable it")
	b.sees("The key is disabled.")
	if r := s.Settled(live.RequestID()); r.Reason != "revoked" {
		b.t.Errorf("the stream of a key that was cut ended as %q", r.Reason)
	}
	b.page("Keys")
	b.press("Edit key ann-laptop")
	b.press("Enable")
	stack.Eventually(b.t, 10*time.Second, "the key opens again", func() bool {
		return s.Do(s.HTTP1, "GET", "/v1/key", "", "Authorization", "Bearer "+annKey).StatusCode == http.StatusOK
	})
}

func rotatesWithACountdown(b *browser, s *stack.Stack) {
	b.t.Helper()
	b.press("Edit key ann-laptop")
	b.press("Rotate …")
	b.fill("The old secret works for", "1h")
	b.press("Rotate")
	b.sees("The old one ends in")
	b.sees("export OPENAI_BASE_URL=" + s.URL + "/v1")
	fresh := eval[string](b, `document.querySelector("pre.secret").innerText`)
	for _, secret := range []string{annKey, fresh} {
		if got := s.Do(s.HTTP1, "GET", "/v1/key", "", "Authorization", "Bearer "+secret).StatusCode; got != http.StatusOK {
			b.t.Errorf("during the grace: %d", got)
		}
	}
	b.press("I have it")
	b.press("Close")
}

// savesAReport: the file has what the table shows.
func savesAReport(b *browser) {
	b.t.Helper()
	folder := b.t.TempDir()
	b.do("downloads", cdpbrowser.SetDownloadBehavior(cdpbrowser.SetDownloadBehaviorBehaviorAllow).WithDownloadPath(folder))
	b.page("Usage")
	b.sees("ann")
	b.press("Save as CSV")
	path := filepath.Join(folder, "usage-by-user.csv")
	stack.Eventually(b.t, 20*time.Second, "the file", func() bool {
		info, err := os.Stat(path)
		return err == nil && info.Size() > 0
	})
	file, err := os.ReadFile(path)
	if err != nil {
		b.t.Fatal(err)
	}
	if lines := strings.Split(string(file), "\n"); lines[0] != "user,requests,prompt_tokens,cached_tokens,completion_tokens,total_tokens,errors" || !strings.HasPrefix(lines[1], "ann,2,") {
		b.t.Errorf("the file says\n%s", file)
	}
}

// The page of a key works when its quota and its slots are spent, and says so.
func TestTheOwnerOfASpentKey(t *testing.T) {
	s := stack.Start(t, stack.Options{Keys: `[{"key":"` + stack.AdminKey + `","id":"root","user":"admin"},
		{"key":"` + annKey + `","id":"ann-laptop","user":"ann","quota":1000,"quota_period":"day","limits":{"concurrent":1}}]`})
	_, cancel := s.Open(s.HTTP1, annKey, stack.Chat(true, 900, `"delay_ms":200`))
	defer cancel()
	b := open(t, s.URL, 390, 844)
	b.signIn(annKey)
	b.page("My key")
	b.sees("ann-laptop")
	b.fill("Message", "Hello there")
	b.press("Send")
	b.sees("as many requests at once as it may")
	b.page("My key")
	b.sees("ann-laptop")
	b.good(annKey)
}
