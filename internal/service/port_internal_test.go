package service

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"tollgate/internal/certtest"
	"tollgate/internal/mtls"
)

const clientID = "spiffe://example.org/ns/edge/sa/envoy"

// rig is a port whose two halves answer each connection with a line.
type rig struct {
	*Port
	t              *testing.T
	dir            string
	server, client *certtest.Authority
	certificates   *Certificates
	metrics        *Metrics
	right          tls.Certificate
	log            *strings.Builder
}

func newRig(t *testing.T, change func(*Port)) *rig {
	t.Helper()
	before := goleak.IgnoreCurrent()
	r := &rig{
		t: t, dir: t.TempDir(), server: certtest.New(t, "server"), client: certtest.New(t, "client"),
		metrics: NewMetrics(nil), log: new(strings.Builder),
	}
	log := hclog.New(&hclog.LoggerOptions{Output: r.log})
	r.issue(certtest.Leaf{Names: []string{"tollgate.test"}})
	certtest.Write(t, r.dir, "ca.crt", r.client.PEM)
	r.right = r.client.Issue(t, certtest.Leaf{Names: []string{clientID}}).TLS(t)
	var err error
	files := mtls.Files{Cert: r.dir + "/server.crt", Key: r.dir + "/server.key", ClientCA: r.dir + "/ca.crt"}
	if r.certificates, err = NewCertificates(files, mtls.Names{clientID, "envoy.test"}, log, r.metrics); err != nil {
		t.Fatal(err)
	}
	if r.Port, err = Listen(t.Context(), "127.0.0.1:0", r.certificates, log, r.metrics); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(r.Port)
	}
	done := make(chan error, 3)
	for word, half := range map[string]net.Listener{"grpc": r.GRPC(), "http": r.HTTP()} {
		go func() { done <- answer(half, word) }()
	}
	go func() { done <- r.Serve() }()
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		for range 3 {
			if err := <-done; err != nil && !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		}
		goleak.VerifyNone(t, before)
	})
	return r
}

// answer says to each connection which half it came to, and what its first line was.
func answer(half net.Listener, word string) error {
	for {
		conn, err := half.Accept()
		if err != nil {
			return err
		}
		line, _ := bufio.NewReader(conn).ReadString('\n')
		_, _ = fmt.Fprintf(conn, "%s %s\n", word, strings.TrimSpace(line))
		_ = conn.Close()
	}
}

func (r *rig) issue(l certtest.Leaf) { r.server.Issue(r.t, l).Write(r.t, r.dir, "server") }

// dial does a handshake.
func (r *rig) dial(change func(*tls.Config)) (*tls.Conn, error) {
	c := &tls.Config{RootCAs: r.server.Pool(), ServerName: "tollgate.test", Certificates: []tls.Certificate{r.right}}
	if change != nil {
		change(c)
	}
	return tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", r.Addr().String(), c)
}

// ask sends a line and returns the answer. With TLS 1.3 a client hears of its refusal
// only then.
func (r *rig) ask(line string, change func(*tls.Config)) (string, error) {
	conn, err := r.dial(change)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, line); err != nil {
		return "", err
	}
	return bufio.NewReader(conn).ReadString('\n')
}

func (r *rig) refused(why reason) float64 {
	return testutil.ToFloat64(r.metrics.refused.WithLabelValues(string(why)))
}

// TestOnlyTheRightCertificateConnects, with either version of TLS; each other one is
// counted by its reason.
func TestOnlyTheRightCertificateConnects(t *testing.T) {
	r := newRig(t, nil)
	leaf := func(a *certtest.Authority, l certtest.Leaf) []tls.Certificate {
		return []tls.Certificate{a.Issue(t, l).TLS(t)}
	}
	other := certtest.New(t, "client") // of the same name
	for name, c := range map[string]struct {
		certs []tls.Certificate
		why   reason // "" passes
	}{
		"a SPIFFE id":      {[]tls.Certificate{r.right}, ""},
		"a DNS name":       {leaf(r.client, certtest.Leaf{Names: []string{"other.test", "Envoy.test"}}), ""},
		"none":             {nil, noCertificate},
		"another CA":       {leaf(other, certtest.Leaf{Names: []string{clientID}}), unknownCA},
		"tollgate's CA":    {leaf(r.server, certtest.Leaf{Names: []string{clientID}}), unknownCA},
		"expired":          {leaf(r.client, certtest.Leaf{Names: []string{clientID}, Until: time.Now().Add(-time.Minute)}), expired},
		"another identity": {leaf(r.client, certtest.Leaf{Names: []string{"spiffe://example.org/ns/edge/sa/other", "127.0.0.1"}}), wrongName},
		"a longer one":     {leaf(r.client, certtest.Leaf{Names: []string{clientID + "/x", "a.envoy.test"}}), wrongName},
		"a wildcard":       {leaf(r.client, certtest.Leaf{Names: []string{"*.test"}}), wrongName},
		"no name":          {leaf(r.client, certtest.Leaf{}), wrongName},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			before := 0.0
			if c.why != "" {
				before = r.refused(c.why)
			}
			got, err := r.ask("GET / HTTP/1.1\r\n", func(conf *tls.Config) {
				conf.Certificates, conf.MaxVersion = nil, version
				if c.certs != nil { // also one that the server did not ask for
					conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c.certs[0], nil }
				}
			})
			if (err == nil) != (c.why == "") || c.why == "" && got != "http GET / HTTP/1.1\n" {
				t.Errorf("%s, %s: %q, %v", name, tls.VersionName(version), got, err)
			}
			if c.why != "" {
				eventually(t, name+" to be counted as "+string(c.why), func() bool { return r.refused(c.why) == before+1 })
			}
		}
	}
	if _, err := r.ask("GET / HTTP/1.1\r\n", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
}

