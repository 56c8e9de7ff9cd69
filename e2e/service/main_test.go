// Package service_test proves through the real Envoy what tollgate promises to Envoys
// on other hosts: the right certificate passes and no other, certificates change while
// requests run, and strangers on the port hurt nobody.
package service_test

import (
	"crypto/tls"
	"fmt"
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
	o.Config = more + fmt.Sprintf(`
service:
  listen: %s
  tls: {cert_file: %q, key_file: %q, client_ca_file: %q, client_ids: [%q]}
`, r.listen, r.path("server.crt"), r.path("server.key"), r.path("client-ca.crt"), envoyID)
	o.Remote = &envoy.Remote{
		Addresses: []string{r.listen}, Names: []string{serverName},
		CertFile: r.path("client.crt"), KeyFile: r.path("client.key"), CAFile: r.path("server-ca.crt"),
	}
	r.Stack = stack.Start(t, o)
	return r
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

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

// dial connects to the port as a client with this certificate, or with none.
func (r *rig) dial(cert *tls.Certificate, alpn ...string) (*tls.Conn, error) {
	c := &tls.Config{RootCAs: r.server.Pool(), ServerName: serverName, NextProtos: alpn}
	if cert != nil {
		c.Certificates = []tls.Certificate{*cert}
	}
	return tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", r.listen, c)
}

func TestTheRightCertificatePasses(t *testing.T) {
	r := start(t, "", stack.Options{})
	a := r.Post(stack.ChatPath, `{"model":"tiny","max_tokens":40,"stream":true,"messages":[{"role":"user","content":"hello"}]}`)
	if a.StatusCode != http.StatusOK || a.Err != nil {
		t.Fatalf("a stream: %d %v %s", a.StatusCode, a.Err, a.Bytes)
	}
	if rec, truth := r.Settled(a.RequestID()), r.Truth(a.RequestID()); rec.Counts.Completion != int64(truth.Completion()) || rec.Meter != "" {
		t.Errorf("ledger %+v, engine %+v", rec, truth)
	}
	for path, want := range map[string]int{"/v1/models": 200, "/v1/key": 200, "/console/": 200, "/health": 200, "/admin/keys": 403} {
		if a := r.Do(r.HTTP1, http.MethodGet, path, "", "Authorization", "Bearer "+stack.Key); a.StatusCode != want {
			t.Errorf("%s: %d %s, want %d", path, a.StatusCode, a.Bytes, want)
		}
	}
	if a := r.Admin(http.MethodGet, "/admin/keys", ""); a.StatusCode != http.StatusOK {
		t.Errorf("/admin/keys as an administrator: %d %s", a.StatusCode, a.Bytes)
	}
}
