package faults_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/internal/ledger"
)

// TestDrain stops an Envoy that no launcher runs as docs/envoy.md says: what runs is
// finished and metered, and nothing new comes in.
func TestDrain(t *testing.T) {
	s := stack.Start(t, stack.Options{})
	live, _ := s.Open(&http.Client{Transport: &http.Transport{}}, stack.Key, stack.Chat(true, 20, `"delay_ms":150`))
	if live.StatusCode != http.StatusOK {
		t.Fatalf("status %d", live.StatusCode)
	}
	type end struct {
		code      int
		out, said string
	}
	drained := make(chan end, 1)
	go func() {
		code, out, said := s.Command("envoy", "drain", "--delay", "500ms")
		drained <- end{code, out, said}
	}()
	stack.Eventually(t, 10*time.Second, "new connections to be refused", func() bool {
		conn, err := net.Dial("tcp", s.Addr())
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	select {
	case e := <-drained:
		t.Fatalf("it has returned while a request runs: %+v", e)
	default:
	}
	answer, err := io.ReadAll(live.Body)
	if err != nil || !bytes.HasSuffix(bytes.TrimSpace(answer), []byte("data: [DONE]")) {
		t.Errorf("the live answer: %v\n%s", err, answer)
	}
	if e := <-drained; e.code != 0 || !strings.Contains(e.out, "no request runs") {
		t.Errorf("drain: %+v", e)
	}
	if r := s.Settled(live.RequestID()); r.Reason != ledger.Complete {
		t.Errorf("the row ended as %s", r.Reason)
	}
	s.Envoy.Kill()
	if code, _, said := s.Command("envoy", "drain"); code != 1 || !strings.Contains(said, "ask envoy") {
		t.Errorf("without an Envoy: %d %s", code, said)
	}
}
