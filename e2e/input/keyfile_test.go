package input_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// keyFile has ann, the admin and n more keys.
func keyFile(n int) string {
	var b strings.Builder
	b.WriteString(`[{"key":"` + stack.Key + `","id":"ann","user":"ann"},{"key":"` + stack.AdminKey + `","id":"root","user":"admin"}`)
	for i := range n {
		fmt.Fprintf(&b, ",\n{\"key\":%q,\"id\":\"k%d\",\"user\":\"u\"}", extraKey(i), i)
	}
	return b.String() + "]\n"
}

func extraKey(i int) string { return fmt.Sprintf("sk-test-extra-%03d-0123456789ab", i) }

func passes(s *stack.Stack, key string) bool {
	return s.Do(s.HTTP1, "GET", "/v1/models", "", "Authorization", "Bearer "+key).StatusCode == http.StatusOK
}

func TestABrokenKeyFileChangesNothing(t *testing.T) {
	s := stack.Start(t, stack.Options{Keys: keyFile(12)})
	stop, failed, sent := load(t, s)
	good := keyFile(12)
	replace := func(content string) {
		s.Write("keys.tmp", content)
		if err := os.Rename(s.Path("keys.tmp"), s.Path("keys.json")); err != nil {
			t.Fatal(err)
		}
	}
	ok := func() float64 { return s.Metric("tollgate_config_last_reload_ok") }
	heal := func(after string) {
		s.Write("keys.json", good)
		stack.Eventually(t, 5*time.Second, "a good file to be taken after "+after, func() bool { return ok() == 1 })
	}
	for name, breakIt := range map[string]func(){
		"half written":  func() { s.Write("keys.json", good[:len(good)/2]) },
		"replaced":      func() { replace(`[{"key": 7}]`) },
		"unknown field": func() { replace(strings.Replace(good, `"user":"u"`, `"user":"u","qouta":5`, 1)) },
		"empty":         func() { s.Write("keys.json", "") },
		"twice the key": func() { replace(strings.Replace(good, extraKey(1), extraKey(2), 1)) },
		"vanished":      func() { _ = os.Remove(s.Path("keys.json")) },
	} {
		breakIt()
		stack.Eventually(t, 5*time.Second, name+" to be noticed", func() bool { return ok() == 0 })
		if !passes(s, stack.Key) || !passes(s, extraKey(11)) {
			t.Errorf("%s: the last good keys do not pass", name)
		}
		if a := s.Do(s.HTTP1, "GET", "/health", ""); a.StatusCode != http.StatusOK || a.JSON()["status"] != "degraded" {
			t.Errorf("%s: health is %d %s", name, a.StatusCode, a.Bytes)
		}
		a := s.Admin("POST", "/admin/reload-keys", "")
		if p := stack.Refusal(t, a); p.Status != http.StatusUnprocessableEntity || strings.Contains(string(a.Bytes), "sk-test") {
			t.Errorf("%s: reload-keys says %d %s", name, a.StatusCode, a.Bytes)
		}
		heal(name)
	}
	stop()
	if failed.Load() != 0 || sent.Load() == 0 {
		t.Errorf("%d of %d requests failed meanwhile", failed.Load(), sent.Load())
	}
	if strings.Contains(s.Tollgate.Output(), "sk-test-") {
		t.Error("a key is in the log")
	}
}

// load sends requests until stop is called and counts those that fail.
func load(t *testing.T, s *stack.Stack) (stop func(), failed, sent *atomic.Int64) {
	t.Helper()
	failed, sent = new(atomic.Int64), new(atomic.Int64)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				req, _ := http.NewRequest(http.MethodPost, s.URL+stack.ChatPath, strings.NewReader(hello))
				req.Header.Set("Authorization", "Bearer "+stack.Key)
				req.Header.Set("Content-Type", "application/json")
				resp, err := s.HTTP1.Do(req)
				sent.Add(1)
				if err != nil {
					failed.Add(1)
					continue
				}
				_, err = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if err != nil || resp.StatusCode != http.StatusOK {
					failed.Add(1)
				}
			}
		})
	}
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	return stop, failed, sent
}

func TestReloadingKeys(t *testing.T) {
	s := stack.Start(t, stack.Options{Keys: keyFile(12)})
	reload := func(query string) *stack.Answer { return s.Admin("POST", "/admin/reload-keys"+query, "") }
	want := func(a *stack.Answer, keys, enabled, changed float64) {
		t.Helper()
		got := a.JSON()
		if a.StatusCode != http.StatusOK || got["keys"] != keys || got["enabled"] != enabled || got["changed"] != changed || len(got) != 3 {
			t.Errorf("reload: %d %s, want %v %v %v", a.StatusCode, a.Bytes, keys, enabled, changed)
		}
	}
	want(reload(""), 14, 14, 0)
	s.Write("keys.json", strings.Replace(keyFile(13), `"id":"k3"`, `"enabled":false,"id":"k3"`, 1))
	if a := reload(""); a.StatusCode != http.StatusOK || a.JSON()["keys"] != 15.0 || a.JSON()["enabled"] != 14.0 {
		t.Errorf("reload after an edit: %d %s", a.StatusCode, a.Bytes) // "changed" is 0 where the watcher was first
	}
	if passes(s, extraKey(3)) || !passes(s, extraKey(12)) {
		t.Error("the edit is not in force")
	}
	s.Write("keys.json", keyFile(14))
	s.Tollgate.Signal(syscall.SIGHUP)
	stack.Eventually(t, time.Second, "SIGHUP to reload", func() bool { return passes(s, extraKey(13)) && passes(s, extraKey(3)) })

	shrunk(t, s, reload)
	want(reload("?force=true"), 4, 4, 12)
	if passes(s, extraKey(13)) || !passes(s, extraKey(1)) || s.Metric("tollgate_config_last_reload_ok") != 1 {
		t.Error("the forced file is not in force")
	}
}

// shrunk writes a file with a quarter of its 16 keys, which nothing but force takes.
func shrunk(t *testing.T, s *stack.Stack, reload func(query string) *stack.Answer) {
	t.Helper()
	s.Write("keys.json", keyFile(2))
	stack.Eventually(t, 5*time.Second, "the shrunk file to be refused", func() bool { return s.Metric("tollgate_config_last_reload_ok") == 0 })
	if a := reload(""); stack.Refusal(t, a).Status != http.StatusConflict || !passes(s, extraKey(13)) {
		t.Errorf("a shrunk file: %d %s", a.StatusCode, a.Bytes)
	}
	if a := reload("?force=maybe"); stack.Refusal(t, a).Param != "force" {
		t.Errorf("force=maybe: %d %s", a.StatusCode, a.Bytes)
	}
}

func TestAThousandReloadsFailNoRequest(t *testing.T) {
	s := stack.Start(t, stack.Options{Keys: keyFile(12)})
	stop, failed, sent := load(t, s)
	n := 100
	if os.Getenv("PROOF") != "" {
		n = 1000
	}
	for i := range n {
		s.Write("keys.json", keyFile(12+i%2))
		if a := s.Admin("POST", "/admin/reload-keys", ""); a.StatusCode != http.StatusOK {
			t.Fatalf("reload %d: %d %s", i, a.StatusCode, a.Bytes)
		}
	}
	stop()
	if failed.Load() != 0 || sent.Load() == 0 {
		t.Errorf("%d of %d requests failed during %d reloads", failed.Load(), sent.Load(), n)
	}
	t.Logf("%d reloads, %d requests, %d failed", n, sent.Load(), failed.Load())
}
