package engine

import (
	"context"

	"tollgate/internal/admission"
)

// Generated reads the counters of generated tokens of all engines that are ready,
// summed up.
func (p *Pool) Generated(ctx context.Context) (admission.Generation, error) {
	var sum admission.Generation
	for i, s := range p.States() {
		if !s.Ready {
			continue
		}
		m, err := p.clients[i].Metrics(ctx)
		if err != nil {
			return sum, err
		}
		sum.Tokens += m.Generation
		sum.Running += m.Running
		sum.Engines++
	}
	return sum, nil
}
