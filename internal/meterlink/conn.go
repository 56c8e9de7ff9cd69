package meterlink

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	// helloTimeout is what a connection gets for its first line.
	helloTimeout = 5 * time.Second
	// sayTimeout is how long a meter may not read before its connection is given up.
	sayTimeout = 500 * time.Millisecond
	// unsent is how many bytes may wait for a meter that does not read.
	unsent = 4 << 20
	// readAhead is the buffer of a connection in bytes.
	readAhead = 64 << 10
)

// Versions of the protocol that are served, the oldest and the newest: a running
// Envoy keeps the library that it has opened, so tollgate is often newer.
const (
	oldest = 1
	newest = 1
)

// conn is one connection of a meter. What is said to it goes through one
// goroutine, so that nobody waits for Envoy.
type conn struct {
	net.Conn

	mu     sync.Mutex
	out    []byte // guarded by mu; waits to be written
	dead   bool   // guarded by mu
	wake   chan struct{}
	polled []chan struct{} // guarded by mu; closed at the next complete list
}

// say sends a line of words.
func (c *conn) say(words ...string) {
	c.mu.Lock()
	if c.dead {
		c.mu.Unlock()
		return
	}
	for i, w := range words {
		if i > 0 {
			c.out = append(c.out, ' ')
		}
		c.out = append(c.out, w...)
	}
	c.out = append(c.out, '\n')
	full := len(c.out) > unsent
	c.mu.Unlock()
	if full {
		c.close()
		return
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// close ends the connection; its reader notices.
func (c *conn) close() {
	c.mu.Lock()
	c.dead = true
	polled := c.polled
	c.polled = nil
	c.mu.Unlock()
	for _, p := range polled {
		close(p)
	}
	_ = c.Close()
}

// poll asks for the running counts; the channel is closed when they have come, or
// never will.
func (c *conn) poll() <-chan struct{} {
	done := make(chan struct{})
	c.mu.Lock()
	dead := c.dead
	if !dead {
		c.polled = append(c.polled, done)
	}
	c.mu.Unlock()
	if dead {
		close(done)
		return done
	}
	c.say("p")
	return done
}

// listed wakes all callers that wait for a complete list.
func (c *conn) listed() {
	c.mu.Lock()
	polled := c.polled
	c.polled = nil
	c.mu.Unlock()
	for _, p := range polled {
		close(p)
	}
}

// write sends what is said until done is closed or the meter does not read.
func (c *conn) write(done <-chan struct{}) {
	var spare []byte
	for {
		select {
		case <-done:
			return
		case <-c.wake:
		}
		c.mu.Lock()
		out := c.out
		c.out = spare[:0]
		c.mu.Unlock()
		_ = c.SetWriteDeadline(time.Now().Add(sayTimeout))
		if _, err := c.Write(out); err != nil {
			c.close()
			return
		}
		spare = out
	}
}

// serve speaks with one meter until it leaves or ctx ends.
func (s *Server) serve(ctx context.Context, raw net.Conn) {
	c := &conn{Conn: raw, wake: make(chan struct{}, 1)}
	done := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() { c.write(done) })
	stop := context.AfterFunc(ctx, c.close)
	defer writing.Wait()
	defer close(done)
	defer c.close()
	defer stop()

	lines := bufio.NewReaderSize(raw, readAhead)
	_ = raw.SetReadDeadline(time.Now().Add(helloTimeout))
	h, err := s.greet(c, lines)
	if err != nil {
		if ctx.Err() == nil {
			s.o.Log.Warn("a meter is sent away", "error", err)
		}
		return
	}
	_ = raw.SetReadDeadline(time.Time{})
	i := s.join(c, h.instance)
	defer s.leave(ctx, i, c)
	s.o.Log.Info("a meter is here", "instance", h.instance, "pid", h.pid, "build", h.build)
	if err := s.listen(i, c, lines); err != nil && ctx.Err() == nil {
		s.o.Log.Warn("a meter is cut off", "instance", h.instance, "error", err)
	}
}

// errNotMeter means that a connection does not begin as a meter's does.
var errNotMeter = errors.New("does not begin with hello")

// greet reads the first line and answers it.
func (s *Server) greet(c *conn, lines *bufio.Reader) (hello, error) {
	line, err := readLine(lines)
	if err != nil {
		return hello{}, err
	}
	w := words(line)
	if string(w[0]) != "hello" {
		return hello{}, errNotMeter
	}
	h, err := readHello(w[1:])
	if err != nil {
		return h, err
	}
	if h.version < oldest || h.version > newest {
		// Written here, because the connection is closed behind it.
		_ = c.SetWriteDeadline(time.Now().Add(sayTimeout))
		_, _ = c.Write([]byte("bye version\n"))
		return h, fmt.Errorf("%w: its protocol is version %d, served are %d to %d", errNotMeter, h.version, oldest, newest)
	}
	c.say("welcome", fmt.Sprint(h.version))
	return h, nil
}

// errLong means that a line is longer than any that a meter may send.
var errLong = fmt.Errorf("a line of more than %d bytes", longestLine)

// readLine reads a line without its end; valid until the next call.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	switch {
	case len(line) > longestLine:
		return nil, errLong
	case err != nil:
		return nil, err // io.EOF too: a torn line says nothing
	}
	return line[:len(line)-1], nil
}
