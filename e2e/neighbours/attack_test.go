package neighbours_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tollgate/e2e/stack"
)

const (
	honest   = "sk-test-honest-0123456789abcdef"
	attacker = "sk-test-attacker-0123456789abcdef"
)

// field is where an attack takes place. What it sends is counted, so that the
// harmless load of the other rounds can be as large.
type field struct {
	s  *stack.Stack
	up *stack.Upstream

	requests, bytes atomic.Int64
}

// attack does harm until its context ends.
type attack struct {
	name string
	run  func(context.Context, *field)
	// still holds connections only; there is no load to compare it with.
	still bool
}

var attacks = []attack{
	{"announced bodies", announced, true},
	{"unfinished uploads over HTTP/1.1", unfinished1, false},
	{"unfinished uploads over HTTP/2", unfinished2, false},
	{"idle connections", idle, true},
	{"a flood of what is refused at the door", refused, false},
	{"headers and trailers without a body", trailersOnly, false},
	{"a good body with trailers", trailersToo, false},
	{"requests that call themselves gRPC", grpcType, false},
	{"answers that cannot be read", unreadable, false},
	{"an event stream with a length", measured, false},
}

// each runs work on n goroutines until the context ends. Work that fails waits
// a little, as a client would.
func each(ctx context.Context, n int, work func(i int) error) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			for ctx.Err() == nil {
				if work(i) != nil {
					pause(ctx, 20*time.Millisecond)
				}
			}
		})
	}
	all.Wait()
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// hold opens n connections at once, has each say something, and holds them.
func hold(ctx context.Context, f *field, n int, say func(net.Conn)) {
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", f.s.Addr())
			if err != nil {
				return
			}
			defer func() { _ = conn.Close() }()
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer stop()
			say(conn)
			<-ctx.Done()
		})
	}
	all.Wait()
}

// head is a request of the attacker's without its body.
func head(framing string) string { return headOf(attacker, framing) }

func headOf(key, framing string) string {
	return "POST " + path + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + key +
		"\r\nContent-Type: application/json\r\n" + framing + "\r\n\r\n"
}

// announced: 16 bodies of 32 MiB of which no byte comes.
func announced(ctx context.Context, f *field) {
	hold(ctx, f, 16, func(c net.Conn) {
		f.requests.Add(1)
		_, _ = io.WriteString(c, head("Content-Length: "+strconv.Itoa(32<<20)))
	})
}

const (
	uploads    = 80
	uploadSize = 31 << 20
)

// unfinished1: 80 chunked uploads of 31 MiB without an end.
func unfinished1(ctx context.Context, f *field) { unfinishedOf(ctx, f, attacker, uploads) }

func unfinishedOf(ctx context.Context, f *field, key string, n int) {
	const size = 64 << 10
	chunk := []byte(fmt.Sprintf("%x\r\n", size) + strings.Repeat(" ", size) + "\r\n")
	hold(ctx, f, n, func(c net.Conn) {
		f.requests.Add(1)
		_, _ = io.WriteString(c, headOf(key, "Transfer-Encoding: chunked"))
		for range uploadSize / size {
			if _, err := c.Write(chunk); err != nil {
				return
			}
			f.bytes.Add(size)
		}
	})
}

// unfinished2 is the same over HTTP/2, ten streams a connection.
func unfinished2(ctx context.Context, f *field) {
	var all sync.WaitGroup
	for range uploads / 10 {
		h2 := new(http.Protocols)
		h2.SetUnencryptedHTTP2(true)
		t := &http.Transport{Protocols: h2}
		defer t.CloseIdleConnections()
		for range 10 {
			all.Go(func() {
				f.requests.Add(1)
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.s.URL+path, &endless{ctx: ctx, f: f, left: uploadSize})
				if err != nil {
					return
				}
				req.Header.Set("Authorization", "Bearer "+attacker)
				req.Header.Set("Content-Type", "application/json")
				if resp, err := t.RoundTrip(req); err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
				<-ctx.Done()
			})
		}
	}
	all.Wait()
}

// endless is a body that stops after some bytes and never ends.
type endless struct {
	ctx  context.Context //nolint:containedctx // of the request that it is the body of
	f    *field
	left int
}

func (e *endless) Read(b []byte) (int, error) {
	if e.left == 0 {
		<-e.ctx.Done()
		return 0, e.ctx.Err()
	}
	n := min(len(b), e.left)
	for i := range b[:n] {
		b[i] = ' '
	}
	e.left -= n
	e.f.bytes.Add(int64(n))
	return n, nil
}