// TestTheFirstBytesTellTheProtocol, whatever the ALPN says.
func TestTheFirstBytesTellTheProtocol(t *testing.T) {
	r := newRig(t, nil)
	for line, want := range map[string]string{
		"PRI * HTTP/2.0\r\n": "grpc", "POST / HTTP/1.1\r\n": "http", "PUT / HTTP/1.1\r\n": "http", "PROPFIND / HTTP/1.1\r\n": "http", "GET / HTTP/1.0\r\n": "http",
	} {
		for _, alpn := range [][]string{nil, {"h2"}, {"http/1.1"}, {"h2", "http/1.1"}} {
			got, err := r.ask(line, func(c *tls.Config) { c.NextProtos = alpn })
			if err != nil || got != want+" "+strings.TrimSpace(line)+"\n" {
				t.Errorf("%q with %v: %q, %v", line, alpn, got, err)
			}
		}
	}
}

// TestStrangersAreBounded: a thousand connections that say nothing keep nobody out, and
// most of them are closed long before their time.
func TestStrangersAreBounded(t *testing.T) {
	r := newRig(t, func(p *Port) { p.patience = time.Minute })
	var idle []net.Conn
	defer func() {
		for _, c := range idle {
			_ = c.Close()
		}
	}()
	for range 1000 {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", r.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	for range 20 {
		if got, err := r.ask("GET / HTTP/1.1\r\n", nil); err != nil {
			t.Errorf("behind a thousand: %q, %v", got, err)
		}
	}
	closed := 0
	for _, c := range idle[:1000-greeted] {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 1)); errors.Is(err, io.EOF) || strings.Contains(fmt.Sprint(err), "reset") {
			closed++
		}
	}
	if closed != 1000-greeted {
		t.Errorf("%d of the first %d are closed", closed, 1000-greeted)
	}
	eventually(t, "all of them to be counted", func() bool { return r.refused(crowded) >= 1000-greeted })
	if n := strings.Count(r.log.String(), "reason=crowded"); n != 1 {
		t.Errorf("%d lines about them, want 1", n)
	}
}

// TestNonsenseEndsSoon: what is no TLS, a handshake that stops in the middle, and one
// that is followed by nothing.
func TestNonsenseEndsSoon(t *testing.T) {
	r := newRig(t, func(p *Port) { p.patience = 300 * time.Millisecond })
	for name, c := range map[string]struct {
		text string
		why  reason
	}{
		"plain HTTP":   {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", badHandshake},
		"garbage":      {strings.Repeat("\xff\x00", 40), badHandshake},
		"half a hello": {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", slow},
		"nothing":      {"", slow},
	} {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", r.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		before := r.refused(c.why)
		_, _ = io.WriteString(conn, c.text)
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: %v", name, err)
		}
		_ = conn.Close()
		eventually(t, name+" to be counted as "+string(c.why), func() bool { return r.refused(c.why) == before+1 })
	}
	silent, err := r.dial(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	_ = silent.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := silent.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("after a handshake, silent: %v", err)
	}
	if got, err := r.ask("GET / HTTP/1.1\r\n", nil); err != nil {
		t.Errorf("afterwards: %q, %v", got, err)
	}
}

// TestConnectionsAreCounted while they are open.
func TestConnectionsAreCounted(t *testing.T) {
	r := newRig(t, nil)
	open := r.metrics.connections.WithLabelValues(protocolHTTP)
	conn, err := r.dial(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "GET"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "one connection", func() bool { return testutil.ToFloat64(open) == 1 })
	_ = conn.Close()
	eventually(t, "no connection", func() bool { return testutil.ToFloat64(open) == 0 })
}

// TestAPageOverAnHTTPServer: net/http takes the connections as they are.
func TestAPageOverAnHTTPServer(t *testing.T) {
	r := newRig(t, nil)
	_ = r.http.Close() // the rig's own server
	half := newHalf(r.Addr())
	r.http = half
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		_, _ = io.WriteString(w, q.Method+" "+q.URL.Path)
	})}
	done := make(chan error, 1)
	go func() { done <- server.Serve(half) }()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.server.Pool(), ServerName: "tollgate.test", Certificates: []tls.Certificate{r.right}}}}
	for range 3 {
		resp, err := client.Post("https://"+r.Addr().String()+"/x", "text/plain", strings.NewReader(strings.Repeat("y", 5000)))
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if string(text) != "POST /x" {
			t.Errorf("%s", text)
		}
	}
	client.CloseIdleConnections()
	if err := server.Shutdown(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
