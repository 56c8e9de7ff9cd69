package vllmsim_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http/httptest"
	"strconv"
	"testing"

	"tollgate/internal/vllmsim"
)

// BenchmarkStream shows what one token of a metered stream costs, the client's
// side of the connection included.
func BenchmarkStream(b *testing.B) {
	srv := httptest.NewServer(vllmsim.New(vllmsim.Options{}))
	defer srv.Close()
	const tokens = 4096
	body := []byte(chat(`,"max_tokens":` + strconv.Itoa(tokens) + running))
	b.ReportAllocs()
	for range b.N {
		resp, err := srv.Client().Post(srv.URL+chatPath, "application/json", bytes.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		if err != nil || n < tokens*300 {
			b.Fatalf("read %d bytes: %v", n, err)
		}
		resp.Body.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*tokens), "ns/token")
}

func TestAThousandIdleStreamsAreAbortedAtOnce(t *testing.T) {
	const streams = 1000
	sim, srv := start(t, vllmsim.Options{})
	request := rawRequest(chatPath, chat(`,"max_tokens":100,"sim":{"pause_after":1}`+running))
	conns := make([]net.Conn, 0, streams)
	for range streams {
		conn, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
		if _, err := conn.Write(request); err != nil {
			t.Fatal(err)
		}
	}
	for _, conn := range conns {
		status, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || status != "HTTP/1.1 200 OK\r\n" {
			t.Fatalf("read status: got %q, %v", status, err)
		}
	}
	if s := sim.Stats(); s.Running != streams || s.MaxRunning != streams {
		t.Errorf("running: got %d, at most %d, want %d", s.Running, s.MaxRunning, streams)
	}
	for _, conn := range conns {
		conn.Close()
	}
	await(t, func() bool { return sim.Stats().Aborted == streams })
	if s := sim.Stats(); s.Running != 0 {
		t.Errorf("running: got %d, want 0", s.Running)
	}
}
