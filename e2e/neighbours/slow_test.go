package neighbours_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// TestABodyThatDoesNotComeIsRefused: long before body_timeout, with a 408 that
// says why, and its slot is free again.
func TestABodyThatDoesNotComeIsRefused(t *testing.T) {
	t.Parallel()
	s := stack.Start(t, stack.Options{})
	began := time.Now()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, strings.Replace(head("Content-Length: 100000"), attacker, stack.Key, 1)+`{"model":`)
	two := dialFrames(t, s, stack.Key, 0)
	two.data(`{"model":`, false)

	_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	one := &stack.Answer{Response: resp}
	one.Bytes, _ = io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	stack.WantProblem(t, one, stack.Problem{Status: 408, Type: "invalid_request_error", Code: "request_timeout"})
	code, body := two.status(30 * time.Second)
	if code != http.StatusRequestTimeout || !strings.Contains(body, "10 KiB") {
		t.Errorf("over HTTP/2: %d %s", code, body)
	}
	if took := time.Since(began); took < 9*time.Second || took > 40*time.Second {
		t.Errorf("after %v, want a little more than 10 s", took)
	}
	s.Idle(5 * time.Second)
	if n := s.Metric("tollgate_body_refusals_total", "reason", "slow"); n != 2 {
		t.Errorf("%v bodies counted as slow", n)
	}
	if n := s.Metric("tollgate_body_bytes_inflight"); n != 0 {
		t.Errorf("%v bytes are still held", n)
	}
}

// TestASmallHeapHurtsNobodyElse: while clients that read nothing keep Envoy at the
// bound of its heap, where it resets what holds much as far as it can tell, every
// request of another client succeeds.
func TestASmallHeapHurtsNobodyElse(t *testing.T) {
	const heap = 128 // MiB
	up := stack.StartUpstream(t, "", simOptions)
	s := stack.Start(t, stack.Options{
		Engine: up.Addr, EnvoyHeapMB: heap,
		Keys: `[{"key": "` + honest + `", "id": "honest", "user": "honest"}, {"key": "` + attacker + `", "id": "attacker", "user": "attacker"},
  {"key": "` + stack.AdminKey + `", "id": "root", "user": "admin"}]`,
	})
	c := newClient()
	t.Cleanup(c.CloseIdleConnections)
	ask(t, s, c, 10, "nobody")
	admin := stack.AdminOf(t, filepath.Join(s.Cfg.StateDir, "run", "envoy-admin.sock"))
	event := []byte("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"" + strings.Repeat("x", 16<<10) + "\"}}]}\n\n")
	// A client that asks for much and reads nothing.
	for range 2 {
		greedy, err := newFrames(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = greedy.conn.Close() })
		for range 150 {
			greedy.open(attacker, 0)
			greedy.data(`{"model":"tiny","stream":true,"messages":[{"role":"user","content":"`+
				up.On(&stack.Reply{ContentType: "text/event-stream", Pieces: [][]byte{bytes.Repeat(event, 200)}, End: "hang"})+`"}]}`, true)
		}
	}
	// It may have reset enough to be below the bound again.
	bound := regexp.MustCompile(`reset_high_memory_stream\.(active: 1|count: [1-9])`)
	last := ""
	defer func() { t.Log(last) }()
	stack.Eventually(t, 30*time.Second, "Envoy to be at the bound of its heap", func() bool {
		last = admin("/stats?filter=reset_high_memory|fixed_heap.pressure")
		return bound.MatchString(last)
	})
	ask(t, s, c, perRound, "clients that read nothing")
}
