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
		return checkSPIFFE(name)
	}
	if len(name) > 253 {
		return errDNS
	}
	for label := range strings.SplitSeq(name, ".") {
		if strings.ContainsFunc(label, func(r rune) bool { return !strings.ContainsRune(letters, r) }) || label == "" {
			return errDNS
		}
	}
	return nil
}

// letters are what a part of a DNS name has.
const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

// checkSPIFFE reports what is no SPIFFE id: one has a trust domain and a path, and
// nothing else that a URL may have.
func checkSPIFFE(name string) error {
	u, err := url.Parse(name)
	if err != nil || u.Host == "" {
		return errSPIFFE
	}
	if plain := (url.URL{Scheme: "spiffe", Host: u.Hostname(), Path: u.Path, RawPath: u.RawPath}); plain.String() != name || strings.HasSuffix(name, "/") {
		return errSPIFFE
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
