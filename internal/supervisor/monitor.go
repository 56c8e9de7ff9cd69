package supervisor

import (
	"context"
	"fmt"
	"time"

	"tollgate/internal/machine"
)

// minProbe is the shortest timeout of a readiness probe.
const minProbe = 5 * time.Second

// deadError says why a running process counts as dead.
type deadError struct {
	cause Cause
	error
}

func (d *deadError) Unwrap() error { return d.error }

// monitor sends nil when the child is ready, and an error when it is not in
// time or no longer alive. Nothing is sent after ctx has ended.
func (c *Child) monitor(ctx context.Context, events chan<- *deadError) {
	send := func(dead *deadError) bool {
		select {
		case events <- dead:
			return true
		case <-ctx.Done():
			return false
		}
	}
	err := c.awaitReady(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		send(&deadError{NotReady, err})
		return
	}
	if c.spec.OnReady != nil {
		c.spec.OnReady(ctx)
	}
	if !send(nil) || c.spec.Live == nil {
		return
	}
	if err := c.awaitDeath(ctx); err != nil {
		send(&deadError{Hung, err})
	}
}

// awaitReady returns nil when the child is ready.
func (c *Child) awaitReady(ctx context.Context) error {
	if c.spec.Ready == nil {
		return nil
	}
	var late <-chan time.Time
	if c.spec.ReadyTimeout > 0 {
		t := time.NewTimer(c.spec.ReadyTimeout)
		defer t.Stop()
		late = t.C
	}
	tick := time.NewTicker(c.spec.ReadyInterval)
	defer tick.Stop()
	for {
		err := probe(ctx, c.spec.Ready, max(c.spec.ReadyInterval, minProbe))
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-late:
			return fmt.Errorf("not ready after %s: %w", c.spec.ReadyTimeout, err)
		case <-tick.C:
		}
	}
}

// awaitDeath returns an error after so many misses in a row, nil when ctx ends.
func (c *Child) awaitDeath(ctx context.Context) error {
	tick := time.NewTicker(c.spec.LiveInterval)
	defer tick.Stop()
	misses := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := probe(ctx, c.spec.Live, c.spec.LiveTimeout)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			misses = 0
			continue
		case machine.OutOfFiles(err):
			// This process had no file descriptor for the question. To kill the child
			// would cut its requests and give no descriptor back.
			c.spec.Log.Warn("cannot probe child: no file descriptor is left", "child", c.spec.Name, "error", err)
			continue
		}
		if misses++; misses >= c.spec.LiveMisses {
			return fmt.Errorf("missed %d probes in a row: %w", misses, err)
		}
	}
}

func probe(ctx context.Context, f func(context.Context) error, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return f(ctx)
}
