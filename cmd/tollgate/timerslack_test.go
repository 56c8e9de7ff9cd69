package main

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// slackChild is set in the process that TestTheServiceMaySleepLonger looks at.
const slackChild = "TOLLGATE_TEST_SLACK"

func TestMain(m *testing.M) {
	if os.Getenv(slackChild) != "" {
		saySlack()
		return
	}
	m.Run() // its status becomes the program's
}

// saySlack is main of that process.
func saySlack() {
	easeTimers(os.Args, os.Environ())
	slack := make(chan int)
	go func() { // on any thread
		n, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
		if err != nil {
			n = -1
		}
		slack <- n
	}()
	fmt.Fprintln(os.Stdout, os.Getpid(), time.Duration(<-slack), len(os.Args))
}

// TestTheServiceMaySleepLonger: all threads get the slack, in the process that
// was started and with its arguments.
func TestTheServiceMaySleepLonger(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "one", "two")
	cmd.Env = append(os.Environ(), slackChild+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if want := fmt.Sprintln(cmd.Process.Pid, timerSlack, 3); string(out) != want {
		t.Errorf("got %q, want %q", out, want)
	}
}
