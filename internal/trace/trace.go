// Package trace holds the identity of a request's span: who it is, and whose child. It
// reads and writes the header traceparent of W3C Trace Context, and decides which
// requests are traced. It sends nothing; that is internal/otlp.
package trace

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
)

// Header is the name of the header by which a trace is passed on. StateHeader goes with
// it, and means nothing without it.
const (
	Header      = "traceparent"
	StateHeader = "tracestate"
)

// Span is the identity of one request's span. The zero value is none: the request is
// not traced. It is comparable.
type Span struct {
	Trace  [16]byte
	ID     [8]byte
	Parent [8]byte // of the client; zero where the trace begins here
}

// None reports whether the request is not traced.
func (s Span) None() bool { return s == Span{} }

// TraceID is the id of the trace in hex, as logs and exemplars have it; "" for no span.
func (s Span) TraceID() string {
	if s.None() {
		return ""
	}
	return hex.EncodeToString(s.Trace[:])
}

// Sizes of the parts of the texts, in characters.
const (
	traceText  = 32
	spanText   = 16
	parentText = 2 + 1 + traceText + 1 + spanText + 1 + 2 // of a traceparent of version 00
)

// String is the trace, the span and, where there is one, its parent, in hex with hyphens
// between; "" for no span.
func (s Span) String() string {
	if s.None() {
		return ""
	}
	b := make([]byte, 0, traceText+2*(1+spanText))
	b = hex.AppendEncode(b, s.Trace[:])
	b = hex.AppendEncode(append(b, '-'), s.ID[:])
	if s.Parent != [8]byte{} {
		b = hex.AppendEncode(append(b, '-'), s.Parent[:])
	}
	return string(b)
}

// MarshalText implements [encoding.TextMarshaler] with String.
func (s Span) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// errText says that a text is not what String has written.
var errText = errors.New("is not the identity of a span")

// UnmarshalText implements [encoding.TextUnmarshaler]. On an error the span is none.
func (s *Span) UnmarshalText(text []byte) error {
	*s = Span{}
	if len(text) == 0 {
		return nil
	}
	var read Span
	const short, long = traceText + 1 + spanText, traceText + 2*(1+spanText)
	ok := (len(text) == short || len(text) == long) && text[traceText] == '-' &&
		lowerHex(read.Trace[:], text[:traceText]) && lowerHex(read.ID[:], text[traceText+1:short])
	if len(text) == long {
		ok = ok && text[short] == '-' && lowerHex(read.Parent[:], text[short+1:])
	}
	if !ok || read.Trace == [16]byte{} || read.ID == [8]byte{} {
		return errText
	}
	*s = read
	return nil
}

// Read is the span of a text that String has written; none for every other text.
func Read(text string) (s Span) {
	_ = s.UnmarshalText([]byte(text))
	return s
}

// lowerHex decodes hex without capitals, as Trace Context demands it.
func lowerHex(to, text []byte) bool {
	for _, c := range text {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	n, err := hex.Decode(to, text)
	return err == nil && n == len(to)
}

// parent is what a client says of its own span.
type parent struct {
	trace [16]byte
	span  [8]byte
	flags byte
}

// The flags of a traceparent.
const (
	sampled = 1
	random  = 2 // the last 56 bits of the trace's id are random
)

// parse reads a traceparent: of version 00 to the letter, of a later version the part
// that version 00 knows.
func parse(header string) (p parent, ok bool) {
	const trace, span, flags = 3, 3 + traceText + 1, 3 + traceText + 1 + spanText + 1
	b := []byte(header)
	if len(b) < parentText || b[trace-1] != '-' || b[span-1] != '-' || b[flags-1] != '-' {
		return parent{}, false
	}
	var version, f [1]byte
	if !lowerHex(version[:], b[:2]) || version[0] == 0xff || !lowerHex(f[:], b[flags:parentText]) {
		return parent{}, false
	}
	if len(b) > parentText && (version[0] == 0 || b[parentText] != '-') {
		return parent{}, false
	}
	if !lowerHex(p.trace[:], b[trace:trace+traceText]) || !lowerHex(p.span[:], b[span:span+spanText]) {
		return parent{}, false
	}
	p.flags = f[0]
	return p, p.trace != [16]byte{} && p.span != [8]byte{}
}

// Sampler decides which requests are traced: those whose client says so, and of the
// requests that begin a trace a share. Its zero value traces none of these.
type Sampler struct {
	below uint64 // a trace is taken whose last 63 bits are below
}

// NewSampler returns a sampler that takes a share of the traces that begin here, between
// 0 and 1. Every sampler with the same share takes the same traces.
func NewSampler(share float64) Sampler {
	if share >= 1 {
		return Sampler{below: math.MaxUint64}
	}
	return Sampler{below: uint64(max(0, share) * (1 << 63))}
}

// Passed is what a request carries on to the engine.
type Passed struct {
	Traceparent string // with the span of this gateway
	// Restarted: the trace begins here. What the client says beside its traceparent
	// belongs to no trace.
	Restarted bool
}

// Begin makes the span of a request with these headers traceparent. One that cannot be
// read, and more than one, count as none. The span is none where the request is not
// traced; even then the engine is told an id, and that nothing is recorded.
func (s Sampler) Begin(headers []string) (Span, Passed) {
	var p parent
	ok := false
	if len(headers) == 1 {
		p, ok = parse(headers[0])
	}
	var fresh [24]byte
	_, _ = rand.Read(fresh[:]) // never fails (crypto/rand aborts the program instead)
	made := Span{Trace: p.trace, Parent: p.span}
	copy(made.ID[:], fresh[16:])
	made.ID[0] |= 1 // never all zero
	if !ok {
		made = Span{ID: made.ID}
		copy(made.Trace[:], fresh[:16])
		made.Trace[0] |= 1
		p.flags = random
		if binary.BigEndian.Uint64(made.Trace[8:])>>1 < s.below {
			p.flags |= sampled
		}
	}
	passed := Passed{Traceparent: made.traceparent(p.flags & (sampled | random)), Restarted: !ok}
	if p.flags&sampled == 0 {
		return Span{}, passed
	}
	return made, passed
}

// traceparent is the header that makes this span the parent.
func (s Span) traceparent(flags byte) string {
	b := append(make([]byte, 0, parentText), "00-"...)
	b = hex.AppendEncode(b, s.Trace[:])
	b = hex.AppendEncode(append(b, '-'), s.ID[:])
	b = hex.AppendEncode(append(b, '-'), []byte{flags})
	return string(b)
}
