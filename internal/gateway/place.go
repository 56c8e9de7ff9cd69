package gateway

import (
	"github.com/prometheus/client_golang/prometheus"

	"tollgate/internal/admission"
	"tollgate/internal/fleet"
	"tollgate/internal/placement"
)

// roster is the fleet as the gate sees it.
type roster struct{ fleet *fleet.Fleet }

// Listed implements [admission.Roster].
func (r roster) Listed(model string) bool { return r.fleet.View().Listed(model) }

// Serving implements [admission.Roster].
func (r roster) Serving(model string, list []placement.Engine) []placement.Engine {
	for _, e := range r.fleet.View().Serving(model) {
		list = append(list, placement.Engine{Endpoint: e.Endpoint, Weight: e.Weight, Waiting: e.Waiting()})
	}
	return list
}

// placing makes what finds the model and the engine of a request, and joins it to
// the fleet.
func (g *Gateway) placing(own prometheus.Registerer) admission.Placing {
	p := placement.New(placement.Options{Policy: placement.Policy(g.cfg.Balance.Policy), MaxLoad: g.cfg.Balance.MaxLoad})
	p.Register(own)
	restarts := map[string]int{}
	g.engines.OnChange(func(v *fleet.View) {
		var there []string
		for _, e := range v.Engines() {
			if e.Endpoint == "" {
				continue // its name is not resolved yet
			}
			there = append(there, e.Endpoint)
			if n, known := restarts[e.Endpoint]; known && n != e.Restarts {
				p.Cold(e.Endpoint)
			}
			restarts[e.Endpoint] = e.Restarts
		}
		p.Keep(there)
	})
	g.engines.SetBusy(p.Live)
	return admission.Placing{Aliases: g.names, Engines: roster{g.engines}, Placer: p}
}
