// Package mtls is the server's side of mutual TLS as files and names: a certificate
// with its key, the authority of the clients, and the names that clients may have.
package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"
)

// Files are the three files of a server, all in PEM.
type Files struct {
	Cert     string // the certificate, and what leads from it to its authority
	Key      string // its private key
	ClientCA string // one or more authorities whose certificates clients may show
}

// Which names a file as the configuration does.
type Which string

// The files.
const (
	Cert     Which = "cert_file"
	Key      Which = "key_file"
	ClientCA Which = "client_ca_file"
)

// FileError is a file that cannot be used. Its text holds nothing of the file.
type FileError struct {
	Which Which
	Err   error
}

// Error implements error.
func (e *FileError) Error() string { return string(e.Which) + ": " + e.Err.Error() }

// Unwrap returns why.
func (e *FileError) Unwrap() error { return e.Err }

// Material is what the files hold.
type Material struct {
	cert      tls.Certificate
	authority *x509.CertPool
	// Life is that of the certificate of the chain that expires first.
	Life Life
	// AuthorityLife is that of the authority of the clients that expires last: nobody
	// gets in afterwards.
	AuthorityLife Life
}

// Life is when a certificate is good.
type Life struct{ Start, End time.Time }

// Load reads the files; an error is a [*FileError]. Certificates that have expired are
// no error.
func Load(f Files) (*Material, error) {
	m := &Material{authority: x509.NewCertPool()}
	cert, err := os.ReadFile(f.Cert)
	if err != nil {
		return nil, &FileError{Cert, reason(err)}
	}
	key, err := os.ReadFile(f.Key)
	if err != nil {
		return nil, &FileError{Key, reason(err)}
	}
	chain, err := certificates(cert)
	if err != nil {
		return nil, &FileError{Cert, err}
	}
	if m.cert, err = tls.X509KeyPair(cert, key); err != nil {
		// The certificate has been read above, so what is wrong is the key.
		return nil, &FileError{Key, errors.New("is not the private key of the certificate in cert_file")}
	}
	for _, c := range chain {
		if m.Life.End.IsZero() || c.NotAfter.Before(m.Life.End) {
			m.Life = Life{c.NotBefore, c.NotAfter}
		}
	}
	ca, err := os.ReadFile(f.ClientCA)
	if err != nil {
		return nil, &FileError{ClientCA, reason(err)}
	}
	authorities, err := certificates(ca)
	if err != nil {
		return nil, &FileError{ClientCA, err}
	}
	for _, c := range authorities {
		m.authority.AddCert(c)
		if c.NotAfter.After(m.AuthorityLife.End) {
			m.AuthorityLife = Life{c.NotBefore, c.NotAfter}
		}
	}
	return m, nil
}

// certificates reads all certificates of a file; there must be one.
func certificates(text []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for len(text) > 0 {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d of the file cannot be read", len(out)+1)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New("holds no certificate in PEM (-----BEGIN CERTIFICATE-----)")
	}
	return out, nil
}

// reason is the error of a file without its path.
func reason(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return fmt.Errorf("cannot be read: %w", path.Err)
	}
	return err
}

// Config is the server's TLS: 1.2 at least, and a certificate of each client that one
// of the authorities has signed and that has one of the names.
//
// Sessions are not resumed: a resumed one would skip the check of the certificate
// against authorities that have changed since.
func (m *Material) Config(names Names) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS12,
		Certificates:           []tls.Certificate{m.cert},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              m.authority,
		NextProtos:             []string{"h2", "http/1.1"},
		SessionTicketsDisabled: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			return names.check(s.PeerCertificates[0]) // there is one: it was required
		},
	}
}
