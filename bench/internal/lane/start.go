package lane

import (
	"context"
	"fmt"
	"time"

	"tollgate/bench/internal/rig"
)

// Started is how long a gateway takes from its first process to its first answer.
type Started struct {
	Target string  `json:"target"`
	Cold   float64 `json:"cold_ms"` // empty state folder
	Warm   float64 `json:"warm_ms"` // with the state of an earlier life, ledger included
}

// Starts measures starts, the median of Rounds.
func (b *Bench) Starts(ctx context.Context) error {
	for _, kind := range []rig.Kind{rig.Plain, rig.Bare, rig.ExtProc, rig.Tollgate} {
		var cold, warm []float64
		for round := range b.Rounds {
			name := fmt.Sprintf("start-%s-%d", kind, round)
			for _, to := range []*[]float64{&cold, &warm} {
				took, err := b.start(ctx, kind, name)
				if err != nil {
					return fmt.Errorf("measure start of %s: %w", kind, err)
				}
				*to = append(*to, took)
			}
		}
		s := Started{Target: string(kind), Cold: median(cold), Warm: median(warm)}
		b.Startups = append(b.Startups, s)
		fmt.Fprintf(b.Progress, "start      %-12s cold %.0f ms, warm %.0f ms\n", s.Target, s.Cold, s.Warm)
	}
	return nil
}

// start starts a stack, puts some load on it, which leaves a ledger, and stops it.
func (b *Bench) start(ctx context.Context, kind rig.Kind, name string) (float64, error) {
	begun := time.Now()
	s, err := b.Rig.Start(ctx, kind, name, "")
	if err != nil {
		return 0, err
	}
	took := time.Since(begun)
	defer s.Stop()
	j := closed(20, 2, 5*time.Millisecond)
	j.Duration = time.Second
	_, err = b.measure(ctx, "warm-up", 0, Target{Name: string(kind), Stack: s, Strip: kind != rig.Plain}, j)
	return ms(took.Nanoseconds()), err
}
