// Package systemd tells systemd how a service is: that it is ready, reloads or stops,
// one line for people, and that it still lives (sd_notify(3), a unit of Type=notify).
// Without systemd above it every call does nothing.
package systemd

import (
	"context"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// reportEvery is between two reports where no watchdog asks for more.
const reportEvery = 5 * time.Second

// maxStatus bounds the line for people, in bytes.
const maxStatus = 400

// Ready says that the service serves. It ends a start and a reload.
func Ready(status string) { tell(daemon.SdNotifyReady + line(status)) }

// Reloading says that the service reads its files again; [Ready] must follow.
func Reloading() {
	state := daemon.SdNotifyReloading
	if now := daemon.SdNotifyMonotonicUsec(); now != "" {
		state += "\n" + now
	}
	tell(state)
}

// Stopping says that a stop has begun.
func Stopping(status string) { tell(daemon.SdNotifyStopping + line(status)) }

// tell ignores failures: a manager that hears nothing acts by its own timeouts, and
// the service must not fail for it.
func tell(state string) { _, _ = daemon.SdNotify(false, state) }

// line is the status as one line of the protocol.
func line(status string) string {
	status = strings.ToValidUTF8(strings.ReplaceAll(status, "\n", " "), "?")
	if len(status) > maxStatus {
		status = strings.ToValidUTF8(status[:maxStatus], "")
	}
	return "\nSTATUS=" + status
}

// Watch reports at once and then every few seconds until ctx ends: it shows the status
// that report returns, and feeds the unit's watchdog while report returns no error. A
// report that hangs or fails feeds nothing, so that systemd restarts the service after
// WatchdogSec. Each report has half of that time.
func Watch(ctx context.Context, report func(context.Context) (status string, err error)) {
	every := reportEvery
	watchdog, err := daemon.SdWatchdogEnabled(false)
	fed := err == nil && watchdog > 0
	if fed {
		every = min(every, watchdog/3)
	}
	t := time.NewTicker(every)
	defer t.Stop()
	said := ""
	for {
		within, cancel := context.WithTimeout(ctx, max(every, watchdog/2))
		status, err := report(within)
		cancel()
		state := ""
		if err == nil && fed {
			state = daemon.SdNotifyWatchdog
		}
		if status != said {
			said, state = status, state+line(status)
		}
		if state = strings.TrimPrefix(state, "\n"); state != "" && ctx.Err() == nil {
			tell(state)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}
