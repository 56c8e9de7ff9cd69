// Package upstream plays vLLM for measurements: a raw HTTP/1.1 server that
// writes prepared bytes, paces thousands of streams by one timer wheel, puts
// the time of writing into every chunk and keeps its own account of what it
// wrote for whom.
package upstream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"tollgate/bench/internal/clock"
)

// Paths of the upstream's own.
const (
	PathTruth = "/bench/truth" // GET: a Truth as JSON
	PathReset = "/bench/reset" // any method: starts a new account
)

// Server is one upstream.
type Server struct {
	frames frames
	wheel  *wheel
	book   *book
	ids    atomic.Uint64
}

// New returns an upstream that has seen nothing.
func New() *Server { return &Server{wheel: newWheel(), book: newBook()} }

// Serve answers on a TCP listener until ctx ends, then closes everything.
func (srv *Server) Serve(ctx context.Context, lis net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	running.Go(func() { srv.wheel.run(ctx) })
	stop := context.AfterFunc(ctx, func() { _ = lis.Close() })
	defer stop()
	for {
		c, err := lis.Accept()
		if err != nil {
			cancel()
			running.Wait()
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("accept: %w", err)
		}
		conn, ok := c.(*net.TCPConn)
		if !ok {
			return errors.New("accept: not a TCP connection")
		}
		running.Go(func() {
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer stop()
			defer func() { _ = conn.Close() }()
			srv.connection(conn)
		})
	}
}

// connection answers the requests of one connection until it ends.
func (srv *Server) connection(c *net.TCPConn) {
	br := bufio.NewReaderSize(c, 4096)
	for {
		r, err := readRequest(br)
		if err != nil || !srv.answer(c, br, r) {
			return
		}
	}
}

// answer answers one request; false ends the connection.
func (srv *Server) answer(c *net.TCPConn, br *bufio.Reader, r *request) bool {
	switch {
	case strings.HasSuffix(r.path, "/completions") && r.stream:
		return srv.stream(c, br, r)
	case strings.HasSuffix(r.path, "/completions"):
		a := srv.book.open(r.id)
		srv.book.add(a, r.script.Chunks)
		a.done.Store(true)
		return send(c, whole(r.script.Chunks, clock.Now()))
	case r.path == "/health":
		return send(c, simple("200 OK", "text/plain", ""))
	case r.path == "/v1/models":
		return send(c, simple("200 OK", "application/json",
			`{"object":"list","data":[{"id":"`+Model+`","object":"model","created":1795502288,"owned_by":"vllm","root":"`+Model+`","parent":null,"max_model_len":131072,"permission":[]}]}`))
	case r.path == PathReset:
		srv.book.reset()
		return send(c, simple("200 OK", "text/plain", ""))
	case r.path == PathTruth:
		var b bytes.Buffer
		if err := srv.book.write(&b); err != nil {
			return false
		}
		return send(c, simple("200 OK", "application/json", b.String()))
	}
	return send(c, simple("404 Not Found", "text/plain", "there is no "+strconv.Quote(r.path)))
}

// stream answers with an event stream and waits for its end, or for the peer's.
func (srv *Server) stream(c *net.TCPConn, br *bufio.Reader, r *request) bool {
	s, err := srv.newStream(c, r)
	if err != nil {
		return false
	}
	if s.begin() {
		srv.wheel.add(s)
	}
	// A peer sends nothing while it is answered: what comes is its end, or the
	// next request after this answer.
	if _, err := br.Peek(1); err != nil {
		s.gone.Store(true)
		return false
	}
	<-s.done
	return true
}

func send(c net.Conn, b []byte) bool {
	_, err := c.Write(b)
	return err == nil
}
