package main

import (
	"context"
	"os"
	"time"

	"tollgate/internal/config"
	"tollgate/internal/probe"
	"tollgate/internal/systemd"
)

// readyPoll is the time between two looks at a service that starts.
const readyPoll = 50 * time.Millisecond

// tellManager tells a systemd above us that the service is ready as soon as its own
// health service says so over the socket, and feeds the unit's watchdog while it does.
// A stop is told when ctx ends; the watchdog is fed until the returned function is
// called, because a stop waits for live streams. Without systemd nothing runs.
func tellManager(ctx context.Context, cfg *config.Config) (done func()) {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return func() {}
	}
	watching, cancel := context.WithCancel(context.WithoutCancel(ctx))
	forget := context.AfterFunc(ctx, func() { systemd.Stopping("waiting for live streams") })
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		service := &probe.Probe{Socket: cfg.InState(config.GRPCSocket)}
		defer service.Close()
		if !awaitServing(ctx, watching, service) {
			return
		}
		systemd.Ready("serving")
		systemd.Watch(watching, func(within context.Context) (string, error) {
			if ctx.Err() != nil {
				return "waiting for live streams", nil //nolint:nilerr // its health service says that it does not serve
			}
			if err := service.Serving(within); err != nil {
				return "does not answer its own probe", err
			}
			return "serving", nil
		})
	}()
	return func() { forget(); cancel(); <-ended }
}

// awaitServing returns true when the service serves, and false when a stop or an end
// came first.
func awaitServing(stop, end context.Context, service *probe.Probe) bool {
	t := time.NewTicker(readyPoll)
	defer t.Stop()
	for service.Serving(end) != nil {
		select {
		case <-stop.Done():
			return false
		case <-end.Done():
			return false
		case <-t.C:
		}
	}
	return true
}
