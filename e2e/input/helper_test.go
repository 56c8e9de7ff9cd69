package input_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// drip writes one byte each 50 ms until the context or the connection ends.
func drip(ctx context.Context, conn net.Conn) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if _, err := conn.Write([]byte(" ")); err != nil {
				return
			}
		}
	}
}

func readAnswer(t *testing.T, conn net.Conn) *stack.Answer {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(15 * time.Second))
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: http.MethodPost})
	if err != nil {
		return &stack.Answer{Err: err}
	}
	defer func() { _ = resp.Body.Close() }()
	a := &stack.Answer{Response: resp}
	a.Bytes, a.Err = io.ReadAll(resp.Body)
	return a
}

// wantAnthropic checks an error answer in Anthropic's shape.
func wantAnthropic(t *testing.T, a *stack.Answer, status int, typ string) {
	t.Helper()
	if a.Response == nil {
		t.Errorf("no answer: %v", a.Err)
		return
	}
	body := a.JSON()
	e, _ := body["error"].(map[string]any)
	message, _ := e["message"].(string)
	if a.StatusCode != status || body["type"] != "error" || len(body) != 2 || e["type"] != typ || message == "" || len(e) != 2 ||
		a.Header.Get("Content-Type") != "application/json" {
		t.Errorf("got %d %s, want %d in Anthropic's shape with %s", a.StatusCode, a.Bytes, status, typ)
	}
}
