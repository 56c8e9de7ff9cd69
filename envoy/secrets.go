package envoy

import (
	"fmt"

	"tollgate/internal/config"
)

// SecretFile is a file that the bootstrap names, through which Envoy gets a certificate.
// Envoy watches it and the folders of the files that it names.
type SecretFile struct {
	Path string // relative to state_dir
	Text []byte
}

// Secrets are the files that say where certificates are: of the edge with TLS, and of
// Envoy towards a remote tollgate. Each holds one, because Envoy refuses more.
func Secrets(p Params) ([]SecretFile, error) {
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("render envoy secrets: %w", err)
	}
	var out []SecretFile
	if p.TLSCertFile != "" {
		out = append(out, SecretFile{p.SecretsFile, certificate("edge_certificate", p.TLSCertFile, p.TLSKeyFile)})
	}
	if r := p.Remote; r.TLS() {
		out = append(
			out,
			SecretFile{config.ServiceCertificateFile, certificate("service_certificate", r.CertFile, r.KeyFile)},
			SecretFile{config.ServiceAuthorityFile, r.authority()},
		)
	}
	return out, nil
}

// secretHead begins a file.
const secretHead = "resources:\n- \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret\n"

// certificate names a certificate and its key.
func certificate(name, cert, key string) []byte {
	return fmt.Appendf(nil, secretHead+`  name: %s
  tls_certificate: { certificate_chain: { filename: %s }, private_key: { filename: %s } }
`, name, quote(cert), quote(key))
}

// authority names the authority of the tollgates, and the names that they may have.
func (r *Remote) authority() []byte {
	out := fmt.Appendf(nil, secretHead+`  name: service_authority
  validation_context:
    trusted_ca: { filename: %s }
`, quote(r.CAFile))
	if len(r.Names) > 0 {
		out = append(out, "    match_typed_subject_alt_names:\n"...)
	}
	for _, id := range r.identities() {
		out = fmt.Appendf(out, "    - { san_type: %s, matcher: { exact: %s } }\n", id.Type, quote(id.Name))
	}
	return out
}
