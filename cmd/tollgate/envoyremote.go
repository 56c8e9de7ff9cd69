package main

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"

	"tollgate/envoy"
	"tollgate/internal/config"
)

// remoteFlags say where tollgate is when it is not, or not alone, the one beside Envoy.
type remoteFlags struct {
	Service    []string `placeholder:"HOST:PORT" help:"Where tollgate is, when it is on another host: its service.listen. Several tollgates on one Redis: repeat it, or give a name with several addresses. Tollgates on this host: unix: and the state_dir of each."`
	CAFile     string   `placeholder:"FILE" help:"With --service HOST:PORT: the authority (PEM) of the tollgates' certificates."`
	CertFile   string   `placeholder:"FILE" help:"With --service HOST:PORT: the certificate (PEM) that Envoy shows to tollgate."`
	KeyFile    string   `placeholder:"FILE" help:"With --service HOST:PORT: the private key of that certificate."`
	ServerName []string `placeholder:"NAME" help:"With --service HOST:PORT: the SPIFFE id, DNS name or address that a tollgate's certificate must have; repeat it for several. By default the hosts of --service."`
}

// onSocket begins the address of a tollgate on this host.
const onSocket = "unix:"

// remote is where tollgate is; nil for one beside Envoy.
func (c *envoyConfigCmd) remote(cfg *config.Config) (*envoy.Remote, error) {
	f := &c.Remote
	network := slices.ContainsFunc(f.Service, func(a string) bool { return !strings.HasPrefix(a, onSocket) })
	r := &envoy.Remote{}
	if err := f.files(r, network); err != nil {
		return nil, err
	}
	if !network && len(f.ServerName) > 0 {
		return nil, usageError("--server-name is for a tollgate on another host: name it with --service HOST:PORT")
	}
	if len(f.Service) == 0 {
		return nil, nil //nolint:nilnil // beside Envoy
	}
	module := c.Meter == config.MeterModule || c.MeterLibrary != "" || c.Meter == "" && cfg.Envoy.Meter == config.MeterModule
	if network && module { // its link is a socket of tollgate's host
		return nil, usageError("the meter inside Envoy is for a tollgate on Envoy's own host: use --meter ext_proc")
	}
	return r, f.addresses(r, network)
}

// files makes the three paths absolute: Envoy's working directory is another one. All of
// them are needed over the network, and none is without.
func (f *remoteFlags) files(r *envoy.Remote, network bool) error {
	for _, file := range []struct {
		flag, path string
		to         *string
	}{{"--ca-file", f.CAFile, &r.CAFile}, {"--cert-file", f.CertFile, &r.CertFile}, {"--key-file", f.KeyFile, &r.KeyFile}} {
		switch {
		case file.path == "" && network:
			return usageError("%s is missing: tollgate on another host is reached with mutual TLS", file.flag)
		case file.path != "" && !network:
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

// addresses fills in where the tollgates are and, over the network, the names that their
// certificates may have: the hosts of --service by default, so that another Envoy of the
// same authority is not taken for a tollgate.
func (f *remoteFlags) addresses(r *envoy.Remote, network bool) error {
	r.Names = f.ServerName
	for _, address := range f.Service {
		if dir, local := strings.CutPrefix(address, onSocket); local && dir != "" {
			path, err := filepath.Abs(dir)
			if err != nil {
				return fmt.Errorf("find %s: %w", dir, err)
			}
			address = onSocket + path
		}
		r.Addresses = append(r.Addresses, address)
		if !network || len(f.ServerName) > 0 {
			continue
		}
		host, _, err := net.SplitHostPort(address)
		if err != nil || host == "" {
			return usageError("--service %s: want HOST:PORT", address)
		}
		if !slices.Contains(r.Names, host) {
			r.Names = append(r.Names, host)
		}
	}
	return nil
}
