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
	// pipeSize is what a pipe holds while nobody reads it, in bytes; the kernel's
	// limit for an ordinary user.
	pipeSize = 1 << 20
	// copyBuffer is the most that one read takes.
	copyBuffer = 64 << 10
	// copyEvery is the time between two reads of a pipe that is not full: a
	// service that writes a line for each request would wake us for each.
	copyEvery = 100 * time.Millisecond
)

// pipes are the outputs of one process.
type pipes struct {
	readers, writers []*os.File
	to               []io.Writer
}

// add makes the pipe that ends in out.
func (p *pipes) add(out io.Writer) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	_, _ = unix.FcntlInt(r.Fd(), unix.F_SETPIPE_SZ, pipeSize) // it works with less
	_ = unix.SetNonblock(int(r.Fd()), true)                   // Fd made it blocking
	p.readers, p.writers, p.to = append(p.readers, r), append(p.writers, w), append(p.to, out)
	return w, nil
}

// copy copies until all pipes have ended; ending says that they soon will.
func (p *pipes) copy(ending <-chan struct{}) (copied <-chan struct{}) {
	var wg sync.WaitGroup
	for i := range p.readers {
		wg.Go(func() { drain(p.to[i], p.readers[i], ending) })
	}
	done := make(chan struct{})
	go func() { defer close(done); wg.Wait() }()
	return done
}

// drain copies until the end. A writer that fails loses output; it must not
// stop the child on a full pipe.
func drain(out io.Writer, r io.Reader, ending <-chan struct{}) {
	buf := make([]byte, copyBuffer)
	for {
		n, err := r.Read(buf)
		_, _ = out.Write(buf[:n])
		if err != nil {
			return
		}
		if n == len(buf) {
			continue
		}
		select {
		case <-ending:
		case <-time.After(copyEvery):
		}
	}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

func (p *pipes) closeWriters() { closeAll(p.writers) }
func (p *pipes) closeReaders() { closeAll(p.readers) }

// expire ends the reads of those who wait for output.
func (p *pipes) expire() {
	for _, r := range p.readers {
		_ = r.SetReadDeadline(time.Now())
	}
}

// Output runs a command to its end and returns what it wrote to standard output.
// When ctx ends first it is killed. Nothing of it is left behind, whatever
// happens to it or to us.
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
