package supervisor

import (
	"fmt"
	"strings"
	"time"
)

// State of a [Child].
type State string

// The states. The zero value is not one of them.
const (
	Stopped  State = "stopped"  // not started yet, or stopped as asked
	Starting State = "starting" // runs, not ready
	Ready    State = "ready"
	Draining State = "draining" // asked to stop
	Backoff  State = "backoff"  // crashed, waits for the next start
	Failed   State = "failed"   // given up
)

// Cause is why a child was started again. The set is closed: it is the label of
// a metric.
type Cause string

// The causes.
const (
	Crash    Cause = "crash"     // the child ended by itself, or could not be started again
	Hung     Cause = "hung"      // it missed its probes, or its work stood still
	NotReady Cause = "not_ready" // it was not ready in time
	Asked    Cause = "asked"     // a user asked for it
)

// Causes lists every cause once.
func Causes() []Cause { return []Cause{Crash, Hung, NotReady, Asked} }

// Restarts counts the starts after the first, by cause.
type Restarts struct {
	Crash    int `json:"crash"`
	Hung     int `json:"hung"`
	NotReady int `json:"not_ready"`
	Asked    int `json:"asked"`
}

func (r *Restarts) add(c Cause) {
	switch c {
	case Crash:
		r.Crash++
	case Hung:
		r.Hung++
	case NotReady:
		r.NotReady++
	case Asked:
		r.Asked++
	}
}

// Exit describes how a process ended.
type Exit struct {
	// Code is the exit status, -1 when a signal ended the process or it could
	// not be started.
	Code   int    `json:"code"`
	Signal string `json:"signal,omitempty"`
	// Reason adds what the supervisor knows: the process was hung, was not ready in
	// time, or could not be started.
	Reason string `json:"reason,omitempty"`
	// Cause is why the supervisor took the process for dead; empty after a stop.
	Cause Cause     `json:"cause,omitempty"`
	At    time.Time `json:"at"`
	// Left is how many processes of the group could not be killed.
	Left int `json:"left,omitempty"`
}

// String returns a few words.
func (e Exit) String() string {
	var parts []string
	if e.Reason != "" {
		parts = append(parts, e.Reason)
	}
	switch {
	case e.Signal != "":
		parts = append(parts, "signal: "+e.Signal)
	case e.Code >= 0:
		parts = append(parts, fmt.Sprintf("exit status %d", e.Code))
	}
	if e.Left > 0 {
		parts = append(parts, fmt.Sprintf("%d processes could not be killed", e.Left))
	}
	return strings.Join(parts, ", ")
}

// Status is the current state of a [Child].
type Status struct {
	Name     string    `json:"name"`
	State    State     `json:"state"`
	PID      int       `json:"pid,omitempty"`        // zero when none runs
	Since    time.Time `json:"since"`                // of the state
	Restarts int       `json:"restarts"`             // unasked ones
	By       Restarts  `json:"restarts_by,omitzero"` // all of them; absent while there was none
	LastExit *Exit     `json:"last_exit,omitempty"`
	// LostLines counts the lines that the child's log has lost since the launcher
	// started. The owner of the log fills it in.
	LostLines int64 `json:"lost_log_lines,omitempty"`
}

// GaveUpError is returned when a child is not started again. Its text shows the
// last lines of the child's log.
type GaveUpError struct {
	Name    string
	Exit    Exit
	Crashes int // within the window of the policy
	Tail    []string
}

func (e *GaveUpError) Error() string {
	s := fmt.Sprintf("%s crashed (%s) and is given up after %d crashes", e.Name, e.Exit, e.Crashes)
	if e.Crashes == 1 {
		s = fmt.Sprintf("%s cannot run (%s)", e.Name, e.Exit)
	}
	if len(e.Tail) > 0 {
		s += "; its last lines:\n  " + strings.Join(e.Tail, "\n  ")
	}
	return s
}
