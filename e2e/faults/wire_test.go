package faults_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// wire is a client that may stop at any byte.
type wire struct {
	t    *testing.T
	conn *net.TCPConn
	host string
	h2   bool
	fr   *http2.Framer
	wmu  sync.Mutex // of fr's writes

	mu   sync.Mutex
	got  strings.Builder // answer: head, then body; guarded by mu
	over bool            // nothing more will come; guarded by mu
	next uint32
}

// dial connects; with h2 it also says so.
func dial(t *testing.T, address string, h2 bool) *wire {
	t.Helper()
	c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(context.Background(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		t.Fatalf("not TCP: %T", c)
	}
	w := &wire{t: t, conn: tcp, host: address, h2: h2, next: 1}
	t.Cleanup(func() { _ = tcp.Close() })
	if h2 {
		w.fr = http2.NewFramer(tcp, tcp)
		w.write(func() error {
			if _, err := tcp.Write([]byte(http2.ClientPreface)); err != nil {
				return err
			}
			return w.fr.WriteSettings()
		})
		go w.readH2()
	} else {
		go w.readH1()
	}
	return w
}

// write runs f alone; a peer that is gone does not matter.
func (w *wire) write(f func() error) {
	w.wmu.Lock()
	defer w.wmu.Unlock()
	_ = f()
}

func (w *wire) add(b []byte) {
	w.mu.Lock()
	w.got.Write(b)
	w.mu.Unlock()
}

func (w *wire) end() {
	w.mu.Lock()
	w.over = true
	w.mu.Unlock()
}

func (w *wire) readH1() {
	defer w.end()
	buf := make([]byte, 32<<10)
	for {
		n, err := w.conn.Read(buf)
		w.add(buf[:n])
		if err != nil {
			return
		}
	}
}

func (w *wire) readH2() {
	defer w.end()
	for {
		f, err := w.fr.ReadFrame()
		if err != nil {
			return
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				w.write(w.fr.WriteSettingsAck)
			}
		case *http2.HeadersFrame:
			w.add([]byte("HTTP/2 "))
		case *http2.DataFrame:
			w.add(f.Data())
		}
		if f.Header().Flags.Has(http2.FlagDataEndStream) && (f.Header().Type == http2.FrameData || f.Header().Type == http2.FrameHeaders) {
			w.end()
		}
		if f.Header().Type == http2.FrameRSTStream {
			w.end()
		}
	}
}

// saw waits until the answer has s n times, or is over.
func (w *wire) saw(s string, n int) {
	end := time.Now().Add(5 * time.Second)
	for time.Now().Before(end) {
		w.mu.Lock()
		ok := strings.Count(w.got.String(), s) >= n || w.over
		w.mu.Unlock()
		if ok {
			return
		}
		time.Sleep(time.Millisecond) // another process's bytes
	}
	w.t.Errorf("the answer never had %q %d times", s, n)
}

// finish waits for the end of the answer.
func (w *wire) finish() {
	end := time.Now().Add(5 * time.Second)
	for time.Now().Before(end) {
		w.mu.Lock()
		ok := w.over || strings.HasSuffix(w.got.String(), "0\r\n\r\n") || strings.HasSuffix(w.got.String(), "}")
		w.mu.Unlock()
		if ok {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func head(path, key string, length int, h2 bool, host string) []byte {
	if !h2 {
		return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n", path, host, key, length)
	}
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for _, f := range [][2]string{
		{":method", "POST"},
		{":scheme", "http"},
		{":authority", host},
		{":path", path},
		{"content-type", "application/json"},
		{"authorization", "Bearer " + key},
		{"content-length", fmt.Sprint(length)},
	} {
		_ = e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	return b.Bytes()
}

// headers sends the head of a request, or the first half of it, and returns
// the stream's id.
func (w *wire) headers(path, key string, length int, half bool) uint32 {
	h := head(path, key, length, w.h2, w.host)
	id := w.next
	if half {
		h = h[:len(h)/2]
	}
	w.write(func() error {
		if !w.h2 {
			_, err := w.conn.Write(h)
			return err
		}
		return w.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: h, EndHeaders: !half})
	})
	w.next += 2
	return id
}

func (w *wire) body(id uint32, b []byte, last bool) {
	w.write(func() error {
		if !w.h2 {
			_, err := w.conn.Write(b)
			return err
		}
		return w.fr.WriteData(id, last, b)
	})
}

// send sends a whole request.
func (w *wire) send(path, key, body string) uint32 {
	id := w.headers(path, key, len(body), false)
	w.body(id, []byte(body), true)
	return id
}

func (w *wire) close() { _ = w.conn.Close() }

func (w *wire) reset() {
	_ = w.conn.SetLinger(0)
	_ = w.conn.Close()
}

// text is the answer so far.
func (w *wire) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.got.String()
}

// requestID reads the id in the head of an HTTP/1.1 answer.
func (w *wire) requestID() string {
	for line := range strings.Lines(w.text()) {
		if v, ok := strings.CutPrefix(line, "x-request-id: "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
