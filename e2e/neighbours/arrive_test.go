package neighbours_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"tollgate/e2e/stack"
	"tollgate/internal/vllmsim"
)

// witness is an engine that remembers how requests came.
type witness struct {
	sim *vllmsim.Sim

	mu   sync.Mutex
	seen []*http.Request // guarded by mu
	body []string        // guarded by mu
}

func (w *witness) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		w.mu.Lock()
		w.seen = append(w.seen, r.Clone(r.Context()))
		at := len(w.body)
		w.body = append(w.body, "")
		w.mu.Unlock()
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		w.mu.Lock()
		w.body[at] = string(body)
		w.mu.Unlock()
	}
	w.sim.ServeHTTP(rw, r)
}

// requests is how many have come so far, their headers at least.
func (w *witness) requests() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.seen)
}

func (w *witness) last() (*http.Request, string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen[len(w.seen)-1], w.body[len(w.body)-1]
}

func startWitness(t *testing.T) (*witness, string) {
	t.Helper()
	w := &witness{sim: vllmsim.New(vllmsim.Options{Models: []string{"tiny"}, MaxModelLen: 8 << 20})}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: w, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(lis) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return w, lis.Addr().String()
}

const path = "/v1/chat/completions"

// chat is a request of about n bytes.
func chat(n int) string {
	return `{"model":"tiny","stream":true,"max_tokens":3,"messages":[{"role":"user","content":"` + strings.Repeat("x", n) + `"}]}`
}

// frames is an HTTP/2 connection with one stream at a time, frame by frame.
type frames struct {
	conn  net.Conn
	f     *http2.Framer
	block bytes.Buffer
	pack  *hpack.Encoder
	id    uint32
}

// dialFrames connects and opens the first stream.
func dialFrames(t *testing.T, s *stack.Stack, key string, length int) *frames {
	t.Helper()
	c, err := newFrames(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.conn.Close() })
	c.open(key, length)
	return c
}

func newFrames(ctx context.Context, s *stack.Stack) (*frames, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.Addr())
	if err != nil {
		return nil, err
	}
	_, err = io.WriteString(conn, http2.ClientPreface)
	c := &frames{conn: conn, f: http2.NewFramer(conn, conn)}
	c.pack = hpack.NewEncoder(&c.block)
	c.f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = c.f.WriteSettings()
	return c, err
}

// open begins a chat on a new stream; more are further headers.
func (c *frames) open(key string, length int, more ...[2]string) {
	c.id += 2
	if c.id == 2 {
		c.id = 1
	}
	head := [][2]string{
		{":method", "POST"},
		{":scheme", "http"},
		{":path", path},
		{":authority", "gw"},
		{"authorization", "Bearer " + key},
	}
	if length > 0 {
		head = append(head, [2]string{"content-length", strconv.Itoa(length)})
	}
	if len(more) == 0 {
		more = [][2]string{{"content-type", "application/json"}}
	}
	c.headers(false, append(head, more...))
}

func (c *frames) headers(end bool, head [][2]string) {
	c.block.Reset()
	for _, h := range head {
		_ = c.pack.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
	}
	_ = c.f.WriteHeaders(http2.HeadersFrameParam{StreamID: c.id, BlockFragment: c.block.Bytes(), EndHeaders: true, EndStream: end})
}

// data sends b in frames of at most 16 KiB.
func (c *frames) data(b string, end bool) {
	for len(b) > 16384 {
		_ = c.f.WriteData(c.id, false, []byte(b[:16384]))
		b = b[16384:]
	}
	_ = c.f.WriteData(c.id, end, []byte(b))
}

// acknowledge answers what belongs to the connection.
func (c *frames) acknowledge(f http2.Frame) {
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			_ = c.f.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			_ = c.f.WritePing(true, f.Data)
		}
	}
}

