package lifetimes_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate/e2e/stack"
)

// open is a live request, seen from its client.
type open struct {
	cancel context.CancelFunc
	rest   *io.PipeWriter // of the body, where the request uploads
	drips  chan struct{}  // closed when the upload stops to drip
	body   string
	reads  chan struct{} // closed when the client reads its answer
	once   sync.Once
	status chan int

	mu   sync.Mutex
	conn net.Conn // guarded by mu
}

// open sends the request of a cell on a connection of its own.
func (c *cell) open(t *testing.T) *open {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	o := &open{cancel: cancel, body: c.body(), reads: make(chan struct{}), status: make(chan int, 1)}
	if !strings.Contains(c.end.name, "slow reader") {
		o.read()
	}
	var body io.Reader = strings.NewReader(o.body)
	if c.uploads {
		body, o.rest = io.Pipe()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.s.URL+stack.ChatPath, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+stack.Key)
	req.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: o.transport(c.h2)}
	t.Cleanup(func() { o.leave(); client.CloseIdleConnections() })
	go func() { o.status <- o.do(client, req) }()
	if c.uploads {
		o.drips = make(chan struct{})
		go o.drip()
	}
	return o
}

// drip uploads the first byte of the body, and white space: a little more than
// the gateway asks for at least.
func (o *open) drip() {
	_, err := io.WriteString(o.rest, o.body[:1])
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for err == nil {
		select {
		case <-o.drips:
			return
		case <-tick.C:
			_, err = io.WriteString(o.rest, strings.Repeat(" ", 1<<10))
		}
	}
}

// stall stops the upload. What it writes last may be on its way still.
func (o *open) stall() { close(o.drips) }

func (o *open) transport(h2 bool) *http.Transport {
	tr := &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		o.mu.Lock()
		o.conn = conn
		o.mu.Unlock()
		return conn, err
	}}
	if h2 {
		tr.Protocols = new(http.Protocols)
		tr.Protocols.SetUnencryptedHTTP2(true)
	}
	return tr
}

// do plays the client to its end and returns the status that it saw, 0 for none.
func (o *open) do(client *http.Client, req *http.Request) int {
	resp, err := client.Do(req)
	if err != nil {
		return 0
	}
	defer func() { _ = resp.Body.Close() }()
	<-o.reads
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// leave ends the request as a client does that has lost interest.
func (o *open) leave() {
	o.cancel()
	if o.rest != nil {
		_ = o.rest.CloseWithError(context.Canceled)
	}
}

// wait waits for the client's end.
func (o *open) wait(t *testing.T, limit time.Duration) int {
	t.Helper()
	defer o.leave()
	select {
	case status := <-o.status:
		return status
	case <-time.After(limit):
		t.Fatalf("the request has no end after %v", limit)
		return 0
	}
}

// read lets the client read its answer.
func (o *open) read() { o.once.Do(func() { close(o.reads) }) }

// reset loses the client's connection: no FIN, no RST_STREAM, a TCP reset.
func (o *open) reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if tcp, ok := o.conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = o.conn.Close()
}

// finishBody sends what is left of the body.
func (o *open) finishBody() {
	o.stall()
	_, _ = io.WriteString(o.rest, o.body[1:])
	_ = o.rest.Close()
}

// tooMuch sends more than the gateway takes.
func (o *open) tooMuch() { _, _ = io.WriteString(o.rest, strings.Repeat(" ", 2<<20)) }

// wrongBody ends the body in the middle of its JSON.
func (o *open) wrongBody() {
	o.stall()
	_ = o.rest.Close()
}
