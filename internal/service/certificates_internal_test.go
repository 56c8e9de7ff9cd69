package service

import (
	"context"
	"crypto/tls"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"tollgate/internal/certtest"
)

// serial is that of the certificate that the port shows.
func (r *rig) serial() string {
	r.t.Helper()
	conn, err := r.dial(nil)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// looks makes the certificates look at their files twice, as they do within two seconds.
func (r *rig) looks() {
	r.certificates.follow()
	r.certificates.follow()
}

func (r *rig) ok() float64 { return testutil.ToFloat64(r.metrics.ok) }

// TestNewFilesAreTaken: the certificate of the port, and the authority of the clients.
func TestNewFilesAreTaken(t *testing.T) {
	r := newRig(t, nil)
	first := r.serial()
	r.looks()
	if got := r.serial(); got != first {
		t.Fatal("another certificate without a change")
	}
	until := time.Now().Add(5 * time.Hour)
	r.issue(certtest.Leaf{Names: []string{"tollgate.test"}, Until: until})
	r.certificates.follow()
	if got := r.serial(); got != first {
		t.Error("taken at once: its key may not be written yet")
	}
	r.certificates.follow()
	if got := r.serial(); got == first || r.ok() != 1 {
		t.Error("the new certificate is not taken")
	}
	if got := testutil.ToFloat64(r.metrics.expires.WithLabelValues("certificate")); got != float64(until.Unix()) {
		t.Errorf("expires at %v, want %v", got, until.Unix())
	}

	next := certtest.New(t, "next")
	nextClient := next.Issue(t, certtest.Leaf{Names: []string{clientID}}).TLS(t)
	use := func(c tls.Certificate) func(*tls.Config) {
		return func(conf *tls.Config) { conf.Certificates = []tls.Certificate{c} }
	}
	for _, step := range []struct {
		bundle    string
		old, next bool
	}{{string(r.client.PEM) + string(next.PEM), true, true}, {string(next.PEM), false, true}} {
		certtest.Write(t, r.dir, "ca.crt", []byte(step.bundle))
		r.looks()
		if _, err := r.ask("GET\n", nil); (err == nil) != step.old {
			t.Errorf("a client of the old authority: %v", err)
		}
		if _, err := r.ask("GET\n", use(nextClient)); (err == nil) != step.next {
			t.Errorf("a client of the next authority: %v", err)
		}
	}
}

// TestBrokenFilesChangeNothing, are told once, and are taken when they are mended.
func TestBrokenFilesChangeNothing(t *testing.T) {
	r := newRig(t, nil)
	other := r.server.Issue(t, certtest.Leaf{Names: []string{"tollgate.test"}})
	for name, c := range map[string]struct {
		broken func()
		says   string
	}{
		"a key of another": {func() { certtest.Write(t, r.dir, "server.key", other.Key) }, "key_file: is not the private key"},
		"an expired one":   {func() { r.issue(certtest.Leaf{Names: []string{"tollgate.test"}, Until: time.Now().Add(-time.Minute)}) }, "cert_file: has expired"},
		"no certificate":   {func() { certtest.Write(t, r.dir, "server.crt", []byte("x")) }, "cert_file: holds no certificate"},
		"no authority":     {func() { certtest.Write(t, r.dir, "ca.crt", nil) }, "client_ca_file: holds no certificate"},
		"a file that went": {func() { _ = os.Remove(r.dir + "/server.key") }, "key_file: cannot be read"},
	} {
		before := r.serial()
		r.log.Reset()
		c.broken()
		for range 4 {
			r.looks()
		}
		if got := r.serial(); got != before || r.ok() != 0 {
			t.Errorf("%s: another certificate, or not told: ok %v", name, r.ok())
		}
		if n := strings.Count(r.log.String(), c.says); n != 1 {
			t.Errorf("%s: %d lines with %q:\n%s", name, n, c.says, r.log)
		}
		r.issue(certtest.Leaf{Names: []string{"tollgate.test"}})
		certtest.Write(t, r.dir, "ca.crt", r.client.PEM)
		r.looks()
		if got := r.serial(); got == before || r.ok() != 1 {
			t.Errorf("%s, mended: the same certificate, ok %v", name, r.ok())
		}
	}
}

// TestFilesAreFollowed by [Certificates.Run], also through a link as Kubernetes has it.
func TestFilesAreFollowed(t *testing.T) {
	r := newRig(t, nil)
	if err := os.Mkdir(r.dir+"/new", 0o700); err != nil {
		t.Fatal(err)
	}
	first := r.serial()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.certificates.Run(ctx) }()
	pair := r.server.Issue(t, certtest.Leaf{Names: []string{"tollgate.test"}})
	pair.Write(t, r.dir+"/new", "server")
	for _, name := range []string{"server.crt", "server.key"} {
		if err := os.Remove(r.dir + "/" + name); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("new/"+name, r.dir+"/"+name); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the new certificate", func() bool { return r.serial() != first })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
