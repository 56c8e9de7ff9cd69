package main

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"

	"tollgate/envoy"
	"tollgate/internal/config"
)

// remoteFlags say where tollgate is when it is not on Envoy's host.
type remoteFlags struct {
	Service    []string `placeholder:"HOST:PORT" help:"Where tollgate is, when it is on another host: its service.listen. Several tollgates on one Redis: repeat it, or give a name with several addresses."`
	CAFile     string   `placeholder:"FILE" help:"With --service: the authority (PEM) of the tollgates' certificates."`
	CertFile   string   `placeholder:"FILE" help:"With --service: the certificate (PEM) that Envoy shows to tollgate."`
	KeyFile    string   `placeholder:"FILE" help:"With --service: the private key of that certificate."`
	ServerName []string `placeholder:"NAME" help:"With --service: the SPIFFE id, DNS name or address that a tollgate's certificate must have; repeat it for several. By default the hosts of --service."`
}

// remote is where tollgate is; nil for one beside Envoy.
func (c *envoyConfigCmd) remote(cfg *config.Config) (*envoy.Remote, error) {
	f := &c.Remote
	r := &envoy.Remote{Addresses: f.Service}
	if err := f.files(r); err != nil {
		return nil, err
	}
	if len(f.Service) == 0 {
		if len(f.ServerName) > 0 {
			return nil, usageError("--server-name is for a tollgate on another host: name it with --service HOST:PORT")
		}
		return nil, nil //nolint:nilnil // beside Envoy
	}
	module := c.Meter == config.MeterModule || c.MeterLibrary != "" || c.Meter == "" && cfg.Envoy.Meter == config.MeterModule
	if module { // its link is a socket of tollgate's host
		return nil, usageError("the meter inside Envoy is for a tollgate on Envoy's own host: use --meter ext_proc")
	}
	var err error
	r.Names, err = f.names()
	return r, err
}

// files makes the three paths absolute: Envoy's working directory is another one. All of
// them are needed with --service, and none is without.
func (f *remoteFlags) files(r *envoy.Remote) error {
	for _, file := range []struct {
		flag, path string
		to         *string
	}{{"--ca-file", f.CAFile, &r.CAFile}, {"--cert-file", f.CertFile, &r.CertFile}, {"--key-file", f.KeyFile, &r.KeyFile}} {
		switch {
		case file.path == "" && len(f.Service) > 0:
			return usageError("%s is missing: tollgate on another host is reached with mutual TLS", file.flag)
		case file.path != "" && len(f.Service) == 0:
			return usageError("%s is for a tollgate on another host: name it with --service HOST:PORT", file.flag)
		case file.path == "":
			continue
		}
		var err error
		if *file.to, err = filepath.Abs(file.path); err != nil {
			return fmt.Errorf("find %s: %w", file.path, err)
		}
	}
	return nil
}

// names are those that tollgate's certificate may have: the hosts of --service by
// default, so that another Envoy of the same authority is not taken for a tollgate.
func (f *remoteFlags) names() ([]string, error) {
	if len(f.ServerName) > 0 {
		return f.ServerName, nil
	}
	var out []string
	for _, address := range f.Service {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, usageError("--service %s: want HOST:PORT", address)
		}
		if !slices.Contains(out, host) {
			out = append(out, host)
		}
	}
	return out, nil
}
