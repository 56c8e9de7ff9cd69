package config

import (
	"errors"
	"fmt"
	"slices"

	"tollgate/internal/mtls"
)

// Files are the files of service.tls.
func (t *ServiceTLS) Files() mtls.Files {
	return mtls.Files{Cert: t.CertFile, Key: t.KeyFile, ClientCA: t.ClientCAFile}
}

// none reports that nothing of it is set.
func (t *ServiceTLS) none() bool { return t.Files() == mtls.Files{} && len(t.ClientIDs) == 0 }

// service checks the listener for Envoys on other hosts, and that its files hold what
// they should: a start that takes them and then refuses every Envoy would be worse.
func (d *decoder) service(s *Service) {
	for i, id := range s.TLS.ClientIDs {
		key := fmt.Sprintf("service.tls.client_ids[%d]", i)
		if err := mtls.CheckName(id); err != nil {
			d.bad(key, err.Error(), "names are compared whole; leave the list empty to take any certificate of the authority")
		} else if slices.Contains(s.TLS.ClientIDs[:i], id) {
			d.bad(key, "is listed twice", "keep one of them")
		}
	}
	if s.Listen == "" {
		if !s.TLS.none() {
			d.bad("service.listen", "is empty, service.tls is set", "write for example 0.0.0.0:9443, or remove service.tls")
		}
		return
	}
	d.address("service.listen", s.Listen, "0.0.0.0:9443", false)
	files := []struct {
		which mtls.Which
		path  string
		what  string
	}{
		{mtls.Cert, s.TLS.CertFile, "name tollgate's own certificate (PEM)"},
		{mtls.Key, s.TLS.KeyFile, "name the private key of that certificate (PEM)"},
		{mtls.ClientCA, s.TLS.ClientCAFile, "name the authority of the Envoys' certificates (PEM)"},
	}
	complete := true
	for _, f := range files {
		key := "service.tls." + string(f.which)
		if f.path == "" {
			d.bad(key, "is missing, service.listen is set: without it every program that reaches the port is an Envoy", f.what)
			complete = false
		}
		n := len(d.problems)
		d.file(key, f.path)
		complete = complete && n == len(d.problems)
	}
	if !complete {
		return
	}
	_, err := mtls.Load(s.TLS.Files())
	var file *mtls.FileError
	if errors.As(err, &file) {
		d.bad("service.tls."+string(file.Which), file.Err.Error(), "")
	}
}
