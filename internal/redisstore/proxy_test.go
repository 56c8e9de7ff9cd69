package redisstore_test

import (
	"bytes"
	"net"
	"sync"
	"testing"
	"time"
)

// proxy carries bytes between stores and a server and can misbehave.
type proxy struct {
	t       testing.TB
	lis     net.Listener
	target  string
	wg      sync.WaitGroup
	mu      sync.Mutex
	conns   map[net.Conn]struct{} // guarded by mu, like all that follows
	delay   time.Duration         // of each chunk of replies
	silent  chan struct{}         // not nil: bytes wait until it is closed
	refuses bool
	loses   string // the reply to the next command that has it is lost, and the connection with it
	losing  bool   // that command is on its way
	lost    int    // replies
}

func startProxy(tb testing.TB, target string) *proxy {
	tb.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &proxy{t: tb, lis: lis, target: target, conns: map[net.Conn]struct{}{}}
	p.wg.Go(p.accept)
	tb.Cleanup(func() {
		lis.Close()
		p.set(0, false, true)
		p.wg.Wait()
	})
	return p
}

// set changes how the proxy behaves. refuses cuts all connections as well.
func (p *proxy) set(delay time.Duration, silent, refuses bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay, p.refuses = delay, refuses
	if p.silent != nil {
		close(p.silent)
		p.silent = nil
	}
	if silent {
		p.silent = make(chan struct{})
	}
	if refuses {
		for c := range p.conns {
			c.Close()
		}
	}
}

// lose makes the reply to one command that has the text in it get lost.
func (p *proxy) lose(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loses = text
}

// losses is how many replies were lost.
func (p *proxy) losses() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}

// cuts tells whether the chunk is a reply that is to be lost.
func (p *proxy) cuts(chunk []byte, reply bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case reply && p.losing:
		p.losing = false
		p.lost++
		return true
	case !reply && p.loses != "" && bytes.Contains(chunk, []byte(p.loses)):
		p.loses, p.losing = "", true
	}
	return false
}

func (p *proxy) accept() {
	for {
		in, err := p.lis.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.target)
		if err != nil || !p.keep(in, out) {
			in.Close()
			if out != nil {
				out.Close()
			}
			continue
		}
		p.wg.Go(func() { p.carry(out, in, false) })
		p.wg.Go(func() { p.carry(in, out, true) })
	}
}

func (p *proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.conns[c] = struct{}{}
	}
	return !p.refuses
}

func (p *proxy) carry(to, from net.Conn, replies bool) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		delay, silent := p.delay, p.silent
		p.mu.Unlock()
		if silent != nil {
			<-silent
		}
		if replies && delay > 0 {
			<-time.After(delay)
		}
		if p.cuts(buf[:n], replies) {
			return
		}
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}
