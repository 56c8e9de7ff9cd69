package main

import (
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// timerSlack is how much later than asked the kernel may end a sleep. Go's
// monitor thread asks for 20 µs again and again while anything runs; with
// Linux's 50 µs of slack that is eight more wake-ups for each short answer, and a tenth
// of what the service costs. See docs/decisions/0011-processors.md.
const timerSlack = time.Millisecond

// init keeps main on the first thread, which [easeTimers] needs: the signal that
// ends us with our parent belongs to it, and an exec from another one loses it.
func init() { runtime.LockOSThread() } //nolint:gochecknoinits // what Go has for this

// easeTimers starts this program anew, in the same process, with more slack for
// all of its threads. The monitor exists before any of our code runs, and a
// thread's slack can be set by nobody else, but is kept over an exec. It does
// nothing where the slack is that large already, and goes on with what there is
// where the system refuses. main calls it first.
func easeTimers(args, environ []string) {
	before, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil || time.Duration(before) >= timerSlack {
		return
	}
	program, err := os.Executable()
	if err != nil || unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(timerSlack), 0, 0, 0) != nil {
		return
	}
	_ = unix.Exec(program, args, environ) // returns only where it failed
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(before), 0, 0, 0)
}

// serves tells that the command line runs the service.
func serves(args []string) bool { return slices.Contains(args, "serve") }
