package lane

import (
	"context"
	"fmt"
	"time"
)

// Capacity is an interval: what a target carried, and the next step, which it
// did not.
type Capacity struct {
	Target  string `json:"target"`
	Carried int    `json:"carried_chunks_per_s"` // 0: not even the first step
	Failed  int    `json:"failed_chunks_per_s"`
	Why     string `json:"why"` // the step failed
}

const (
	capacityPace  = 20 * time.Millisecond
	capacityFirst = 40   // streams
	capacityStep  = 1.25 // from one step to the next
	capacityLast  = 4000 // streams
	// A stream is carried while its chunks come in time and its first one does.
	capacityLag  = 50.0  // ms, p99
	capacityTTFT = 500.0 // ms, p99
)

// Capacity raises the number of streams until a target fails. The upstream and
// the driver share the machine with it, as in every lane: it is what this
// machine carries, not what Envoy could on one of its own.
func (b *Bench) Capacity(ctx context.Context) error {
	for _, t := range b.Targets {
		if t.Name != NamePlain && t.Name != NameBare && t.Stack.Kind != "tollgate" {
			continue
		}
		c := Capacity{Target: t.Name}
		for n := float64(capacityFirst); n < capacityLast; n *= capacityStep {
			chunks, why, err := b.carries(ctx, t, int(n))
			if err != nil {
				return fmt.Errorf("measure capacity of %s: %w", t.Name, err)
			}
			fmt.Fprintf(b.Progress, "%-10s %-12s %d chunks/s %s\n", "capacity", t.Name, chunks, why)
			if why != "" {
				c.Failed, c.Why = chunks, why
				break
			}
			c.Carried = chunks
		}
		b.Capacities = append(b.Capacities, c)
		fmt.Fprintf(b.Progress, "capacity   %-12s carried %d, not %d chunks/s: %s\n", c.Target, c.Carried, c.Failed, c.Why)
	}
	return nil
}

// carries reports why n streams are too many, or nothing; a step that fails is
// tried twice more, since other work may have hit it.
func (b *Bench) carries(ctx context.Context, t Target, n int) (chunks int, why string, err error) {
	j := closed(n, 100, capacityPace)
	j.Duration = 4 * time.Second
	chunks = n * int(time.Second/capacityPace)
	for range 3 {
		run, err := b.measure(ctx, "capacity", 0, t, j)
		if err != nil {
			return 0, "", err
		}
		switch {
		case run.Void != "":
			why = run.Void
		case run.Lag99 > capacityLag:
			why = fmt.Sprintf("delay p99 %.0f ms (upstream late p99 %.0f ms)", run.Lag99, run.Late99)
		case run.TTFT99 > capacityTTFT:
			why = fmt.Sprintf("TTFT p99 %.0f ms", run.TTFT99)
		case run.Late99 > capacityLag:
			why = fmt.Sprintf("the upstream itself was late: p99 %.0f ms", run.Late99)
		default:
			return chunks, "", nil
		}
	}
	return chunks, why, nil
}
