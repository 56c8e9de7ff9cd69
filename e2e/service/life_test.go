package service_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"tollgate/e2e/stack"
	"tollgate/internal/certtest"
	"tollgate/internal/ledger"
	"tollgate/internal/vllmsim"
)

// TestAKilledTollgateComesBack: while it is away clients get a 503 that says so, and
// afterwards everything is as before.
func TestAKilledTollgateComesBack(t *testing.T) {
	r := start(t, "", stack.Options{Sim: vllmsim.Options{Delay: 50 * time.Millisecond}})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.URL+stack.ChatPath, strings.NewReader(slow))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+stack.Key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := r.HTTP1.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	in := bufio.NewReader(resp.Body)
	if _, err := in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	r.Tollgate.Kill()
	if rest, err := io.ReadAll(in); err == nil && strings.Contains(string(rest), "[DONE]") {
		t.Error("a stream that nobody meters goes on")
	}
	for path, method := range map[string]string{stack.ChatPath: http.MethodPost, "/v1/models": http.MethodGet, "/health": http.MethodGet} {
		if a := r.Do(r.HTTP1, method, path, "", "Authorization", "Bearer "+stack.Key); a.StatusCode != http.StatusServiceUnavailable || a.ErrorCode() != "service_unavailable" {
			t.Errorf("%s while tollgate is away: %d %s", path, a.StatusCode, a.Bytes)
		}
	}
	r.Tollgate.Start()
	r.Ready()
	if rec := r.Settled(resp.Header.Get("x-request-id")); rec.Reason != ledger.GatewayCrash {
		t.Errorf("the row of the stream: %+v", rec)
	}
	if a := r.Post(stack.ChatPath, chat); a.StatusCode != http.StatusOK || a.Err != nil {
		t.Errorf("afterwards: %d %s", a.StatusCode, a.Bytes)
	}
	r.Idle(10 * time.Second)
}

// TestStrangersOnThePort: a thousand connections that say nothing, half a handshake,
// noise, plain HTTP, and a client that is known to no authority. Envoy, which makes new
// connections all the time, notices nothing.
func TestStrangersOnThePort(t *testing.T) {
	r := start(t, "", stack.Options{NoStart: true})
	r.Tollgate.Start()
	r.EnvoyWith(r.remote, func(bootstrap string) string {
		return strings.ReplaceAll(bootstrap, "max_connection_duration: 1200s", "max_connection_duration: 1s")
	}).Start()
	r.Ready()
	l := r.startLoad()
	defer l.stop()
	l.more(20)
	var open []net.Conn
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	for i := range 1000 {
		c, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(t.Context(), "tcp", r.listen)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
		// A write to a connection that was closed meanwhile is no mistake.
		switch i % 5 {
		case 0:
			_, _ = io.WriteString(c, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
		case 1:
			_, _ = io.WriteString(c, strings.Repeat("\xff\x00\x16", 400))
		case 2:
			_, _ = io.WriteString(c, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03") // the beginning of a handshake
		case 3:
			_, _ = io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
		}
	}
	stranger := certtest.New(t, "client").Issue(t, certtest.Leaf{Names: []string{envoyID}}).TLS(t)
	for range 50 {
		if conn, err := r.dial(&stranger, "h2"); err == nil {
			if hello(conn) == nil {
				t.Error("a certificate of another authority is served")
			}
			_ = conn.Close()
		}
	}
	r.reconnect()
	l.more(50)
	for reason, least := range map[string]float64{"handshake": 50, "unknown_ca": 50, "crowded": 1} {
		stack.Eventually(t, 20*time.Second, "strangers to be counted as "+reason, func() bool {
			return r.Metric("tollgate_service_connections_refused_total", "reason", reason) >= least
		})
	}
	stack.Eventually(t, 20*time.Second, "all strangers to be gone", func() bool {
		return r.Metric("tollgate_service_connections_refused_total") >= 1050
	})
	lines := 0
	for line := range strings.Lines(r.Tollgate.Output()) {
		if strings.Contains(line, "was refused") {
			lines++
		}
	}
	if lines > 40 {
		t.Errorf("%d lines about strangers", lines)
	}
}

// TestGRPCNeedsNoALPN: an Envoy whose bootstrap names no protocol is served, and so is
// one that speaks gRPC where it promised HTTP/1.1.
func TestGRPCNeedsNoALPN(t *testing.T) {
	r := start(t, "", stack.Options{NoStart: true})
	r.Tollgate.Start()
	r.up()
	cert := r.client.Issue(t, certtest.Leaf{Names: []string{envoyID}}).TLS(t)
	for _, alpn := range [][]string{nil, {"h2"}, {"http/1.1"}} {
		conn, err := grpc.NewClient("passthrough:tollgate", grpc.WithTransportCredentials(insecure.NewCredentials()), // TLS is the dialer's
			grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return r.dial(&cert, alpn...) }))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		got, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
		cancel()
		_ = conn.Close()
		if err != nil || got.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("gRPC with %v: %v, %v", alpn, got, err)
		}
		page, err := r.dial(&cert, alpn...)
		if err != nil {
			t.Fatal(err)
		}
		if err := hello(page); err != nil {
			t.Errorf("a page with %v: %v", alpn, err)
		}
		_ = page.Close()
	}
	if conn, err := tls.Dial("tcp", r.listen, &tls.Config{RootCAs: r.server.Pool(), ServerName: serverName, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		_ = conn.Close()
		t.Error("TLS 1.1 is spoken")
	}
}
