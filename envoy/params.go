package envoy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"

	"tollgate/internal/config"
	"tollgate/internal/machine"
)

// ParamsFor reads Params out of the configuration. Files become absolute, since
// Envoy's working directory is another one.
func ParamsFor(cfg *config.Config) (Params, error) {
	p := Params{
		AllowOrigins:   cfg.CORS.AllowOrigins,
		TrustedProxies: cfg.TrustedProxies,
		MaxBodyBytes:   int64(cfg.Request.MaxBodyMB) << 20,
		BodyTimeout:    cfg.Request.BodyTimeout,
		IdleTimeout:    cfg.Request.IdleTimeout,
		GRPCSocket:     config.GRPCSocket,
		HTTPSocket:     config.HTTPSocket,
		AdminSocket:    config.EnvoyAdminSocket,
		SecretsFile:    config.SecretsFile,
		MaxConnections: MaxConnections(machine.Files()),
		MaxHeapBytes:   maxHeap(cfg.Envoy.MaxHeapMB, machine.Memory()),
	}
	var errs []error
	host, port, err := splitHostPort(cfg.Listen)
	if err != nil {
		errs = append(errs, fmt.Errorf("listen: %w", err))
	}
	p.ListenPort = port
	if p.ListenAddress, err = listenAddress(host); err != nil {
		errs = append(errs, fmt.Errorf("listen: %w", err))
	}
	if cfg.AdminListen != "" {
		host, port, err := splitHostPort(cfg.AdminListen)
		if err == nil {
			p.AdminAddress, err = listenAddress(host)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("admin_listen: %w", err))
		}
		p.AdminPort = port
	}
	for _, f := range []struct {
		from string
		to   *string
	}{{cfg.TLS.CertFile, &p.TLSCertFile}, {cfg.TLS.KeyFile, &p.TLSKeyFile}, {cfg.VLLM.APIKeyFile, &p.APIKeyFile}} {
		if f.from == "" {
			continue
		}
		if *f.to, err = filepath.Abs(f.from); err != nil {
			errs = append(errs, fmt.Errorf("find %s: %w", f.from, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Params{}, err
	}
	return p, p.check()
}

const (
	// mostConnections is enough for anybody, and what 4 GiB of memory carry.
	mostConnections = 50000
	// ownFiles are the descriptors that Envoy needs beside connections: listeners,
	// event loops, the admin page, connections to tollgate, logs.
	ownFiles = 192
	// leastHeap is for machines a quarter of which is nothing to work with.
	leastHeap = 256 << 20
)

// MaxConnections is how many clients may be connected with so many file
// descriptors: each may need one more, for its request's connection to an
// engine. 0 descriptors are not known.
func MaxConnections(files int64) int64 {
	if files == 0 {
		return mostConnections
	}
	return max(16, min(mostConnections, (files-ownFiles)/2))
}

// maxHeap is the bound of Envoy's heap in bytes: what is configured, or a
// quarter of the machine's memory. 0 memory is not known.
func maxHeap(mib int, memory int64) int64 {
	if mib > 0 {
		return int64(mib) << 20
	}
	return max(leastHeap, memory/4)
}

// Upstreams are the engines of the configuration for a bootstrap that has them
// written in: for an Envoy without tollgate beside it.
func Upstreams(cfg *config.Config) ([]Endpoint, error) {
	var out []Endpoint
	for _, e := range cfg.Fleet() {
		host, port, err := splitHostPort(e.Address)
		if err == nil && (host == "" || port == 0) {
			err = fmt.Errorf("%q: host and port are needed", e.Address)
		}
		if err != nil {
			return nil, fmt.Errorf("engines: %w", err)
		}
		out = append(out, Endpoint{Host: host, Port: port, Weight: e.Weight})
	}
	return out, nil
}

func splitHostPort(s string) (string, int, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("%q: want HOST:PORT", s)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("%q: port must be a number up to 65535", s)
	}
	return host, int(n), nil
}

// listenAddress is the IP address Envoy binds; it takes no names.
func listenAddress(host string) (string, error) {
	switch host {
	case "":
		return "0.0.0.0", nil
	case "localhost":
		return "127.0.0.1", nil
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return "", fmt.Errorf("%q: want an IP address, localhost, or nothing for all", host)
	}
	return a.String(), nil
}
