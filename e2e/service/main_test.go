// Package service_test proves through the real Envoy what tollgate promises to Envoys
// on other hosts: the right certificate passes and no other, certificates change while
// requests run, and strangers on the port hurt nobody.
package service_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"tollgate/e2e/stack"
	"tollgate/envoy"
	"tollgate/internal/certtest"
)

func TestMain(m *testing.M) {
	m.Run()
	stack.Clean()
}

const (
	serverName = "tollgate.example.org"
	envoyID    = "spiffe://example.org/ns/edge/sa/envoy"
)

// rig is a tollgate that listens for Envoys on other hosts, and one of those.
type rig struct {
	*stack.Stack
	t      *testing.T
	dir    string // of the certificates
	listen string
	server *certtest.Authority // has signed tollgate's certificate
	client *certtest.Authority // has signed Envoy's
	remote *envoy.Remote       // where Envoy finds tollgate
}

// start starts both. more is further configuration, change a last word about the place
// where Envoy finds tollgate.
func start(t *testing.T, more string, o stack.Options) *rig {
	t.Helper()
	r := &rig{
		t: t, dir: t.TempDir(), listen: fmt.Sprintf("127.0.0.1:%d", stack.FreePort(t)),
		server: certtest.New(t, "server"), client: certtest.New(t, "client"),
	}
	r.issueServer()
	r.issueClient()
	certtest.Write(t, r.dir, "client-ca.crt", r.client.PEM)
	certtest.Write(t, r.dir, "server-ca.crt", r.server.PEM)
	o.Config = more + r.section()
	r.remote = &envoy.Remote{
		Addresses: []string{r.listen}, Names: []string{serverName},
		CertFile: r.path("client.crt"), KeyFile: r.path("client.key"), CAFile: r.path("server-ca.crt"),
	}
	o.Remote = r.remote
	r.Stack = stack.Start(t, o)
	return r
}

// section is the service of the configuration.
func (r *rig) section() string {
	return fmt.Sprintf(`
service:
  listen: %s
  tls: {cert_file: %q, key_file: %q, client_ca_file: %q, client_ids: [%q]}
`, r.listen, r.path("server.crt"), r.path("server.key"), r.path("client-ca.crt"), envoyID)
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

// up waits until tollgate serves.
func (r *rig) up() {
	r.t.Helper()
	stack.Eventually(r.t, 20*time.Second, "tollgate to serve", func() bool {
		resp, err := r.HTTP1.Get(r.Scrape + "/healthz")
		if err == nil {
			_ = resp.Body.Close()
		}
		return err == nil
	})
}

// issueServer gives tollgate a new certificate.
func (r *rig) issueServer() {
	r.t.Helper()
	r.server.Issue(r.t, certtest.Leaf{Names: []string{serverName}}).Write(r.t, r.dir, "server")
}

// issueClient gives Envoy a new certificate.
func (r *rig) issueClient() {
	r.t.Helper()
	r.client.Issue(r.t, certtest.Leaf{Names: []string{envoyID}}).Write(r.t, r.dir, "client")
}

// hello asks over a connection for a page that needs no key. With TLS 1.3 a client hears
// only then that its certificate was refused.
func hello(conn net.Conn) error {
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, "GET /health HTTP/1.1\r\nHost: tollgate\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// dial connects to the port as a client with this certificate, or with none.
func (r *rig) dial(cert *tls.Certificate, alpn ...string) (*tls.Conn, error) {
	c := &tls.Config{RootCAs: r.server.Pool(), ServerName: serverName, NextProtos: alpn}
	if cert != nil { // also one of an authority that tollgate does not name
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	return tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", r.listen, c)
}
