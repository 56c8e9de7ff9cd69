package gateway

import (
	"net"
	"net/netip"

	"tollgate/envoy"
	"tollgate/internal/config"
	"tollgate/internal/fleet"
	"tollgate/internal/reconcile"
)

// fileEngines are the engines that the configuration names.
func fileEngines(cfg *config.Config) []fleet.Entry {
	var out []fleet.Entry
	for _, e := range cfg.Fleet() {
		out = append(out, fleet.Entry{Address: e.Address, Weight: e.Weight, Line: e.Line})
	}
	return out
}

// selves are the addresses by which this machine reaches its own edge.
func selves(listen string) []string {
	host, port, _ := net.SplitHostPort(listen) // checked with the configuration
	if ip := net.ParseIP(host); host != "" && ip != nil && !ip.IsUnspecified() {
		return []string{listen}
	}
	return []string{"127.0.0.1:" + port, "[::1]:" + port, "localhost:" + port}
}

// tellEnvoy publishes the engines. Before each was asked once Envoy knows more than
// we do: it keeps what it had from us before a restart.
func (g *Gateway) tellEnvoy(v *fleet.View) {
	if !v.Settled() {
		return
	}
	if err := g.xds.Publish(endpoints(v)); err != nil {
		g.log.Error("cannot tell Envoy its engines", "error", err)
	}
}

// endpoints are the engines of a view as Envoy knows them.
func endpoints(v *fleet.View) []envoy.Endpoint {
	var out []envoy.Endpoint
	for _, e := range v.Engines() {
		at, err := netip.ParseAddrPort(e.Endpoint)
		if err != nil {
			continue // a name that leads nowhere yet
		}
		models := make([]string, len(e.Models))
		for i, m := range e.Models {
			models[i] = m.ID
		}
		out = append(out, envoy.Endpoint{
			Host: at.Addr().String(), Port: int(at.Port()), Name: e.Address, Weight: e.Weight, Models: models, Draining: e.Draining,
		})
	}
	return out
}

// compared are the engines whose counters the ledger is compared with.
func (g *Gateway) compared() []reconcile.Engine {
	var out []reconcile.Engine
	for _, e := range g.engines.View().Engines() {
		c := reconcile.Engine{Address: e.Address}
		if len(e.Models) > 0 {
			c.Model = e.Models[0].ID
		}
		out = append(out, c)
	}
	return out
}
