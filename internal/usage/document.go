package usage

import (
	"encoding/binary"
	"math/bits"
)

// state is what a [document] expects of the next byte.
type state uint8

const (
	atStart      state = iota // the top-level value, or white space before it
	atKeyOrEnd                // after "{"
	atKey                     // after "," in an object
	atColon                   // after a key
	atValue                   // after ":", or after "," in an array
	atValueOrEnd              // after "["
	atComma                   // after a value
	inKey                     // inside a key
	inString                  // inside a string value
	inScalar                  // inside a number or a literal
	inSkip                    // inside a container that nobody reads
	inSkipString              // inside a string of such a container
	atEnd                     // after the top-level value
	broken                    // it is not JSON: the rest is not read
)

// Bounds of what a document remembers. The deepest path that is read has nine
// containers; the longest key has 27 bytes, the longest event name 38.
const (
	maxDepth = 12
	maxText  = 48
)

// document reads one JSON text, in pieces of any size: the data of an event or
// a whole body. It follows only the paths of its shape (see shape.go) and
// passes over everything else counting brackets, so it holds the same few
// hundred bytes whatever it is given.
//
// Inside what it passes over it does not check the grammar: that is the
// client's business, not the meter's.
type document struct {
	cursor
	anomalies [Anomalies]uint32 // of all documents since the meter's reset
	root      node
	choices   int64 // indices at or above it are anomalies
	memo      memo
	stamp     stamp
	brace     int // the place of what closed the top level
}

// cursor is how far a document has been read and what it said until there.
// Copied, it is a place to go on from.
type cursor struct {
	state state
	node  node // the value that is being read or comes next
	depth int  // containers of the shape that are open
	stack [maxDepth]node
	nest  int // brackets open inside a container that is passed over

	escape  uint8 // 0: none; 1: after "\"; 2 to 5: before that many hex digits, less one
	high    bool  // the last character was a high surrogate
	tooLong bool  // the text did not fit
	noted   bool  // an anomaly was counted
	unit    uint16
	length  int
	text    [maxText]byte // the key or the string being read, decoded

	number number
	r      reading
}

// reset makes the document ready for the next JSON text.
func (d *document) reset() {
	d.state, d.node, d.depth, d.escape, d.noted = atStart, d.root, 0, 0, false
	d.stamp = stamp{}
	d.r = reading{comma: -1, index: Unsaid, tally: tally{value: [fields]int64{Unsaid, Unsaid, Unsaid, Unsaid, Unsaid}}}
}

// note counts an anomaly.
func (d *document) note(a Anomaly) {
	d.noted = true
	if d.anomalies[a] != ^uint32(0) {
		d.anomalies[a]++
	}
}

// fail gives the document up.
func (d *document) fail() {
	d.state = broken
	d.note(Malformed)
}

// scan reads the next bytes. base is the place of b[0] in the event, for the
// places that a strip needs.
func (d *document) scan(b []byte, base int) {
	for i := 0; i < len(b); {
		switch d.state {
		case inKey, inString, inSkipString:
			i = d.scanString(b, i)
		case inScalar:
			i = d.scanScalar(b, i)
		case inSkip:
			i = d.skip(b, i)
		case atKey, atKeyOrEnd:
			i = d.scanKey(b, i, base)
		case atValue, atValueOrEnd, atStart:
			i = d.scanValue(b, i, base)
		case broken:
			return
		case atColon, atComma, atEnd:
			i = d.scanPunctuation(b, i, base)
		}
	}
}

// scanPunctuation reads what separates keys from values and values from each other.
func (d *document) scanPunctuation(b []byte, i, base int) int {
	c := b[i]
	switch {
	case isSpace(c):
	case d.state == atColon && c == ':':
		d.state = atValue
	case d.state != atComma:
		d.fail() // something behind the document, or no colon
	case c == ',':
		d.next(base + i)
		if i+1 < len(b) && d.state == atKey {
			return d.scanKey(b, i+1, base)
		}
	case c == '}' || c == ']':
		d.leave(c, base+i)
	default:
		d.fail()
	}
	return i + 1
}

// next goes on to the next member or element. at is the place of the comma.
func (d *document) next(at int) {
	if d.depth == 1 {
		d.r.pastComma(at)
	}
	in := d.stack[d.depth-1]
	if shapes[in].kind == arrayKind {
		d.state, d.node = atValue, shapes[in].element
		return
	}
	d.state = atKey
}

// leave closes the container that is open. at is the place of the bracket.
func (d *document) leave(c byte, at int) {
	in := d.stack[d.depth-1]
	if (shapes[in].kind == arrayKind) != (c == ']') {
		d.fail()
		return
	}
	d.depth--
	d.left(in, at)
	d.valueRead()
}

