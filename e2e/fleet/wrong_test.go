package fleet_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
	"tollgate/internal/vllmsim"
)

// says waits until the list of engines says something.
func says(t *testing.T, s *stack.Stack, what string) {
	t.Helper()
	stack.Eventually(t, wait, "the list of engines to say "+what, func() bool {
		return strings.Contains(string(s.Admin(http.MethodGet, "/admin/engines", "").Bytes), what)
	})
}

// TestAnEngineThatIsWrongHurtsNoOther: engines that list nothing, garbage or ten thousand
// names, that take a shorter context, that have two names or weight 0. Each is said, and
// requests for other models go on.
func TestAnEngineThatIsWrongHurtsNoOther(t *testing.T) {
	a := stack.NewEngine(t, vllmsim.Options{Models: []string{"m1"}, MaxModelLen: 4096})
	s := stack.Start(t, stack.Options{Engine: a.Addr})
	list := func(answer string) string {
		e := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/health" {
				_, _ = io.WriteString(w, answer)
			}
		}))
		t.Cleanup(e.Close)
		return strings.TrimPrefix(e.URL, "http://")
	}
	many := make([]string, 10_000)
	for i := range many {
		many[i] = fmt.Sprintf("adapter-%d", i)
	}
	_, port, _ := net.SplitHostPort(a.Addr)
	for _, c := range []struct{ name, address, says string }{
		{"lists nothing", list(`{"object":"list","data":[]}`), "lists no model"},
		{"answers garbage", list("\x00\xff<html>{{{"), "list models"},
		{"is longer than any list", list(`{"data":[{"id":"` + strings.Repeat("x", 17<<20) + `"}]}`), "too long"},
		{"takes less", stack.NewEngine(t, vllmsim.Options{Models: []string{"m1"}, MaxModelLen: 1024}).Addr, "the engines of m1 have different context lengths, and the smallest counts"},
		{"has two names", "localhost:" + port, "are the same engine"},
		{"lists 10,000 names", stack.NewEngine(t, vllmsim.Options{Models: many}).Addr, many[9_999]},
	} {
		add(t, s, c.address)
		says(t, s, c.says)
		if got := ask(s, "m1"); got.StatusCode != http.StatusOK {
			t.Errorf("beside an engine that %s: %d %s", c.name, got.StatusCode, got.Bytes)
		}
	}
	for _, name := range []string{many[0], many[5_000], many[9_999]} {
		served(t, s, name)
	}
	if got := s.Admin(http.MethodPost, "/admin/engines", `{"address":"127.0.0.1:9","weight":0}`); got.StatusCode != http.StatusBadRequest ||
		!bytes.Contains(got.Bytes, []byte("whole number from 1 to 1000")) {
		t.Errorf("weight 0: %d %s", got.StatusCode, got.Bytes)
	}
	// 2,000 tokens fit into the larger context alone, and a request may go to either.
	if got := s.Post(stack.ChatPath, chat("m1", false, 2000, "")); got.StatusCode != http.StatusBadRequest {
		t.Errorf("more than the smaller context: %d %s", got.StatusCode, got.Bytes)
	}
}

// TestAnEngineChangesItsListUnderAStream: the stream of an adapter that is taken away
// ends well and is charged to its name; the next request for it is a 404, and an
// adapter that has come is served.
func TestAnEngineChangesItsListUnderAStream(t *testing.T) {
	e := stack.NewEngine(t, vllmsim.Options{Models: []string{"m1"}, EnableLoRA: true, Adapters: map[string]string{"old": "/nowhere"}})
	s := stack.Start(t, stack.Options{Engine: e.Addr})
	served(t, s, "old")
	got, stop := s.Open(s.HTTP1, stack.Key, chat("old", true, 40, `"delay_ms":60`))
	defer stop()
	resp, err := http.Post("http://"+e.Addr+"/v1/unload_lora_adapter", "application/json", strings.NewReader(`{"lora_name":"old"}`))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	stack.Eventually(t, wait, "the adapter to be gone", func() bool { return ask(s, "old").StatusCode == http.StatusNotFound })
	body, err := io.ReadAll(got.Body)
	if err != nil || !strings.Contains(string(body), "data: [DONE]") {
		t.Errorf("the stream: %v, its end: %.100s", err, body[max(0, len(body)-100):])
	}
	if r := s.Settled(got.RequestID()); r.Model != "old" || r.Reason != ledger.Complete || r.Counts.Completion != 40 {
		t.Errorf("its row: %+v", r)
	}
	if got := ask(s, "m1"); got.StatusCode != http.StatusOK {
		t.Errorf("the model itself: %d %s", got.StatusCode, got.Bytes)
	}
}

// TestWhoMayNameAnEngine: who names one receives the prompts of everybody.
func TestWhoMayNameAnEngine(t *testing.T) {
	a := stack.NewEngine(t, vllmsim.Options{Models: []string{"m1"}})
	b := stack.NewEngine(t, vllmsim.Options{Models: []string{"m2"}})
	const launcher = "sk-test-launcher-0123456789abc"
	s := stack.Start(t, stack.Options{Engine: a.Addr, Keys: `[
		{"key": "` + stack.Key + `", "id": "ann", "user": "ann"},
		{"key": "` + stack.AdminKey + `", "id": "root", "user": "admin"},
		{"key": "` + launcher + `", "id": "gpu-1", "user": "launcher"}]`})
	for _, c := range []struct {
		name, key, address string
		want               int
		header             []string
	}{
		{"nobody", "", b.Addr, http.StatusUnauthorized, nil},
		{"a stranger", "sk-test-nobody-0123456789abcde", b.Addr, http.StatusUnauthorized, nil},
		{"a user", stack.Key, b.Addr, http.StatusForbidden, nil},
		{"a launcher, for another host", launcher, "127.0.0.2:8000", http.StatusForbidden, nil},
		{"a launcher that says it is another host", launcher, "127.0.0.2:8000", http.StatusForbidden, []string{"X-Forwarded-For", "127.0.0.2", "x-tollgate-client", "127.0.0.2"}},
		{"a launcher, for its own host", launcher, b.Addr, http.StatusCreated, nil},
	} {
		header := c.header
		if c.key != "" {
			header = append(header, "Authorization", "Bearer "+c.key)
		}
		if got := s.Do(s.HTTP1, http.MethodPost, "/admin/engines", fmt.Sprintf(`{"address":%q}`, c.address), header...); got.StatusCode != c.want {
			t.Errorf("%s: %d %s, want %d", c.name, got.StatusCode, got.Bytes, c.want)
		}
	}
	served(t, s, "m2")
	// Nor does a client choose among them.
	for range 5 {
		got := s.Post(stack.ChatPath, chat("m1", false, 1, ""), "x-gateway-destination-endpoint", b.Addr)
		if got.StatusCode != http.StatusOK || s.Settled(got.RequestID()).Engine != a.Addr {
			t.Errorf("a client names the engine: %d %s", got.StatusCode, got.Bytes)
		}
	}
	if got := s.Do(s.HTTP1, http.MethodPost, stack.ChatPath, chat("m1", false, 1, ""), "Authorization", "Bearer "+launcher); got.StatusCode != http.StatusForbidden {
		t.Errorf("a launcher's key asks a model: %d %s", got.StatusCode, got.Bytes)
	}
}
