package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http/httputil"
	"strconv"

	"tollgate/bench/internal/script"
)

// request is what matters of a request.
type request struct {
	path   string
	id     string // x-request-id
	script script.Script
	stream bool // asks for an event stream
	usage  bool // asks for usage in every chunk
}

// peeked is how much of a body is looked at: what is asked for must stand in it.
const peeked = 2048

// readRequest reads one request whole. io.EOF means that there is none.
func readRequest(br *bufio.Reader) (*request, error) {
	line, err := br.ReadSlice('\n')
	if err != nil {
		if len(line) == 0 && errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		return nil, fmt.Errorf("read request line: %w", err)
	}
	parts := bytes.Fields(line)
	if len(parts) != 3 {
		return nil, fmt.Errorf("read request line: %d words", len(parts))
	}
	r := &request{path: string(parts[1])}
	length, chunked, err := r.headers(br)
	if err != nil {
		return nil, err
	}
	body := io.LimitReader(br, length)
	if chunked {
		body = httputil.NewChunkedReader(br)
	}
	if err := r.body(body); err != nil {
		return nil, err
	}
	if chunked {
		// The chunked reader leaves the empty line behind the last chunk.
		if _, err := br.Discard(2); err != nil {
			return nil, fmt.Errorf("read request: %w", err)
		}
	}
	return r, nil
}

func (r *request) headers(br *bufio.Reader) (length int64, chunked bool, err error) {
	for {
		line, err := br.ReadSlice('\n')
		if err != nil {
			return 0, false, fmt.Errorf("read headers: %w", err)
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			return length, chunked, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch string(bytes.ToLower(name)) {
		case "content-length":
			if length, err = strconv.ParseInt(string(value), 10, 64); err != nil || length < 0 {
				return 0, false, fmt.Errorf("read headers: content-length %q", value)
			}
		case "transfer-encoding":
			chunked = bytes.EqualFold(value, []byte("chunked"))
		case "x-request-id":
			r.id = string(value)
		case script.Header:
			if r.script, err = script.Parse(string(value)); err != nil {
				return 0, false, err
			}
		}
	}
}

// body looks at the beginning of a body and drops the rest.
func (r *request) body(body io.Reader) error {
	head := make([]byte, peeked)
	n, err := io.ReadFull(body, head)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
	case err != nil:
		return fmt.Errorf("read body: %w", err)
	default:
		if _, err := io.Copy(io.Discard, body); err != nil {
			return fmt.Errorf("read body: %w", err)
		}
	}
	head = head[:n]
	r.stream = bytes.Contains(head, []byte(`"stream":true`))
	r.usage = r.script.Usage || bytes.Contains(head, []byte(`"continuous_usage_stats":true`))
	return nil
}