// status reads until the answer is whole and returns its status, 0 for none.
func (c *frames) status(limit time.Duration) (code int, body string) {
	_ = c.conn.SetReadDeadline(time.Now().Add(limit))
	for {
		f, err := c.f.ReadFrame()
		if err != nil {
			return code, body
		}
		if id := f.Header().StreamID; id != 0 && id != c.id {
			continue // of a stream before
		}
		switch f := f.(type) {
		case *http2.SettingsFrame, *http2.PingFrame:
			c.acknowledge(f)
		case *http2.MetaHeadersFrame:
			if v := f.PseudoValue("status"); v != "" {
				code, _ = strconv.Atoi(v)
			}
		case *http2.DataFrame:
			body += string(f.Data())
			if n := uint32(len(f.Data())); n > 0 {
				_ = c.f.WriteWindowUpdate(0, n)
			}
		}
		if ends(f.Header()) {
			return code, body
		}
	}
}

// ends tells whether a frame ends its stream.
func ends(h http2.FrameHeader) bool {
	switch h.Type { //nolint:exhaustive // the others end nothing
	case http2.FrameRSTStream:
		return true
	case http2.FrameHeaders, http2.FrameData:
		return h.Flags.Has(http2.FlagHeadersEndStream) // the same bit in both
	}
	return false
}

// pieces writes a body one piece at a time, with a length or without.
func pieces(t *testing.T, s *stack.Stack, c *http.Client, length int64, parts ...string) *stack.Answer {
	t.Helper()
	r, w := io.Pipe()
	go func() {
		for i, p := range parts {
			if i > 0 {
				<-time.After(30 * time.Millisecond) // the pieces must not arrive as one
			}
			if _, err := io.WriteString(w, p); err != nil {
				return
			}
		}
		_ = w.Close()
	}()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+path, r)
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = length
	req.Header.Set("Authorization", "Bearer "+stack.Key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	a := &stack.Answer{Response: resp}
	a.Bytes, a.Err = io.ReadAll(resp.Body)
	return a
}

// cut cuts s into n parts.
func cut(s string, n int) (parts []string) {
	size := (len(s) + n - 1) / n
	for len(s) > 0 {
		parts = append(parts, s[:min(size, len(s))])
		s = s[min(size, len(s)):]
	}
	return parts
}

// TestBodiesArriveInAnyWay: whole, in pieces, with a length or without, with
// trailers; the engine gets the checked body once, in chunks, and never
// anything of a request before it was checked.
func TestBodiesArriveInAnyWay(t *testing.T) {
	t.Parallel()
	w, addr := startWitness(t)
	s := stack.Start(t, stack.Options{Engine: addr})
	wantServed := func(t *testing.T, status int, body string, bytes int) {
		t.Helper()
		if status != http.StatusOK || !strings.Contains(body, "[DONE]") {
			t.Fatalf("got %d %.300s", status, body)
		}
		r, got := w.last()
		if r.ContentLength >= 0 || len(got) < bytes || !strings.Contains(got, "continuous_usage_stats") {
			t.Errorf("the engine got content-length %d and %d bytes: %.120s", r.ContentLength, len(got), got)
		}
	}
	for name, c := range map[string]*http.Client{"HTTP/1.1": s.HTTP1, "HTTP/2": s.HTTP2} {
		for _, size := range []int{10, 100_000, 3 << 20} {
			for _, n := range []int{1, 2, 7} {
				body := chat(size)
				a := pieces(t, s, c, int64(len(body)), cut(body, n)...)
				wantServed(t, a.StatusCode, string(a.Bytes), size)
				a = pieces(t, s, c, -1, cut(body, n)...)
				wantServed(t, a.StatusCode, string(a.Bytes), size)
				if t.Failed() {
					t.Fatalf("%s, %d bytes in %d pieces", name, size, n)
				}
			}
		}
	}
	for _, size := range []int{10, 40_000} {
		for _, length := range []int{0, len(chat(size))} {
			c := dialFrames(t, s, stack.Key, length)
			c.data(chat(size), false)
			c.headers(true, [][2]string{{"x-checksum", "1"}})
			code, body := c.status(10 * time.Second)
			wantServed(t, code, body, size)
		}
	}
	t.Run("trailing white space", func(t *testing.T) {
		a := pieces(t, s, s.HTTP1, -1, chat(10), "\r\n", " ")
		wantServed(t, a.StatusCode, string(a.Bytes), 10)
	})
}

