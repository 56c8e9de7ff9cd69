package vllmsim_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tollgate/internal/vllmsim"
)

// reply is one answer, taken apart down to its chunks.
type reply struct {
	status  int
	headers map[string]string // lower case
	chunks  []string          // as framed; one for a body with a length
	ended   bool              // a chunked body had its end
}

func (r reply) body() string { return strings.Join(r.chunks, "") }

// readReply parses raw bytes of one response without the help of net/http,
// which would hide the framing.
func readReply(t *testing.T, raw []byte) reply {
	t.Helper()
	head, body, ok := bytes.Cut(raw, []byte("\r\n\r\n"))
	if !ok {
		t.Fatalf("no end of headers in %q", raw)
	}
	r := reply{headers: make(map[string]string)}
	lines := strings.Split(string(head), "\r\n")
	if _, err := fmt.Sscanf(lines[0], "HTTP/1.1 %d", &r.status); err != nil {
		t.Fatalf("status line %q: %v", lines[0], err)
	}
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ":")
		r.headers[strings.ToLower(name)] = strings.TrimSpace(value)
	}
	if r.headers["transfer-encoding"] != "chunked" {
		r.chunks, r.ended = []string{string(body)}, true
		return r
	}
	for {
		size, rest, ok := bytes.Cut(body, []byte("\r\n"))
		if !ok {
			return r
		}
		n, err := strconv.ParseInt(string(size), 16, 64)
		if err != nil || int(n) > len(rest) {
			t.Fatalf("chunk size %q before %d bytes", size, len(rest))
		}
		if n == 0 {
			r.ended = true
			return r
		}
		r.chunks = append(r.chunks, string(rest[:n]))
		body = rest[n+2:]
	}
}

// start serves a simulator on a free port.
func start(t *testing.T, opts vllmsim.Options) (*vllmsim.Sim, *httptest.Server) {
	t.Helper()
	sim := vllmsim.New(opts)
	srv := httptest.NewServer(sim)
	t.Cleanup(func() {
		sim.Reset() // cuts what hangs
		srv.Close()
	})
	return sim, srv
}

// exchange sends raw bytes and reads until the server closes.
func exchange(t *testing.T, srv *httptest.Server, request []byte) []byte {
	t.Helper()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(request); err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(conn)
	if err != nil && len(raw) == 0 {
		t.Fatalf("read answer: %v", err)
	}
	return raw
}

// send posts a body and returns the answer taken apart.
func send(t *testing.T, srv *httptest.Server, path, body string, headers ...string) reply {
	t.Helper()
	return readReply(t, exchange(t, srv, rawRequest(path, body, headers...)))
}

func rawRequest(path, body string, headers ...string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: sim\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n", path, len(body))
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	return []byte(b.String() + "\r\n" + body)
}

// recorded reads one file of testdata.
func recorded(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// exact are keys whose values belong to the shape.
var exact = map[string]bool{
	"object": true, "role": true, "type": true, "finish_reason": true, "stop_reason": true, "status": true,
	"param": true, "code": true, "message": true, "error": true, "detail": true, "index": true, "parent": true,
	"owned_by": true, "max_model_len": true, "version": true, "tool_choice": true, "truncation": true,
}

// shape renders JSON with its keys in order and its values by type. A list is
// the shape of its first element, but choices and models are all there.
func shape(t *testing.T, text string) string {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var b strings.Builder
	if err := writeShape(d, &b, ""); err != nil {
		t.Fatalf("shape of %q: %v", text, err)
	}
	return b.String()
}

func writeShape(d *json.Decoder, b *strings.Builder, key string) error {
	tok, err := d.Token()
	if err != nil {
		return err
	}
	switch v := tok.(type) {
	case json.Delim:
		if v == '{' {
			return objectShape(d, b)
		}
		return listShape(d, b, key)
	case nil:
		b.WriteString("null")
	case string:
		if exact[key] {
			b.WriteString(strconv.Quote(v))
		} else {
			b.WriteString("string")
		}
	case json.Number:
		if exact[key] {
			b.WriteString(v.String())
		} else {
			b.WriteString("number")
		}
	default:
		fmt.Fprintf(b, "%v", v)
	}
	return nil
}

func objectShape(d *json.Decoder, b *strings.Builder) error {
	b.WriteString("{")
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		key := fmt.Sprint(name)
		if _, err := strconv.Atoi(key); err == nil {
			key = "#" // token ids
		}
		b.WriteString(key + ":")
		if key == "bytes" { // empty for a token without text
			var skip any
			if err := d.Decode(&skip); err != nil {
				return err
			}
			b.WriteString("list ")
			continue
		}
		if err := writeShape(d, b, key); err != nil {
			return err
		}
		b.WriteString(" ")
	}
	b.WriteString("}")
	_, err := d.Token()
	return err
}

func listShape(d *json.Decoder, b *strings.Builder, key string) error {
	b.WriteString("[")
	all := key == "choices" || key == "data" || key == "tool_calls" || key == "content"
	var first string
	for i := 0; d.More(); i++ {
		var one strings.Builder
		if err := writeShape(d, &one, ""); err != nil {
			return err
		}
		if i == 0 {
			first = one.String()
			b.WriteString(first)
		} else if all && one.String() != first {
			b.WriteString("," + one.String())
		}
	}
	b.WriteString("]")
	_, err := d.Token()
	return err
}

// eventShape renders one SSE event.
func eventShape(t *testing.T, event string) string {
	t.Helper()
	var out []string
	sc := bufio.NewScanner(strings.NewReader(event))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		line := sc.Text()
		if data, ok := strings.CutPrefix(line, "data: "); ok && data != "[DONE]" {
			out = append(out, "data: "+shape(t, data))
			if strings.HasPrefix(data, `{"error": `) {
				out = append(out, "(spaced)")
			}
			continue
		}
		out = append(out, line)
	}
	if !strings.HasSuffix(event, "\n\n") {
		out = append(out, "(no empty line)")
	}
	return strings.Join(out, "\n")
}

// streamShape groups the events of a stream by choice, because the order
// between choices is timing, and drops repetitions, because the number of
// events without text is too.
func streamShape(t *testing.T, chunks []string) map[string][]string {
	t.Helper()
	out := make(map[string][]string)
	for _, c := range chunks {
		s := eventShape(t, c)
		group := "all"
		if _, rest, ok := strings.Cut(s, "choices:[{index:"); ok {
			group = rest[:1]
		}
		if list := out[group]; len(list) == 0 || list[len(list)-1] != s {
			out[group] = append(out[group], s)
		}
	}
	return out
}

// sse are the data lines of a body.
func sse(r reply) []string {
	var out []string
	for line := range strings.Lines(r.body()) {
		if data, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), "data: "); ok {
			out = append(out, data)
		}
	}
	return out
}

// usageOf is the usage in one data line, nil for none.
func usageOf(t *testing.T, data string) map[string]int {
	t.Helper()
	var v struct {
		Usage map[string]json.RawMessage `json:"usage"`
	}
	if err := json.Unmarshal([]byte(data), &v); err != nil {
		t.Fatalf("decode %q: %v", data, err)
	}
	if v.Usage == nil {
		return nil
	}
	out := make(map[string]int)
	for name, raw := range v.Usage {
		if n, err := strconv.Atoi(string(raw)); err == nil {
			out[name] = n
		}
	}
	return out
}

var _ http.Handler = (*vllmsim.Sim)(nil)
