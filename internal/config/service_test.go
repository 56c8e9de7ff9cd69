package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tollgate/internal/certtest"
	"tollgate/internal/config"
)

// TestTheServiceNeedsItsCertificates: what would refuse every Envoy after the start is
// found before it, at the key that is to be corrected.
func TestTheServiceNeedsItsCertificates(t *testing.T) {
	dir := t.TempDir()
	ca := certtest.New(t, "test")
	cert, key := ca.Issue(t, certtest.Leaf{Names: []string{"tollgate"}}).Write(t, dir, "server")
	old, oldKey := ca.Issue(t, certtest.Leaf{Names: []string{"tollgate"}, Until: time.Now().Add(-time.Hour)}).Write(t, dir, "old")
	authority := certtest.Write(t, dir, "ca.crt", ca.PEM)
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	section := func(listen, cert, key, ca, ids string) string {
		return fmt.Sprintf("service:\n  listen: %q\n  tls: {cert_file: %q, key_file: %q, client_ca_file: %q, client_ids: [%s]}\n", listen, cert, key, ca, ids)
	}
	const at = "127.0.0.1:9443"
	for name, c := range map[string]struct{ text, want string }{
		"whole":                  {section(at, cert, key, authority, `spiffe://example.org/ns/edge/sa/envoy, envoy.example.org`), ""},
		"expired":                {section(at, old, oldKey, authority, ""), ""}, // it may be renewed while tollgate runs
		"no tls":                 {"service: {listen: \"" + at + "\"}", "3 service.tls.cert_file: is missing, service.listen is set"},
		"no authority":           {section(at, cert, key, "", ""), "1 service.tls.client_ca_file: is missing"},
		"no listen":              {section("", cert, key, authority, ""), "1 service.listen: is empty, service.tls is set"},
		"no port":                {section("127.0.0.1", cert, key, authority, ""), "1 service.listen: \"127.0.0.1\" is not HOST:PORT"},
		"the edge's port":        {section("127.0.0.1:8080", cert, key, authority, ""), "1 service.listen: is the same as listen"},
		"a file that is not":     {section(at, cert, key+"x", authority, ""), "1 service.tls.key_file: names a file that cannot be read"},
		"another key":            {section(at, cert, oldKey, authority, ""), "1 service.tls.key_file: is not the private key of the certificate in cert_file"},
		"a key for a cert":       {section(at, key, key, authority, ""), "1 service.tls.cert_file: holds no certificate in PEM"},
		"a broken cert":          {section(at, garbage, key, authority, ""), "1 service.tls.cert_file: certificate 1 of the file cannot be read"},
		"no cert in the CA":      {section(at, cert, key, key, ""), "1 service.tls.client_ca_file: holds no certificate"},
		"a wildcard":             {section(at, cert, key, authority, `"*.example.org"`), "1 service.tls.client_ids[0]: is neither a SPIFFE id"},
		"half a SPIFFE id":       {section(at, cert, key, authority, `"spiffe://"`), "1 service.tls.client_ids[0]: is not a SPIFFE id"},
		"another kind of URI":    {section(at, cert, key, authority, `"https://example.org/envoy"`), "1 service.tls.client_ids[0]: is not a SPIFFE id"},
		"twice":                  {section(at, cert, key, authority, `envoy, envoy`), "1 service.tls.client_ids[1]: is listed twice"},
		"a key that is not ours": {"service: {listen: \"" + at + "\", tls: {ca_file: x}}", "4 service.tls.ca_file: is not a known key"},
	} {
		got, err := config.Parse("c.yaml", []byte(c.text))
		if c.want == "" {
			if err != nil || got.Service.Listen != at || got.Service.TLS.Files().ClientCA != authority {
				t.Errorf("%s: %v, %+v", name, err, got)
			}
			continue
		}
		n, text, _ := strings.Cut(c.want, " ")
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: got %v, want %s", name, err, text)
			continue
		}
		if all := problems(t, err); fmt.Sprint(len(all)) != n {
			t.Errorf("%s: %d problems, want %s: %v", name, len(all), n, err)
		}
	}
}

// TestAnEngineOfThisHostAloneIsWarnedOf where Envoys of other hosts are to reach it.
func TestAnEngineOfThisHostAloneIsWarnedOf(t *testing.T) {
	dir := t.TempDir()
	ca := certtest.New(t, "test")
	cert, key := ca.Issue(t, certtest.Leaf{}).Write(t, dir, "server")
	tls := fmt.Sprintf("tls: {cert_file: %q, key_file: %q, client_ca_file: %q}", cert, key, certtest.Write(t, dir, "ca.crt", ca.PEM))
	for text, want := range map[string]bool{
		"service: {listen: \"0.0.0.0:9443\", " + tls + "}":                                         true,
		"service: {listen: \"0.0.0.0:9443\", " + tls + "}\nvllm: {endpoints: [\"10.0.0.2:8000\"]}": false,
		"service: {listen: \"127.0.0.1:9443\", " + tls + "}":                                       false,
	} {
		c, err := config.Parse("c.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(strings.Join(c.Warnings(), "\n"), "an engine has a loopback address"); got != want {
			t.Errorf("%s: warned %v, want %v: %q", text, got, want, c.Warnings())
		}
	}
}
