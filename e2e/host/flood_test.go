package host_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// TestIdleConnectionsTakeNoStream: with few file descriptors and more idle
// connections than there are, live streams end whole, the admin page answers, and
// the launcher kills nothing; and when they have gone there is room again.
func TestIdleConnectionsTakeNoStream(t *testing.T) {
	h := newHost(t)
	h.Cmd.Args = []string{"sh", "-c", `ulimit -n 1024 && exec "$0" "$@"`, h.Cmd.Path, "up", "--config", "config.yaml"}
	h.Cmd.Path = "/bin/sh"
	h.up()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var streams sync.WaitGroup
	begun := make(chan struct{}, 5)
	for range cap(begun) {
		streams.Go(func() {
			if err := h.whole(ctx, begun); err != nil {
				t.Error(err)
			}
		})
	}
	for range cap(begun) {
		select {
		case <-begun:
		case <-ctx.Done():
			t.Fatal("a stream has not begun")
		}
	}
	var idle []net.Conn
	for range 1300 {
		conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", strings.TrimPrefix(h.URL, "http://"))
		if err != nil {
			break // no room in the queue of the kernel: as good as refused
		}
		idle = append(idle, conn)
	}
	if len(idle) < 1000 {
		t.Fatalf("only %d connections", len(idle))
	}
	streams.Wait()
	admin := stack.AdminOf(t, filepath.Join(h.Dir, "state", "run", "envoy-admin.sock"))
	if ready := admin("/ready"); !strings.Contains(ready, "LIVE") {
		t.Errorf("the admin page says %q", ready)
	}
	if text := h.Said(); strings.Contains(text, "missed") || !strings.Contains(text, "limit of open files is 1024") {
		t.Errorf("the launcher said:\n%s", text)
	}
	for _, c := range idle {
		_ = c.Close()
	}
	stack.Eventually(t, 20*time.Second, "a new client to be served", func() bool {
		resp, err := http.Get(h.URL + "/health")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// whole reads an answer of some seconds to its end.
func (h *host) whole(ctx context.Context, begun chan<- struct{}) error {
	body := `{"model":"simulated","stream":true,"max_tokens":40,"messages":[{"role":"user","content":"hi"}],"sim":{"tokens":40,"delay_ms":200}}`
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer sk-default-key-change-me")
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	first := make([]byte, 1)
	_, err = io.ReadFull(resp.Body, first)
	begun <- struct{}{}
	if err != nil {
		return fmt.Errorf("status %d: %w", resp.StatusCode, err)
	}
	rest, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(rest), "[DONE]") {
		return fmt.Errorf("a live stream was cut: status %d, %d bytes, %w", resp.StatusCode, len(rest), err)
	}
	return nil
}
