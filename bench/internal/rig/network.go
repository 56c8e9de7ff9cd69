package rig

import (
	"context"
	"fmt"
	"os"

	"tollgate/envoy"
	"tollgate/internal/certtest"
)

// must turns the failure of a helper of tests into a panic, which network catches.
type must struct{}

func (must) Helper() {}

func (must) Fatal(args ...any) { panic(failure(fmt.Sprint(args...))) }

type failure string

// network makes what a stack needs that is reached over the network: certificates, and
// the section of the configuration; "" for the other kinds.
func (s *Stack) network(ctx context.Context) (section string, err error) {
	if s.Kind != Network {
		return "", nil
	}
	defer func() {
		if f, ok := recover().(failure); ok {
			err = fmt.Errorf("make certificates: %s", string(f))
		}
	}()
	port, err := FreePort(ctx)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return "", fmt.Errorf("make folder: %w", err)
	}
	const name = "tollgate.bench"
	ca := certtest.New(must{}, "bench")
	authority := certtest.Write(must{}, s.dir, "ca.crt", ca.PEM)
	cert, key := ca.Issue(must{}, certtest.Leaf{Names: []string{name}}).Write(must{}, s.dir, "server")
	s.remote = &envoy.Remote{Addresses: []string{fmt.Sprintf("127.0.0.1:%d", port)}, Names: []string{name}, CAFile: authority}
	s.remote.CertFile, s.remote.KeyFile = ca.Issue(must{}, certtest.Leaf{Names: []string{"envoy.bench"}}).Write(must{}, s.dir, "envoy")
	return fmt.Sprintf("service: {listen: %q, tls: {cert_file: %q, key_file: %q, client_ca_file: %q, client_ids: [envoy.bench]}}\n",
		s.remote.Addresses[0], cert, key, authority), nil
}
