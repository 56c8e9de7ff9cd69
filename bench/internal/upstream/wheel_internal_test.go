package upstream

import (
	"context"
	"sync"
	"testing"
	"time"

	"tollgate/bench/internal/clock"
)

func TestAStreamThatComesBeforeTheWheelTurnsIsServed(t *testing.T) {
	w := newWheel()
	s := &stream{due: clock.Now(), done: make(chan struct{})}
	s.gone.Store(true) // its first step is its last
	w.add(s)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { w.run(ctx) })
	select {
	case <-s.done:
	case <-time.After(5 * time.Second):
		t.Error("not served within 5 s")
	}
	cancel()
	running.Wait()
}
