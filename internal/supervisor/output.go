package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pipeSize is the capacity of a pipe in bytes: the kernel's limit for an ordinary
	// user.
	pipeSize = 1 << 20
	// copyBuffer is the most that one read takes.
	copyBuffer = 64 << 10
	// copyLeast and copyMost bound the time between two reads of a pipe that is not
	// full: a service that writes a line for each request would wake us for each line.
	// Between the bounds the time is chosen so that a read finds copyGoal bytes: a
	// sixteenth of the pipe, so that a burst does not stop the child.
	copyLeast = 20 * time.Millisecond
	copyMost  = 500 * time.Millisecond
	copyGoal  = pipeSize / 16
)

// pipes are the outputs of one process. They are read by plain system calls and not
// through the runtime's poller: each line that a child writes would wake up the poller,
// even while we do not want to read.
type pipes struct {
	readers []int // nonblocking
	writers []*os.File
	to      []io.Writer
	wake    int // event that ends the wait for output
}

func newPipes() (*pipes, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make event: %w", err)
	}
	return &pipes{wake: wake}, nil
}

// add makes the pipe that ends in out.
func (p *pipes) add(out io.Writer) (*os.File, error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	w := os.NewFile(uintptr(ends[1]), "output")
	p.readers, p.writers, p.to = append(p.readers, ends[0]), append(p.writers, w), append(p.to, out)
	_, _ = unix.FcntlInt(uintptr(ends[0]), unix.F_SETPIPE_SZ, pipeSize) // it works with less
	if err := unix.SetNonblock(ends[0], true); err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	return w, nil
}

// copy copies until all pipes have ended; ending says that they soon will.
func (p *pipes) copy(ending <-chan struct{}) (copied <-chan struct{}) {
	var wg sync.WaitGroup
	for i := range p.readers {
		wg.Go(func() { drain(p.to[i], p.readers[i], p.wake, ending) })
	}
	done := make(chan struct{})
	go func() { defer close(done); wg.Wait() }()
	return done
}

// drain copies until the end. A writer that fails loses output; it must not
// stop the child on a full pipe.
func drain(out io.Writer, r, wake int, ending <-chan struct{}) {
	buf, last := make([]byte, copyBuffer), time.Now()
	for {
		n, err := unix.Read(r, buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			if !readable(r, wake) {
				return
			}
			continue
		case err != nil || n == 0:
			return
		}
		_, _ = out.Write(buf[:n])
		if n == len(buf) {
			continue
		}
		since := time.Since(last)
		last = time.Now()
		select {
		case <-ending:
		case <-time.After(patience(n, since)):
		}
	}
}

// patience returns how long to wait after n bytes have come in a time.
func patience(n int, since time.Duration) time.Duration {
	return min(max(time.Duration(float64(since)*copyGoal/float64(max(n, 1))), copyLeast), copyMost)
}

// readable waits for output or its end; it returns false when the wait was ended.
func readable(r, wake int) bool {
	for {
		fds := []unix.PollFd{{Fd: int32(r), Events: unix.POLLIN}, {Fd: int32(wake), Events: unix.POLLIN}} //nolint:gosec // descriptors are small
		if _, err := unix.Poll(fds, -1); errors.Is(err, unix.EINTR) {
			continue
		}
		return fds[1].Revents == 0
	}
}

func (p *pipes) closeWriters() {
	for _, w := range p.writers {
		_ = w.Close()
	}
}

// close closes the pipes after copy.
func (p *pipes) close() {
	for _, r := range p.readers {
		_ = unix.Close(r)
	}
	_ = unix.Close(p.wake)
}

// expire stops the copying; output that has not come yet is lost.
func (p *pipes) expire() { _, _ = unix.Write(p.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

// Output runs a command to its end and returns what it wrote to standard output. When
// ctx ends first it is killed. No process of it is left behind, even if this process
// dies.
func Output(ctx context.Context, c Command, out io.Writer, guard *Guard) (Exit, error) {
	p, err := start(c, out, guard)
	if err != nil {
		return Exit{}, fmt.Errorf("run %s: %w", c.Path, err)
	}
	select {
	case <-p.done():
		return p.exit(), nil
	case <-ctx.Done():
	}
	p.kill()
	select {
	case <-p.done():
		return p.exit(), ctx.Err()
	case <-time.After(killWait):
		return Exit{}, errors.Join(ctx.Err(), errors.New("it cannot be killed"))
	}
}