// TestNothingUncheckedReachesTheEngine holds for every way of not being a good
// request, whatever has arrived of it.
func TestNothingUncheckedReachesTheEngine(t *testing.T) {
	t.Parallel()
	w, addr := startWitness(t)
	s := stack.Start(t, stack.Options{Engine: addr})
	refused := func(t *testing.T, a *stack.Answer) {
		t.Helper()
		stack.WantProblem(t, a, stack.Problem{Status: 400, Type: "invalid_request_error", Code: "invalid_request"})
	}
	for name, parts := range map[string][]string{
		"not JSON":        {"{\"model\":", "\"tiny\"}}"},
		"half an object":  {`{"model":"tiny",`, `"messages":[`},
		"a second object": {chat(10), `{"model":"tiny"}`},
		"empty":           {""},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, pieces(t, s, s.HTTP1, -1, parts...))
			refused(t, pieces(t, s, s.HTTP2, -1, parts...))
		})
	}
	t.Run("trailers instead of a body", func(t *testing.T) {
		c := dialFrames(t, s, stack.Key, 0)
		c.headers(true, [][2]string{{"x-checksum", "1"}})
		if code, body := c.status(10 * time.Second); code != http.StatusBadRequest {
			t.Errorf("got %d %s", code, body)
		}
	})
	t.Run("half a body, then trailers", func(t *testing.T) {
		c := dialFrames(t, s, stack.Key, 0)
		c.data(chat(10)[:40], false)
		c.headers(true, [][2]string{{"x-checksum", "1"}})
		if code, body := c.status(10 * time.Second); code != http.StatusBadRequest {
			t.Errorf("got %d %s", code, body)
		}
	})
	t.Run("never finished", func(t *testing.T) {
		c := dialFrames(t, s, stack.Key, 0)
		c.data(chat(10), false) // whole by its own account, but not ended
		half := dialFrames(t, s, stack.Key, 0)
		half.data(chat(10)[:40], false)
		stack.Eventually(t, 5*time.Second, "both to be held", func() bool { return s.Metric("tollgate_leases_live") == 2 })
		<-time.After(100 * time.Millisecond) // nothing may come: there is no event to wait for
	})
	if n := w.requests(); n != 0 {
		t.Errorf("the engine saw %d requests", n)
	}
}

// TestALargeBodyGoesToAnotherEngine: where the first engine has just gone, a
// body is sent again whatever its size.
func TestALargeBodyGoesToAnotherEngine(t *testing.T) {
	t.Parallel()
	_, stays := startWitness(t)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	goes := &http.Server{Handler: vllmsim.New(vllmsim.Options{Models: []string{"tiny"}, MaxModelLen: 8 << 20}), ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() { defer close(done); _ = goes.Serve(lis) }()
	t.Cleanup(func() { _ = goes.Close(); <-done })
	s := stack.Start(t, stack.Options{Engine: stays, VLLM: "  endpoints: [\"" + stays + "\", \"" + lis.Addr().String() + "\"]\n"})
	body := chat(3 << 20)
	if a := s.Post(path, body); a.StatusCode != http.StatusOK {
		t.Fatalf("got %d %.200s", a.StatusCode, a.Bytes)
	}
	_ = goes.Close()
	var all sync.WaitGroup
	for range 6 { // both are chosen before the health check has seen it
		all.Go(func() {
			if a := s.Post(path, body); a.StatusCode != http.StatusOK {
				t.Errorf("got %d %.200s", a.StatusCode, a.Bytes)
			}
		})
	}
	all.Wait()
}
