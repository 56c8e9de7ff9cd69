package usage

import "bytes"

// maxMemo is the longest beginning, in bytes, that is remembered.
const maxMemo = 512

// memo remembers how the data of an event began, up to its first text, and
// where reading stood then. The events of a stream mostly begin alike, and the
// same bytes lead to the same place: they need not be read again.
type memo struct {
	wanted bool // the next beginning is to be remembered
	base   int  // the place of begin in its event
	begin  []byte
	cursor cursor
}

// scanFirst is scan for the first bytes of an event's data.
func (d *document) scanFirst(b []byte, base int) {
	m := &d.memo
	if len(m.begin) > 0 && base == m.base && bytes.HasPrefix(b, m.begin) {
		d.cursor = m.cursor
		n := len(m.begin)
		d.scan(b[n:], base+n)
		return
	}
	m.wanted = true
	d.scan(b, base)
	m.wanted = false
}

// memorize remembers the beginning of the data, where it is worth it: not when
// it is long, when it had anomalies, which have to be counted each time, and
// when it had a fingerprint, whose place the cursor does not have.
func (d *document) memorize(begin []byte, base int) {
	m := &d.memo
	m.wanted = false
	if len(begin) > maxMemo || d.noted || d.stamp.to > 0 {
		return
	}
	m.base, m.begin, m.cursor = base, append(m.begin[:0], begin...), d.cursor
}
