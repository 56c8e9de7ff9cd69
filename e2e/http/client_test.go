package http_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// protocol is how a client speaks.
type protocol string

const (
	http10 protocol = "HTTP/1.0" // proxies of old, and what checks their health
	http11 protocol = "HTTP/1.1"
	h2     protocol = "HTTP/2"
	h2c    protocol = "h2c upgrade" // an offer of HTTP/2 on HTTP/1.1
)

// framing is how a body is sent.
type framing string

const (
	length       framing = "length"
	chunked      framing = "chunked" // HTTP/2: DATA without content-length
	byteByByte   framing = "byte by byte"
	noBody       framing = "none"
	zeroLength   framing = "length 0"
	trailers     framing = "trailers behind the body"
	trailersOnly framing = "trailers alone" // HTTP/1.1: no chunk before them
	emptyData    framing = "trailers behind an empty DATA frame"
	expect       framing = "Expect: 100-continue"
	unfinished   framing = "unfinished" // half of what content-length says
)

// request is one request as it goes over the wire.
type request struct {
	proto   protocol
	path    string
	body    string
	framing framing
	headers [][2]string   // in lower case
	pause   time.Duration // HTTP/2: between a body and its trailers
}

// answer is what came back.
type answer struct {
	status   int // 0: none
	interim  []int
	header   http.Header
	body     []byte
	fault    string // why there is no whole answer
	protocol string
}

const patience = 3 * time.Second

// send sends a request on a connection of its own.
func send(t *testing.T, address string, r request) answer {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if r.proto == h2 {
		return sendH2(conn, address, r)
	}
	return sendH1(conn, address, r)
}

func sendH1(conn net.Conn, address string, r request) (a answer) {
	read := bufio.NewReader(conn)
	if err := writeH1(conn, read, address, r, &a); err != nil {
		return answer{fault: err.Error()}
	}
	for {
		resp, err := http.ReadResponse(read, &http.Request{Method: http.MethodPost})
		if err != nil {
			a.fault = err.Error()
			return a
		}
		if resp.StatusCode >= 100 && resp.StatusCode < 200 {
			a.interim = append(a.interim, resp.StatusCode)
			continue
		}
		a.status, a.header, a.protocol = resp.StatusCode, resp.Header, resp.Proto
		if a.body, err = io.ReadAll(resp.Body); err != nil {
			a.fault = err.Error()
		}
		_ = resp.Body.Close()
		return a
	}
}

// writeH1 writes a request. Behind an Expect the body waits for the interim
// answer; a final one in its place is left to be read.
func writeH1(conn net.Conn, read *bufio.Reader, address string, r request, a *answer) error {
	var b bytes.Buffer
	version := "HTTP/1.1"
	if r.proto == http10 {
		version = "HTTP/1.0"
	}
	fmt.Fprintf(&b, "POST %s %s\r\nHost: %s\r\n", r.path, version, address)
	for _, h := range r.headers {
		fmt.Fprintf(&b, "%s: %s\r\n", h[0], h[1])
	}
	if r.proto == h2c {
		b.WriteString("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n")
	}
	switch r.framing {
	case length, byteByByte:
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(r.body), r.body)
	case unfinished:
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", 2*len(r.body), r.body)
	case noBody:
		b.WriteString("\r\n")
	case zeroLength:
		b.WriteString("Content-Length: 0\r\n\r\n")
	case chunked:
		half := len(r.body) / 2
		fmt.Fprintf(&b, "Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", half, r.body[:half], len(r.body)-half, r.body[half:])
	case trailers:
		fmt.Fprintf(&b, "Transfer-Encoding: chunked\r\nTrailer: x-check\r\n\r\n%x\r\n%s\r\n0\r\nx-check: 1\r\n\r\n", len(r.body), r.body)
	case trailersOnly, emptyData:
		b.WriteString("Transfer-Encoding: chunked\r\nTrailer: x-check\r\n\r\n0\r\nx-check: 1\r\n\r\n")
	case expect:
		fmt.Fprintf(&b, "Expect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(r.body))
		return writeExpecting(conn, read, b.Bytes(), r.body, a)
	}
	if r.framing == byteByByte {
		for _, c := range b.Bytes() {
			if _, err := conn.Write([]byte{c}); err != nil {
				return fmt.Errorf("write: %w", err)
			}
		}
		return nil
	}
	_, _ = conn.Write(b.Bytes()) // an early answer may close the connection; it is still to be read
	return nil
}

