package main

import (
	"context"

	"tollgate/internal/systemd"
)

// tellManager shows systemd what the launcher waits for, and feeds its watchdog. The
// watchdog is about the launcher alone: it supervises its children itself, and a
// restart of it would cut every stream.
func (h *host) tellManager() {
	systemd.Watch(h.killing, func(context.Context) (string, error) { return h.state(), nil })
}

// state is one line about all children. It takes the locks of everything that the
// launcher supervises, so that a launcher which is stuck returns nothing.
func (h *host) state() string {
	if h.stopping.Err() != nil {
		return "stopping: " + h.running()
	}
	if waiting := h.waiting(); waiting != "" {
		return "waiting for " + waiting
	}
	if !h.told.Load() {
		return "starting"
	}
	return "ready"
}

// sayStopping tells systemd that a stop has begun.
func (h *host) sayStopping() { systemd.Stopping("stopping: " + h.running()) }

// sayUp tells systemd that everything answers at url.
func (h *host) sayUp(url string) {
	h.told.Store(true)
	systemd.Ready("ready " + url)
}
