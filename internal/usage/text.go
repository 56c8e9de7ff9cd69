package usage

import "unicode/utf8"

// beginString prepares for a string value.
func (d *document) beginString() {
	d.state, d.length, d.tooLong, d.high = inString, 0, false, false
	if d.node != unreadNode && shapes[d.node].kind != stringKind {
		d.mistyped()
	}
}

// scanString reads a key or a string up to its closing quote.
func (d *document) scanString(b []byte, i int) int {
	if d.escape != 0 {
		d.unescape(b[i])
		return i + 1
	}
	j := quoteOrEscape(b, i)
	if j > i {
		d.add(b[i:j])
	}
	switch {
	case j == len(b):
		return j
	case b[j] == '\\':
		d.escape = 1
		return j + 1
	}
	if d.state == inKey {
		d.keyed(d.known())
		return j + 1
	}
	if d.state == inSkipString {
		d.state = inSkip
		return j + 1
	}
	d.stringRead()
	d.valueRead()
	return j + 1
}

// known returns the text that was read, or nothing when it was longer than
// all that the meter knows.
func (d *document) known() []byte {
	if d.tooLong {
		return nil
	}
	return d.text[:d.length]
}

// add takes characters of the string being read: keys and names are kept, of
// a model's text only the length is counted.
func (d *document) add(b []byte) {
	d.high = false
	d.put(b, len(b))
}

// put is add for characters of which size is the decoded length.
func (d *document) put(b []byte, size int) {
	if d.state == inSkipString {
		return
	}
	if d.state == inString {
		s := &shapes[d.node]
		if s.text > 0 {
			d.r.text[s.text-1] += int64(size)
			return
		}
		if s.kind != stringKind {
			return
		}
	}
	n := copy(d.text[d.length:], b)
	d.length += n
	if n < len(b) {
		d.tooLong = true
	}
}

// unescape takes the next byte of an escape sequence.
func (d *document) unescape(c byte) {
	if d.escape == 1 {
		if c == 'u' {
			d.escape, d.unit = 2, 0
			return
		}
		d.escape = 0
		one := [1]byte{simpleEscape(c)}
		d.add(one[:])
		return
	}
	d.unit = d.unit<<4 | hexDigit(c)
	if d.escape < 5 {
		d.escape++
		return
	}
	d.escape = 0
	d.putUnit()
}

// putUnit takes the UTF-16 unit of a \u escape. A surrogate counts as the
// replacement character, three bytes, until its other half makes it four.
func (d *document) putUnit() {
	u := rune(d.unit)
	var enc [utf8.UTFMax]byte
	switch {
	case u >= 0xd800 && u < 0xdc00:
		d.put([]byte("\xef\xbf\xbd"), 3)
		d.high = true
	case u >= 0xdc00 && u < 0xe000 && d.high:
		d.put([]byte("\xbd"), 1)
		d.high = false
	default:
		n := utf8.EncodeRune(enc[:], u)
		d.put(enc[:n], n)
		d.high = false
	}
}

// simpleEscape returns what the escape sequence of one letter means.
func simpleEscape(c byte) byte {
	switch c {
	case 'n':
		return '\n'
	case 't':
		return '\t'
	case 'r':
		return '\r'
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	}
	return c
}

// hexDigit returns the value of a hexadecimal digit, and 0 of anything else.
func hexDigit(c byte) uint16 {
	switch {
	case c >= '0' && c <= '9':
		return uint16(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return uint16(c|0x20-'a') + 10
	}
	return 0
}
