// Package clock is one clock for all processes of a measurement: the kernel's
// CLOCK_MONOTONIC, in nanoseconds, which means the same in each of them.
package clock

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// anchor ties Go's clock, which is read without a system call, to the kernel's.
var anchor = func() (a struct {
	at time.Time
	ns int64
},
) {
	a.ns, a.at = kernel(), time.Now()
	return a
}()

func kernel() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0 // Linux has this clock since 2.6
	}
	return ts.Nano()
}

// Now is the time in nanoseconds.
func Now() int64 { return anchor.ns + int64(time.Since(anchor.at)) }

// WaitUntil blocks the calling thread until the clock says ns. It is for a
// goroutine that has locked its thread: a timer of the runtime wakes later.
func WaitUntil(ns int64) {
	ts := unix.NsecToTimespec(ns)
	for {
		err := unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &ts, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
