package envoy_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tollgate/internal/config"
)

func TestEngineThatIsDownIsEngineUnavailable(t *testing.T) {
	e := startEdge(t, func(*config.Config) {})
	unavailable := func(when string) {
		t.Helper()
		a := e.do(t, "POST", "/v1/completions", strings.NewReader("{}"))
		if _, code := a.openAIError(t); a.status != 503 || code != "engine_unavailable" || a.header.Get("Retry-After") == "" {
			t.Errorf("%s: got %d %s", when, a.status, a.body)
		}
	}
	e.engine.setSick(true)
	eventually(t, "the engine known to be sick", func() bool {
		return e.do(t, "POST", "/v1/completions", strings.NewReader("{}")).status == 503
	})
	unavailable("sick")
	e.engine.setSick(false)
	eventually(t, "the engine well again", func() bool {
		return e.do(t, "POST", "/v1/completions", strings.NewReader("{}")).status == 200
	})
	e.upstream.Close()
	unavailable("refusing") // before the next health check, or after it
}

func TestEngineThatDoesNotAcceptIsEngineUnavailable(t *testing.T) {
	// A listener whose queue is full: the kernel drops what comes next.
	e := startEdge(t, func(c *config.Config) { c.VLLM.Host, c.VLLM.Port = full(t) })
	a := e.do(t, "POST", "/v1/completions", strings.NewReader("{}"))
	if _, code := a.openAIError(t); a.status != 503 || code != "engine_unavailable" {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

func TestEnginesByNameAreReached(t *testing.T) {
	e := startEdge(t, func(c *config.Config) { c.VLLM.Host = "localhost" })
	eventually(t, "an answer of localhost", func() bool {
		return e.do(t, "POST", "/v1/completions", strings.NewReader("{}")).status == 200
	})
}

func TestEnginesKeyIsInjectedAndKeptSecret(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("sk-engine-secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := startEdge(t, func(c *config.Config) { c.VLLM.APIKeyFile = file })
	if a := e.do(t, "POST", "/v1/completions", strings.NewReader("{}"), "authorization", "Bearer sk-client"); a.status != 200 {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	got, _ := e.engine.seen()
	if values := got.Values("Authorization"); len(values) != 1 || values[0] != "Bearer sk-engine-secret" {
		t.Errorf("vLLM got %q", values)
	}
	e.do(t, "GET", "/health", http.NoBody)
	if strings.Contains(e.admin(http.MethodGet, "/config_dump"), "sk-engine-secret") {
		t.Error("the admin page shows the key")
	}
	doc, err := os.ReadFile(filepath.Join(e.state, "run", "envoy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(doc), "sk-engine-secret") {
		t.Error("the bootstrap contains the key")
	}
}

func TestCertificatesAreSwappedWithoutARestart(t *testing.T) {
	dir := t.TempDir()
	writePair(t, dir, "first.test")
	e := startEdge(t, func(c *config.Config) { c.TLS = pairIn(dir) })
	name := func() string {
		conn, err := tls.Dial("tcp", e.addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
		if err != nil {
			return err.Error()
		}
		defer conn.Close()
		if got := conn.ConnectionState().NegotiatedProtocol; got != "h2" {
			t.Errorf("protocol: got %q, want h2", got)
		}
		return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	if got := name(); got != "first.test" {
		t.Fatalf("certificate: got %s, want first.test", got)
	}
	writePair(t, dir, "second.test")
	eventually(t, "the new certificate", func() bool { return name() == "second.test" })
	old := &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11}
	if conn, err := tls.Dial("tcp", e.addr, old); err == nil {
		conn.Close()
		t.Error("TLS 1.1 was accepted")
	}
}

func TestDrainLetsStreamsFinish(t *testing.T) {
	e := startEdge(t, func(*config.Config) {})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+e.addr+"/v1/completions", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("x-test-engine", "stream")
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body := bufio.NewReader(resp.Body)
	if line, err := body.ReadString('\n'); err != nil || line != "data: 1\n" {
		t.Fatalf("first event: %q %v", line, err)
	}
	if got := e.admin(http.MethodGet, "/stats?filter=http.edge.downstream_rq_active"); !strings.Contains(got, "downstream_rq_active: 1") {
		t.Errorf("a live stream is not counted: %q", got)
	}
	if got := e.admin(http.MethodPost, "/drain_listeners"); !strings.Contains(got, "OK") {
		t.Fatalf("drain: %q", got)
	}
	eventually(t, "new connections refused", func() bool {
		conn, err := net.DialTimeout("tcp", e.addr, time.Second)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	rest, err := io.ReadAll(body)
	if err != nil || !strings.HasSuffix(string(rest), "data: [DONE]\n\n") {
		t.Errorf("the stream was cut: %q %v", rest, err)
	}
	eventually(t, "no request left", func() bool {
		return strings.Contains(e.admin(http.MethodGet, "/stats?filter=http.edge.downstream_rq_active"), "downstream_rq_active: 0")
	})
}

// full is the address of a listener that accepts nothing any more.
func full(t *testing.T) (string, int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatal("not TCP")
	}
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { err = shrinkBacklog(fd) }); err != nil {
		t.Fatal(err)
	}
	for {
		conn, err := net.DialTimeout("tcp", addr.String(), 200*time.Millisecond)
		if err != nil {
			return "127.0.0.1", addr.Port
		}
		t.Cleanup(func() { conn.Close() })
	}
}
