package main

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"tollgate/internal/envoyadmin"
	"tollgate/internal/supervisor"
)

// stopAll lets live streams finish and stops in reverse: Envoy, tollgate, which
// has nothing to settle then, and the engine.
func (h *host) stopAll(admin *envoyadmin.Admin) {
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
func (h *host) drain(admin *envoyadmin.Admin) {
	ctx, cancel := context.WithTimeout(h.killing, h.cfg.DrainTimeout)
	defer cancel()
	if err := admin.Refuse(ctx); err != nil {
		h.log.Warn("cannot drain", "error", err)
		return
	}
	var active atomic.Int64
	done := h.console.follow(func() string {
		return fmt.Sprintf("draining: %d requests in flight, at most %s", active.Load(), h.cfg.DrainTimeout)
	})
	defer done()
	err := admin.Idle(ctx, func(requests int) { active.Store(int64(requests)) })
	switch n := active.Load(); {
	case err == nil || h.killing.Err() != nil:
	case ctx.Err() == nil:
		h.log.Warn("cannot see what is in flight", "error", err)
	case n > 0:
		h.log.Warn("drain_timeout is over, cutting what is left", "requests", n)
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
