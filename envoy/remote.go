package envoy

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
)

// Remote says where tollgate is when it is not, or not alone, the one that has its
// sockets in state_dir.
type Remote struct {
	// Addresses are those of the tollgates, which share one Redis when there are
	// several: HOST:PORT of service.listen, or "unix:" and the state_dir of one on
	// this host. A name may have several addresses.
	Addresses []string
	// CertFile, KeyFile and CAFile are absolute; of Envoy's own certificate, and of the
	// authority that has signed those of the tollgates. For HOST:PORT only.
	CertFile, KeyFile, CAFile string
	// Names are SPIFFE ids, DNS names or IP addresses; the certificates of the tollgates
	// must have one. None: any certificate of the authority, those of other Envoys too.
	Names []string
}

// unixPrefix begins the address of a tollgate on this host.
const unixPrefix = "unix:"

// place is one tollgate as Envoy reaches it.
type place struct {
	Socket string // a path; empty: Host and Port
	Host   string
	Port   int
}

// TLS reports whether tollgate is reached over the network.
func (r *Remote) TLS() bool { return r != nil && r.CertFile != "" }

// DNS reports whether an address is a name.
func (r *Remote) DNS() bool {
	if r == nil {
		return false
	}
	for _, a := range r.Addresses {
		host, _, err := splitHostPort(a)
		if _, notIP := netip.ParseAddr(host); !strings.HasPrefix(a, unixPrefix) && err == nil && notIP != nil {
			return true
		}
	}
	return false
}

// Several reports whether there may be more than one tollgate.
func (r *Remote) Several() bool { return r != nil && (len(r.Addresses) > 1 || r.DNS()) }

// places are the tollgates; socket is the one below a state_dir.
func (r *Remote) places(socket string) []place {
	if r == nil {
		return []place{{Socket: socket}}
	}
	out := make([]place, 0, len(r.Addresses))
	for _, a := range r.Addresses {
		if dir, local := strings.CutPrefix(a, unixPrefix); local {
			out = append(out, place{Socket: filepath.Join(dir, socket)})
			continue
		}
		host, port, _ := splitHostPort(a) // checked before
		out = append(out, place{Host: host, Port: port})
	}
	return out
}

// check finds what Envoy could not take.
func (r *Remote) check() error {
	if r == nil {
		return nil
	}
	errs, network := r.checkAddresses()
	switch {
	case len(r.Addresses) == 0:
		errs = append(errs, errors.New("service: no address"))
	case network > 0 && network < len(r.Addresses):
		errs = append(errs, errors.New("services: all over the network, or all on this host"))
	case network > 0 && (r.CertFile == "" || r.KeyFile == "" || r.CAFile == ""):
		errs = append(errs, errors.New("service over the network: name Envoy's certificate, its key and the authority of tollgate's"))
	case network == 0 && r.CertFile+r.KeyFile+r.CAFile != "":
		errs = append(errs, errors.New("services on this host: they take no certificate"))
	}
	for _, n := range r.Names {
		if n == "" || strings.ContainsAny(n, " \"'") {
			errs = append(errs, fmt.Errorf("service name %q: want a SPIFFE id or a DNS name", n))
		}
	}
	return errors.Join(errs...)
}

// checkAddresses finds what is wrong with the addresses, and counts those that are
// reached over the network.
func (r *Remote) checkAddresses() (errs []error, network int) {
	for _, a := range r.Addresses {
		if dir, local := strings.CutPrefix(a, unixPrefix); local {
			if dir == "" {
				errs = append(errs, fmt.Errorf("service %q: name the state_dir of that tollgate", a))
			}
			continue
		}
		network++
		if host, port, err := splitHostPort(a); err != nil || host == "" || port == 0 {
			errs = append(errs, fmt.Errorf("service %q: want HOST:PORT, or unix: and a state_dir", a))
		}
	}
	return errs, network
}

// SNI is the name that Envoy asks for; empty where none is known.
func (r *Remote) SNI() string {
	for _, id := range r.identities() {
		if id.Type == "DNS" {
			return id.Name
		}
	}
	return ""
}

// identity is one name that a certificate may have.
type identity struct{ Type, Name string }

// identities are the names, with their kind.
func (r *Remote) identities() []identity {
	out := make([]identity, 0, len(r.Names))
	for _, n := range r.Names {
		kind := "DNS"
		if _, err := netip.ParseAddr(n); err == nil {
			kind = "IP_ADDRESS"
		} else if strings.Contains(n, "://") {
			kind = "URI"
		}
		out = append(out, identity{kind, n})
	}
	return out
}
