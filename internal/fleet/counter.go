package fleet

import (
	"context"
	"fmt"

	"tollgate/internal/admission"
)

// Generated reads the counters of generated tokens of all engines that are ready,
// summed up.
func (f *Fleet) Generated(ctx context.Context) (admission.Generation, error) {
	f.mu.Lock()
	var ready []*member
	for _, e := range f.entries {
		for _, m := range e.members {
			if m.ready {
				ready = append(ready, m)
			}
		}
	}
	f.mu.Unlock()
	var sum admission.Generation
	for _, m := range ready {
		now, err := m.client.Metrics(ctx)
		if err != nil {
			return sum, fmt.Errorf("read counters of %s: %w", m.address, err)
		}
		sum.Tokens += now.Generation
		sum.Running += now.Running
		sum.Engines++
	}
	return sum, nil
}