// idle: connections that say nothing.
func idle(ctx context.Context, f *field) { hold(ctx, f, 200, func(net.Conn) {}) }

// do sends one request and reads its answer.
func (f *field) do(ctx context.Context, c *http.Client, method, path, body string, header ...string) error {
	req, err := http.NewRequestWithContext(ctx, method, f.s.URL+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	f.requests.Add(1)
	f.bytes.Add(int64(len(body)))
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// refused: 404, 405, 413, 400, 401 and preflights, one client each.
func refused(ctx context.Context, f *field) {
	c := newClient()
	defer c.CloseIdleConnections()
	key := []string{"Authorization", "Bearer " + attacker, "Content-Type", "application/json"}
	each(ctx, 6, func(i int) error {
		switch i {
		case 0:
			return f.do(ctx, c, http.MethodGet, "/v1/nothing", "")
		case 1:
			return f.do(ctx, c, http.MethodDelete, path, "")
		case 2:
			return f.do(ctx, c, http.MethodPost, path, strings.Repeat("x", 33<<20), key...)
		case 3:
			return f.do(ctx, c, http.MethodPost, path, "{", key...)
		case 4:
			return f.do(ctx, c, http.MethodPost, path, "{}", "Authorization", "Bearer sk-wrong-0123456789")
		}
		return f.do(ctx, c, http.MethodOptions, path, "", "Origin", "https://a.example", "Access-Control-Request-Method", "POST")
	})
}

// overFrames sends requests frame by frame over two connections.
func overFrames(ctx context.Context, f *field, send func(*frames)) {
	each(ctx, 2, func(int) error {
		c, err := newFrames(ctx, f.s)
		if err != nil {
			return err
		}
		defer func() { _ = c.conn.Close() }()
		stop := context.AfterFunc(ctx, func() { _ = c.conn.Close() })
		defer stop()
		for ctx.Err() == nil {
			f.requests.Add(1)
			send(c)
			if code, _ := c.status(5 * time.Second); code == 0 {
				return io.ErrUnexpectedEOF // a reset, or the connection has gone: anew
			}
		}
		return nil
	})
}

func trailersOnly(ctx context.Context, f *field) {
	overFrames(ctx, f, func(c *frames) {
		c.open(attacker, 0)
		c.headers(true, [][2]string{{"x-checksum", "1"}})
	})
}

func trailersToo(ctx context.Context, f *field) {
	overFrames(ctx, f, func(c *frames) {
		body := chat(500)
		f.bytes.Add(int64(len(body)))
		c.open(attacker, 0)
		c.data(body, false)
		c.headers(true, [][2]string{{"x-checksum", "1"}})
	})
}

func grpcType(ctx context.Context, f *field) {
	overFrames(ctx, f, func(c *frames) {
		c.open("sk-wrong-0123456789", 0, [2]string{"content-type", "application/grpc"}, [2]string{"te", "trailers"})
		c.data(chat(10), true)
	})
}

// scripted asks for answers that no engine should send.
func scripted(ctx context.Context, f *field, reply func() *stack.Reply) {
	c := newClient()
	defer c.CloseIdleConnections()
	each(ctx, 2, func(int) error {
		body := `{"model":"tiny","stream":true,"messages":[{"role":"user","content":"` + f.up.On(reply()) + `"}]}`
		return f.do(ctx, c, http.MethodPost, path, body, "Authorization", "Bearer "+attacker, "Content-Type", "application/json")
	})
}

func unreadable(ctx context.Context, f *field) {
	page := [][]byte{bytes.Repeat([]byte("<p>"), 3000)}
	scripted(ctx, f, func() *stack.Reply { return &stack.Reply{ContentType: "text/html", Pieces: page} })
}

func measured(ctx context.Context, f *field) {
	events := []byte(`data: {"choices":[{"index":0,"delta":{"content":"a"}}],"usage":{"prompt_tokens":7,"completion_tokens":1}}` + "\n\ndata: [DONE]\n\n")
	scripted(ctx, f, func() *stack.Reply {
		return &stack.Reply{
			ContentType: "text/event-stream", Pieces: [][]byte{events},
			Header: http.Header{"Content-Length": {strconv.Itoa(len(events))}},
		}
	})
}

func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}}
}