func writeExpecting(conn net.Conn, read *bufio.Reader, head []byte, body string, a *answer) error {
	if _, err := conn.Write(head); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	line, err := read.Peek(len("HTTP/1.1 100"))
	if err != nil {
		return fmt.Errorf("wait for the interim answer: %w", err)
	}
	if !bytes.HasSuffix(line, []byte(" 100")) {
		return nil
	}
	for { // the interim answer has no headers that matter
		line, err := read.ReadString('\n')
		if err != nil {
			return fmt.Errorf("read the interim answer: %w", err)
		}
		if strings.TrimSpace(line) == "" {
			break
		}
	}
	a.interim = append(a.interim, http.StatusContinue)
	_, err = io.WriteString(conn, body)
	return err
}

// sendH2 speaks HTTP/2 with prior knowledge, frame by frame: net/http sends no
// request of headers and trailers alone.
func sendH2(conn net.Conn, address string, r request) answer {
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return answer{fault: err.Error()}
	}
	_ = framer.WriteSettings()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	encode := func(fields [][2]string) []byte {
		block.Reset()
		for _, f := range fields {
			_ = encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
		return bytes.Clone(block.Bytes())
	}
	fields := append([][2]string{{":method", "POST"}, {":scheme", "http"}, {":authority", address}, {":path", r.path}}, r.headers...)
	fields = append(fields, lengthOf(r)...)
	alone := r.framing == noBody || r.framing == zeroLength
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: encode(fields), EndHeaders: true, EndStream: alone})
	writeBodyH2(framer, r)
	if r.pause > 0 {
		time.Sleep(r.pause) // what is tested
	}
	if r.framing == trailers || r.framing == trailersOnly || r.framing == emptyData {
		_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: encode([][2]string{{"x-check", "1"}}), EndHeaders: true, EndStream: true})
	}
	return readH2(framer)
}

// lengthOf are the headers that a framing brings along in HTTP/2.
func lengthOf(r request) [][2]string {
	switch r.framing {
	case length, byteByByte:
		return [][2]string{{"content-length", strconv.Itoa(len(r.body))}}
	case expect:
		return [][2]string{{"content-length", strconv.Itoa(len(r.body))}, {"expect", "100-continue"}}
	case unfinished:
		return [][2]string{{"content-length", strconv.Itoa(2 * len(r.body))}}
	case zeroLength:
		return [][2]string{{"content-length", "0"}}
	case noBody, chunked, trailers, trailersOnly, emptyData:
	}
	return nil
}

func writeBodyH2(framer *http2.Framer, r request) {
	switch r.framing {
	case length, expect, chunked:
		_ = framer.WriteData(1, true, []byte(r.body))
	case byteByByte:
		for i := range len(r.body) {
			_ = framer.WriteData(1, i == len(r.body)-1, []byte{r.body[i]})
		}
	case unfinished, trailers:
		_ = framer.WriteData(1, false, []byte(r.body))
	case emptyData:
		_ = framer.WriteData(1, false, nil)
	case noBody, zeroLength, trailersOnly:
	}
}

func readH2(framer *http2.Framer) (a answer) {
	a.protocol, a.header = "HTTP/2.0", http.Header{}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			a.fault = err.Error()
			return a
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = framer.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			status, _ := strconv.Atoi(f.PseudoValue("status"))
			if status >= 100 && status < 200 {
				a.interim = append(a.interim, status)
				continue
			}
			if status != 0 {
				a.status = status
			}
			for _, h := range f.RegularFields() {
				a.header.Add(h.Name, h.Value)
			}
			if f.StreamEnded() {
				return a
			}
		case *http2.DataFrame:
			a.body = append(a.body, f.Data()...)
			if f.StreamEnded() {
				return a
			}
		case *http2.RSTStreamFrame:
			a.fault = "reset: " + f.ErrCode.String()
			return a
		case *http2.GoAwayFrame:
			a.fault = "goaway: " + f.ErrCode.String()
			return a
		}
	}
}

// shape is the body of an answer in one word: "chat", "events", the code of an
// OpenAI error, the type of an Anthropic one with "anthropic " before it.
func (a answer) shape() string {
	kind := a.header.Get("content-type")
	if strings.HasPrefix(kind, "text/event-stream") {
		return "events"
	}
	if kind != "application/json" {
		return "content-type " + kind
	}
	var body struct {
		Type    string            `json:"type"`
		Choices []json.RawMessage `json:"choices"`
		Content []json.RawMessage `json:"content"`
		Error   *struct {
			Message, Type string
			Code          any
		} `json:"error"`
	}
	if err := json.Unmarshal(a.body, &body); err != nil {
		return "no JSON: " + string(a.body[:min(len(a.body), 80)])
	}
	switch {
	case body.Error != nil && body.Error.Message == "":
		return "an error without a message"
	case body.Error != nil && body.Type == "error":
		return "anthropic " + body.Error.Type
	case body.Error != nil:
		return fmt.Sprint(body.Error.Code)
	case len(body.Choices) > 0, len(body.Content) > 0:
		return "answer"
	}
	return "other"
}
