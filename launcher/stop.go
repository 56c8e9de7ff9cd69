package main

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"tollgate/internal/supervisor"
)

// drainPoll is the time between two looks at the number of active requests.
const drainPoll = 100 * time.Millisecond

// stopAll lets live streams finish and stops in reverse: Envoy, tollgate, which
// has nothing to settle then, and the engine.
func (h *host) stopAll(admin *envoyAdmin) {
	if u := h.unit(envoyName); u != nil && u.child.Status().State == supervisor.Ready && h.killing.Err() == nil {
		h.drain(admin)
	}
	done := h.console.follow(func() string { return "stopping: " + h.running() })
	defer done()
	for _, name := range []string{envoyName, tollgateName, engineName} {
		h.unit(name).end()
	}
}

// drain refuses new connections and waits until no request is active, at most
// for drain_timeout.
func (h *host) drain(admin *envoyAdmin) {
	ctx, cancel := context.WithTimeout(h.killing, h.cfg.DrainTimeout)
	defer cancel()
	if err := admin.drain(ctx); err != nil {
		h.log.Warn("cannot drain", "error", err)
		return
	}
	var active atomic.Int64
	done := h.console.follow(func() string {
		return fmt.Sprintf("draining: %d requests in flight, at most %s", active.Load(), h.cfg.DrainTimeout)
	})
	defer done()
	t := time.NewTicker(drainPoll)
	defer t.Stop()
	for {
		n, err := admin.stat(ctx, "http.edge.downstream_rq_active")
		switch {
		case ctx.Err() != nil:
			if n := active.Load(); n > 0 && h.killing.Err() == nil {
				h.log.Warn("drain_timeout is over, cutting what is left", "requests", n)
			}
			return
		case err != nil:
			h.log.Warn("cannot see what is in flight", "error", err)
			return
		case n == 0:
			return
		}
		active.Store(int64(n))
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
}

// running names the children that have not stopped.
func (h *host) running() string {
	var names []string
	for _, u := range h.all() {
		if st := u.child.Status(); st.State != supervisor.Stopped {
			names = append(names, st.Name+" "+string(st.State))
		}
	}
	return strings.Join(names, ", ")
}
