package gateway

import (
	"github.com/prometheus/client_golang/prometheus"

	"tollgate/internal/placement"
)

// newPlacer is what chooses an engine for each request.
func (g *Gateway) newPlacer(own prometheus.Registerer) *placement.Placer {
	p := placement.New(placement.Options{Policy: placement.Policy(g.cfg.Balance.Policy), MaxLoad: g.cfg.Balance.MaxLoad})
	p.Register(own)
	return p
}
