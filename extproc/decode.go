package extproc

import (
	"bytes"
	"strconv"
	"strings"

	"tollgate/internal/ticket"
	"tollgate/internal/wire"
)

// filter is the key of this filter's attributes: its name in envoy.yaml.
const filter = "envoy.filters.http.ext_proc"

// Field numbers of envoy.service.ext_proc.v3.ProcessingRequest and of what is
// in it.
const (
	inRequestHeaders   = 2
	inResponseHeaders  = 3
	inRequestBody      = 4
	inResponseBody     = 5
	inRequestTrailers  = 6
	inResponseTrailers = 7
	inMetadata         = 8
	inAttributes       = 9

	headersMap = 1 // HttpHeaders
	headersEnd = 3
	bodyBytes  = 1 // HttpBody
	bodyEnd    = 2
)

// head is what matters of the headers of a request or an answer, and of what
// Envoy says along with them. What a message does not say is zero.
type head struct {
	method, path, requestID string
	contentLength           int64 // bytes; 0 = not said

	status     int
	kind       kind   // of the answer
	coding     string // a content coding other than identity, "" for none
	metadata   string // of an answer in bytes: JSON that has the usage
	retryAfter bool

	ticket  ticket.Ticket
	meter   string // the instance of the meter inside Envoy that has the request, "" for none
	details string // response.code_details: who wrote the answer
	engine  string // upstream.address
}

// kind is what an answer is by its content type.
type kind uint8

const (
	unreadable kind = iota // none of the others, or not said
	jsonBody
	eventStream
	binary // application/octet-stream: embeddings asked for as bytes
)

func kindOf(contentType []byte) kind {
	name, _, _ := bytes.Cut(contentType, []byte(";"))
	switch name = bytes.ToLower(bytes.TrimSpace(name)); {
	case string(name) == "application/json", bytes.HasPrefix(name, []byte("application/")) && bytes.HasSuffix(name, []byte("+json")):
		return jsonBody
	case string(name) == "text/event-stream":
		return eventStream
	case string(name) == "application/octet-stream":
		return binary
	}
	return unreadable
}

// coding is what a content-encoding says beside identity, "" for nothing.
func coding(value []byte) string {
	var left []string
	for name := range strings.SplitSeq(string(value), ",") {
		if name = strings.ToLower(strings.TrimSpace(name)); name != "" && name != "identity" {
			left = append(left, name)
		}
	}
	return strings.Join(left, ", ")
}

// decodeHead reads a ProcessingRequest that holds no body.
func (in *inbound) decodeHead(raw []byte) error {
	return wire.Each(raw, func(f wire.Field) error {
		switch f.Num {
		case inRequestHeaders, inResponseHeaders:
			in.field = f.Num
			return in.headers(f.Bytes)
		case inRequestTrailers, inResponseTrailers:
			in.field = f.Num
		case inMetadata:
			return in.metadata(f.Bytes)
		case inAttributes:
			return in.attributes(f.Bytes)
		}
		return nil
	})
}

// metadata reads the ticket, and which meter has the request.
func (in *inbound) metadata(raw []byte) error {
	t, err := ticket.Decode(raw)
	if err != nil {
		return err
	}
	in.head.ticket = t
	in.head.meter, err = meterOf(raw)
	return err
}

// headers reads an HttpHeaders.
func (in *inbound) headers(raw []byte) error {
	return wire.Each(raw, func(f wire.Field) error {
		switch f.Num {
		case headersMap:
			return wire.Headers(f.Bytes, in.head.set)
		case headersEnd:
			in.end = f.Varint != 0
		}
		return nil
	})
}

func (h *head) set(key, value []byte) {
	switch string(key) {
	case ":method":
		h.method = string(value)
	case ":path":
		h.path = string(value)
	case "x-request-id":
		h.requestID = string(value)
	case "content-length":
		h.contentLength = contentLength(string(value))
	case ":status": // with the colon: Envoy sends no header "status"
		h.status, _ = strconv.Atoi(string(value))
	case "content-type":
		h.kind = kindOf(value)
	case "content-encoding":
		h.coding = coding(value)
	case "metadata":
		h.metadata = string(value)
	case "retry-after":
		h.retryAfter = true
	}
}

// attributes reads one entry of the attributes; those of the answer are asked
// for in envoy.yaml.
func (in *inbound) attributes(raw []byte) error {
	name, fields, err := wire.Entry(raw)
	if err != nil || string(name) != filter {
		return err
	}
	return wire.Strings(fields, func(name, value []byte) {
		switch string(name) {
		case "response.code_details":
			in.head.details = string(value)
		case "upstream.address":
			in.head.engine = string(value)
		}
	})
}

// readBody reads an HttpBody.
func (in *inbound) readBody(raw []byte) error {
	return wire.Each(raw, func(f wire.Field) error {
		switch f.Num {
		case bodyBytes:
			in.body = f.Bytes
		case bodyEnd:
			in.end = f.Varint != 0
		}
		return nil
	})
}

func contentLength(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}