// valueRead is called at the end of every value.
func (d *document) valueRead() {
	d.state = atComma
	if d.depth == 0 {
		d.state = atEnd
		d.r.complete = true
	}
}

// scanKey reads a key, or the end of an object that has none.
func (d *document) scanKey(b []byte, i, base int) int {
	switch c := b[i]; {
	case isSpace(c):
		return i + 1
	case c == '}' && d.state == atKeyOrEnd:
		d.leave(c, base+i)
		return i + 1
	case c != '"':
		d.fail()
		return i + 1
	}
	d.r.keyAt = base + i
	// Nearly every key lies in one piece and has no escapes.
	j := quoteOrEscape(b, i+1)
	if j < len(b) && b[j] == '"' {
		d.keyed(b[i+1 : j])
		if j+2 < len(b) && b[j+1] == ':' {
			d.state = atValue
			return d.scanValue(b, j+2, base)
		}
		return j + 1
	}
	d.state, d.length, d.tooLong, d.high = inKey, 0, false, false
	return i + 1
}

// scanValue reads the beginning of a value, or the end of an empty array.
func (d *document) scanValue(b []byte, i, base int) int {
	c := b[i]
	if isSpace(c) {
		return i + 1
	}
	if c == ']' && d.state == atValueOrEnd {
		d.leave(c, base+i)
		return i + 1
	}
	if d.node == choiceNode {
		d.r.choices++
		d.r.choiceIndex, d.r.indexed = Unsaid, false
	}
	switch c {
	case '{', '[':
		d.enter(c)
		return i + 1
	case '"':
		if d.depth == 0 {
			break
		}
		d.beginString()
		if d.memo.wanted && shapes[d.node].text > 0 {
			d.memorize(b[:i+1], base)
		}
		return d.scanString(b, i+1)
	case ']', '}', ',', ':':
	default:
		if d.depth == 0 {
			break
		}
		d.state, d.number = inScalar, number{}
		return d.scanScalar(b, i)
	}
	d.fail()
	return i + 1
}

// enter opens a container.
func (d *document) enter(c byte) {
	s := &shapes[d.node]
	switch {
	case s.kind == objectKind && c == '{' && d.depth < maxDepth:
		d.state = atKeyOrEnd
	case s.kind == arrayKind && c == '[' && d.depth < maxDepth:
		d.state = atValueOrEnd
	case d.depth == 0:
		d.fail() // every answer and every event is an object
		return
	default:
		d.mistyped()
		d.state, d.nest = inSkip, 1
		return
	}
	d.stack[d.depth] = d.node
	d.depth++
	d.node = s.element
}

// skip passes over a container that nobody reads.
func (d *document) skip(b []byte, i int) int {
	for ; i < len(b); i++ {
		switch b[i] {
		case '"':
			j := quoteOrEscape(b, i+1)
			if j == len(b) || b[j] == '\\' {
				d.state = inSkipString
				return j
			}
			i = j
		case '{', '[':
			d.nest++
		case '}', ']':
			d.nest--
			if d.nest == 0 {
				d.valueRead()
				return i + 1
			}
		}
	}
	return i
}

// scanScalar reads a number or a literal up to what delimits it.
func (d *document) scanScalar(b []byte, i int) int {
	start := i
	for i < len(b) && !delimits[b[i]] {
		i++
	}
	if shapes[d.node].scalar {
		d.number.add(b[start:i])
	}
	if i < len(b) {
		d.scalarRead()
		d.valueRead()
	}
	return i
}

// delimits marks the bytes that end a number or a literal.
var delimits = [256]bool{' ': true, '\t': true, '\n': true, '\r': true, ',': true, '}': true, ']': true, '"': true, '{': true, '[': true, ':': true}

// isSpace reports whether c is JSON's white space.
func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }

// quoteOrEscape returns the index of the first '"' or '\' in b from i on, or
// len(b). It looks at eight bytes at a time.
func quoteOrEscape(b []byte, i int) int {
	const low, high = 0x0101010101010101, 0x8080808080808080
	for ; i+8 <= len(b); i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		q, e := w^('"'*low), w^('\\'*low)
		// A byte of q or e that is zero sets the top bit of its place; places
		// above it may be wrong, the lowest is not.
		if hit := ((q-low)&^q | (e-low)&^e) & high; hit != 0 {
			return i + bits.TrailingZeros64(hit)>>3
		}
	}
	for ; i < len(b); i++ {
		if b[i] == '"' || b[i] == '\\' {
			return i
		}
	}
	return i
}
