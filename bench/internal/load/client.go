package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
)

// exchange is one answer that is being read. close gives the connection back
// when the answer was read to its end, and breaks it off otherwise.
type exchange struct {
	status int
	id     string // x-request-id
	body   io.Reader
	close  func(whole bool)
}

// client sends one request at a time per connection.
type client interface {
	do(ctx context.Context, scriptValue string) (*exchange, error)
}

func newClient(j *Job) (client, error) {
	u, err := url.Parse(j.URL)
	if err != nil {
		return nil, fmt.Errorf("parse URL: %w", err)
	}
	body := requestBody(j)
	if j.HTTP2 || u.Scheme == "https" {
		return newStandard(j, body), nil
	}
	return newRaw(j, u, body), nil
}

// path is the route that every lane uses.
const path = "/v1/chat/completions"

// requestBody is the body of all requests of a job; what the upstream must see
// comes first.
func requestBody(j *Job) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"model":%q`, j.Model)
	if j.Stream {
		b.WriteString(`,"stream":true`)
		if j.Ask {
			b.WriteString(`,"stream_options":{"include_usage":true,"continuous_usage_stats":true}`)
		}
	}
	b.WriteString(`,"messages":[{"role":"user","content":"`)
	const words = "The quick brown fox jumps over the lazy dog. "
	for n := j.Body; n > 0; n -= len(words) {
		b.WriteString(words[:min(n, len(words))])
	}
	b.WriteString(`"}]}`)
	return b.Bytes()
}

// raw is HTTP/1.1 without a framework, so that the load costs little of the
// machine that it measures.
type raw struct {
	addr       string
	head, tail []byte // around the script's value

	mu   sync.Mutex
	idle []*rawConn // guarded by mu
}

type rawConn struct {
	net.Conn
	br  *bufio.Reader
	out []byte
}

func newRaw(j *Job, u *url.URL, body []byte) *raw {
	r := &raw{addr: u.Host}
	if u.Port() == "" {
		r.addr = net.JoinHostPort(u.Hostname(), "80")
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nhost: %s\r\ncontent-type: application/json\r\nuser-agent: bench\r\n", path, u.Host)
	if j.Key != "" {
		fmt.Fprintf(&b, "authorization: Bearer %s\r\n", j.Key)
	}
	fmt.Fprintf(&b, "content-length: %d\r\nx-bench: ", len(body))
	r.head = b.Bytes()
	r.tail = append([]byte("\r\n\r\n"), body...)
	return r
}

func (r *raw) conn(ctx context.Context) (*rawConn, error) {
	r.mu.Lock()
	if n := len(r.idle); n > 0 {
		c := r.idle[n-1]
		r.idle = r.idle[:n-1]
		r.mu.Unlock()
		return c, nil
	}
	r.mu.Unlock()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.addr)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	return &rawConn{Conn: c, br: bufio.NewReaderSize(c, 4096)}, nil
}

func (r *raw) do(ctx context.Context, scriptValue string) (*exchange, error) {
	c, err := r.conn(ctx)
	if err != nil {
		return nil, err
	}
	c.out = append(append(append(c.out[:0], r.head...), scriptValue...), r.tail...)
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	resp, err := c.roundTrip() //nolint:bodyclose // the body ends with the exchange: close ends the connection or gives it back
	if err != nil {
		stop()
		_ = c.Close()
		return nil, err
	}
	return &exchange{
		status: resp.StatusCode, id: resp.Header.Get("x-request-id"), body: resp.Body,
		close: func(whole bool) {
			if !stop() || !whole || resp.Close {
				_ = c.Close()
				return
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.idle = append(r.idle, c)
		},
	}, nil
}

func (c *rawConn) roundTrip() (*http.Response, error) {
	if _, err := c.Write(c.out); err != nil {
		return nil, fmt.Errorf("write: %w", err)
	}
	resp, err := http.ReadResponse(c.br, nil)
	if err != nil {
		return nil, fmt.Errorf("read headers: %w", err)
	}
	return resp, nil
}

// standard is net/http, for HTTP/2 and for TLS.
type standard struct {
	job    *Job
	body   []byte
	client *http.Client
}

func newStandard(j *Job, body []byte) *standard {
	t := &http.Transport{
		DisableCompression: true, MaxIdleConnsPerHost: 4096, Protocols: &http.Protocols{},
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
	}
	t.Protocols.SetHTTP1(!j.HTTP2)
	t.Protocols.SetHTTP2(true)
	t.Protocols.SetUnencryptedHTTP2(j.HTTP2)
	return &standard{job: j, body: body, client: &http.Client{Transport: t}}
}

func (s *standard) do(ctx context.Context, scriptValue string) (*exchange, error) {
	ctx, cancel := context.WithCancel(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.job.URL+path, bytes.NewReader(s.body))
	if err != nil {
		cancel()
		return nil, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("content-type", "application/json")
	req.Header.Set("x-bench", scriptValue)
	if s.job.Key != "" {
		req.Header.Set("authorization", "Bearer "+s.job.Key)
	}
	resp, err := s.client.Do(req) //nolint:bodyclose // close of the exchange does it
	if err != nil {
		cancel()
		return nil, fmt.Errorf("send: %w", err)
	}
	return &exchange{
		status: resp.StatusCode, id: resp.Header.Get("x-request-id"), body: resp.Body,
		close: func(bool) { cancel(); _ = resp.Body.Close() },
	}, nil
}

// errEnd is an answer that ended too early.
var errEnd = errors.New("answer is not complete")

// kind is the name under which an error is counted.
func kind(err error) string {
	var s statusError
	switch {
	case errors.As(err, &s):
		return "status " + strconv.Itoa(int(s))
	case errors.Is(err, errEnd):
		return "not complete"
	}
	for err != nil {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
	return ""
}

type statusError int

func (s statusError) Error() string { return "status " + strconv.Itoa(int(s)) }
