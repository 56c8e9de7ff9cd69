package mtls

import (
	"crypto/x509"
	"errors"
	"net/url"
	"strings"
)

// Names are the SPIFFE ids and DNS names that clients may have. None: a certificate of
// the authority is enough.
type Names []string

var (
	// ErrName is a certificate without any of the names.
	ErrName = errors.New("the certificate has none of the names in client_ids")

	errSPIFFE = errors.New("is not a SPIFFE id, as spiffe://example.org/ns/edge/sa/envoy")
	errDNS    = errors.New("is neither a SPIFFE id, as spiffe://example.org/ns/edge/sa/envoy, nor a DNS name, as envoy.example.org")
)

// CheckName reports a text that cannot be a name of a certificate. A DNS name has no
// wildcard: an identity is one client.
func CheckName(name string) error {
	if strings.Contains(name, ":") {
		u, err := url.Parse(name)
		if err != nil || u.Scheme != "spiffe" || u.Host == "" || u.Host != u.Hostname() || u.User != nil || u.Opaque != "" ||
			u.RawQuery != "" || u.Fragment != "" || u.String() != name || strings.HasSuffix(name, "/") {
			return errSPIFFE
		}
		return nil
	}
	if name == "" || len(name) > 253 || strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") || strings.Contains(name, "..") ||
		strings.ContainsFunc(name, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
		}) {
		return errDNS
	}
	return nil
}

// check reports a certificate without any of the names. Names are compared whole; a
// wildcard in a certificate stands for nobody.
func (n Names) check(cert *x509.Certificate) error {
	if len(n) == 0 {
		return nil
	}
	for _, name := range n {
		for _, uri := range cert.URIs {
			if uri.String() == name {
				return nil
			}
		}
		for _, dns := range cert.DNSNames {
			if strings.EqualFold(dns, name) {
				return nil
			}
		}
	}
	return ErrName
}
