package service

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// greeting is what a client gets for its handshake and the first bytes of its
	// protocol. Envoy gives its side a second.
	greeting = 10 * time.Second
	// greeted bounds the connections that have shown no certificate yet. Above it the
	// oldest is closed, not the newest: an Envoy needs milliseconds, and a stranger who
	// opens thousands must not keep it out.
	greeted = 256
	// preface begins each HTTP/2 connection, and no HTTP/1 request.
	preface = "PRI"
	// firstRead is enough for the preface, and for most of what follows it.
	firstRead = 512
)

const (
	protocolGRPC = "grpc"
	protocolHTTP = "http"
)

// Port is one TCP port with mutual TLS and two protocols. HTTP/2 is gRPC, everything
// else is HTTP/1. The first bytes tell, whatever ALPN said: an Envoy that names no
// protocol, or another one, is understood too.
type Port struct {
	lis        net.Listener
	config     func() *tls.Config
	log        hclog.Logger
	metrics    *Metrics
	grpc, http *half
	refusals   refusals
	patience   time.Duration // greeting

	mu      sync.Mutex
	waiting map[uint64]net.Conn // those that have shown nothing yet, by the order of arrival
	oldest  uint64              // none before it waits
	arrived uint64
	closed  bool
}

// Listen opens the port. [Port.Serve] must run beside the servers of its two halves.
func Listen(ctx context.Context, address string, certificates *Certificates, log hclog.Logger, metrics *Metrics) (*Port, error) {
	// A client whose host has gone is found in half a minute.
	c := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4}}
	lis, err := c.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("service.listen: %w", err)
	}
	return &Port{
		lis: lis, config: certificates.Config, log: log, metrics: metrics,
		grpc: newHalf(lis.Addr()), http: newHalf(lis.Addr()), patience: greeting, waiting: map[uint64]net.Conn{},
	}, nil
}

// Addr is the address that the port listens on.
func (p *Port) Addr() net.Addr { return p.lis.Addr() }

// GRPC has the connections that speak HTTP/2, handshake done.
func (p *Port) GRPC() net.Listener { return p.grpc }

// HTTP has the connections that speak HTTP/1, handshake done.
func (p *Port) HTTP() net.Listener { return p.http }

// Serve accepts connections until [Port.Close]; then it returns nil, with every
// connection closed that has come to no server yet.
func (p *Port) Serve() error {
	var greetings sync.WaitGroup
	defer greetings.Wait()
	defer p.dismiss()
	for pause := time.Duration(0); ; {
		conn, err := p.lis.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			// Out of file descriptors, or the client has left: neither is a reason to stop.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			<-time.After(pause)
			continue
		}
		pause = 0
		place := p.await(conn) // here, in the order in which they came
		greetings.Go(func() { p.greet(conn, place) })
	}
}

// Close ends [Port.Serve]. Connections that have come to a server are the server's.
func (p *Port) Close() error {
	err := p.lis.Close()
	_, _ = p.grpc.Close(), p.http.Close()
	p.dismiss()
	return err
}

// greet does the handshake and hands the connection to the server of its protocol.
func (p *Port) greet(conn net.Conn, place uint64) {
	defer p.leave(place)
	ctx, cancel := context.WithTimeout(context.Background(), p.patience)
	defer cancel()
	end, _ := ctx.Deadline()
	secure := tls.Server(conn, p.config())
	if err := secure.HandshakeContext(ctx); err != nil {
		p.refuse(conn, place, reasonOf(err))
		return
	}
	head := make([]byte, firstRead)
	_ = secure.SetReadDeadline(end)
	n, err := io.ReadAtLeast(secure, head, len(preface))
	if err != nil {
		p.refuse(conn, place, reasonOf(err))
		return
	}
	_ = secure.SetReadDeadline(time.Time{})
	to, protocol := p.http, protocolHTTP
	if bytes.HasPrefix(head, []byte(preface)) {
		to, protocol = p.grpc, protocolGRPC
	}
	open := p.metrics.connections.WithLabelValues(protocol)
	open.Inc()
	to.give(&client{Conn: secure, head: head[:n], gone: sync.OnceFunc(open.Dec)})
}

// await remembers a connection until it has shown who it is.
func (p *Port) await(conn net.Conn) (place uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_ = conn.Close()
	}
	place = p.arrived
	p.arrived++
	p.waiting[place] = conn
	for ; len(p.waiting) > greeted; p.oldest++ {
		if c, ok := p.waiting[p.oldest]; ok {
			_ = c.Close()
			delete(p.waiting, p.oldest)
		}
	}
	return place
}

func (p *Port) leave(place uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, place)
}

// dismiss closes what has come to no server yet.
func (p *Port) dismiss() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, c := range p.waiting {
		_ = c.Close()
	}
}

// refuse closes a connection because of its client.
func (p *Port) refuse(conn net.Conn, place uint64, why reason) {
	from := conn.RemoteAddr()
	_ = conn.Close()
	p.mu.Lock()
	ours := p.closed
	if _, waits := p.waiting[place]; !waits {
		why = crowded
	}
	p.mu.Unlock()
	if ours {
		return
	}
	p.metrics.refused.WithLabelValues(string(why)).Inc()
	if why != left && p.refusals.due(why, time.Now()) {
		p.log.Warn("a connection to service.listen was refused", "from", from.String(), "reason", string(why))
	}
}

// half is the listener of one protocol.
type half struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	close func()
}

func newHalf(addr net.Addr) *half {
	h := &half{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
	h.close = sync.OnceFunc(func() { close(h.done) })
	return h
}

// give waits until the server takes the connection, or closes it when there is none
// any more.
func (h *half) give(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.done:
		_ = c.Close()
	}
}

// Accept implements [net.Listener].
func (h *half) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener]; it does not close the port.
func (h *half) Close() error {
	h.close()
	return nil
}

// Addr implements [net.Listener].
func (h *half) Addr() net.Addr { return h.addr }

// client is a connection whose first bytes have been read.
type client struct {
	*tls.Conn
	head []byte
	gone func()
}

// Read implements [net.Conn].
func (c *client) Read(b []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(b, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// Close implements [net.Conn].
func (c *client) Close() error {
	c.gone()
	return c.Conn.Close()
}
