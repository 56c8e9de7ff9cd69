package upstream

import (
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tollgate/bench/internal/clock"
	"tollgate/bench/internal/script"
)

// stream is one event stream on its way. After begin it belongs to the wheel.
type stream struct {
	server  *Server
	conn    *net.TCPConn
	raw     syscall.RawConn
	script  script.Script
	usage   bool
	id      uint64
	account *account

	sent    int    // chunks written
	pending []byte // what the socket did not take yet
	scratch []byte
	tokens  int // of pending
	done    chan struct{}
	gone    atomic.Bool // the peer has closed

	due  int64
	next *stream // in the wheel
}

// begin writes the headers and the first chunk and reports whether more is to come.
func (s *stream) begin() bool {
	s.due = clock.Now()
	s.scratch = s.server.frames.get(frameKey{usage: s.usage}).appendTo(s.scratch[:0], s.id, 0)
	return s.chunk()
}

// step writes the next chunk; false ends the stream.
func (s *stream) step() bool {
	if s.gone.Load() {
		close(s.done)
		return false
	}
	now := clock.Now()
	if len(s.pending) > 0 {
		return s.write(now)
	}
	s.server.book.late.Load().Record(now - s.due)
	s.scratch = s.scratch[:0]
	return s.chunk()
}

// chunk appends the next chunk to scratch and writes it.
func (s *stream) chunk() bool {
	now := clock.Now()
	s.sent++
	last := s.sent >= s.script.Chunks && !s.script.Stall
	if s.script.Chunks > 0 {
		f := s.server.frames.get(frameKey{i: s.sent, usage: s.usage, last: last})
		s.scratch, s.tokens = f.appendTo(s.scratch, s.id, now), 1
	}
	s.pending = s.scratch
	return s.write(now)
}

// retry is when a full socket is tried again.
const retry = int64(time.Millisecond)

// write writes what is pending, without ever waiting: one slow reader must not
// delay the others.
func (s *stream) write(now int64) bool {
	var n int
	var werr error
	err := s.raw.Write(func(fd uintptr) bool {
		n, werr = unix.Write(int(fd), s.pending)
		return true
	})
	if err != nil || (werr != nil && werr != unix.EAGAIN && werr != unix.EINTR) {
		s.end(false)
		return false
	}
	if n = max(n, 0); n < len(s.pending) {
		s.pending = s.pending[n:]
		s.due = now + retry
		return true
	}
	s.pending = nil
	s.server.book.add(s.account, s.tokens)
	s.tokens = 0
	switch {
	case s.script.Cut > 0 && s.sent >= s.script.Cut:
		s.end(false)
		return false
	case s.sent < s.script.Chunks:
		s.due += s.script.Every.Nanoseconds()
		return true
	case s.script.Stall:
		return false // done is closed when the peer goes
	}
	s.account.done.Store(true)
	s.end(true)
	return false
}

// end tells the connection's reader; an answer that is not complete can only
// end with its connection.
func (s *stream) end(complete bool) {
	if !complete {
		_ = s.conn.Close()
	}
	close(s.done)
}

// newStream prepares an answer on a connection.
func (srv *Server) newStream(c *net.TCPConn, r *request) (*stream, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("open raw connection: %w", err)
	}
	return &stream{
		server: srv, conn: c, raw: raw, script: r.script, usage: r.usage, id: srv.ids.Add(1),
		account: srv.book.open(r.id), done: make(chan struct{}),
	}, nil
}
