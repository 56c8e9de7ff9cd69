package usage

import "bytes"

// byteOrderMark may stand before the first line and is no part of it.
const byteOrderMark = "\xef\xbb\xbf"

// doneText is the data of the event that ends a chat or completions stream.
const doneText = "[DONE]"

var lineBreak = []byte("\n")

// place is where in a line the next byte stands.
type place uint8

const (
	inName place = iota
	afterColon
	inValue
)

// lineField is a field of an event that matters here.
type lineField uint8

const (
	otherField lineField = iota
	dataField
	eventField
)

// line is what is known of the line being read.
type line struct {
	place   place
	field   lineField
	bom     int // bytes of a byte order mark seen; all of them when none can come
	length  int
	name    [6]byte // longer ones match nothing
	afterCR bool    // the last byte was a carriage return: a line feed belongs to it
}

// frame is what is known of the event being read.
type frame struct {
	data    bool // it has a data line
	begun   bool // its data has a first byte
	marker  bool // its data begins with "[": it is [DONE] or nothing
	matched int  // bytes of doneText; -1 after a difference
	named   bool // it has an event line
	name    [maxText]byte
	length  int
	tooLong bool
}

// lines reads the next bytes of an event stream.
func (m *Meter) lines(chunk []byte) {
	i := 0
	if m.line.afterCR && len(chunk) > 0 {
		m.line.afterCR = false
		if chunk[0] == '\n' {
			i = 1
			m.editor.lineFeed(chunk)
		}
		m.editor.returned = false
	}
	// The next line feed and carriage return, each looked for once.
	lf, cr := -1, -1
	for i < len(chunk) {
		if lf < i {
			lf = indexFrom(chunk, i, '\n')
		}
		if cr < i {
			cr = indexFrom(chunk, i, '\r')
		}
		end := min(lf, cr)
		m.piece(chunk[i:end], i)
		if end == len(chunk) {
			return
		}
		next := end + 1
		if end == cr {
			m.line.afterCR = next == len(chunk)
			if next == lf && !m.line.afterCR {
				next++
			}
		}
		m.endLine(chunk, end+1, next)
		i = next
	}
}

// indexFrom returns the index of c in b from i on, or len(b).
func indexFrom(b []byte, i int, c byte) int {
	if j := bytes.IndexByte(b[i:], c); j >= 0 {
		return i + j
	}
	return len(b)
}

// piece reads bytes of the current line. off is their place in the chunk.
func (m *Meter) piece(b []byte, off int) {
	l := &m.line
	i := 0
	if l.place == inName {
		if i = l.scanName(b); i == len(b) && l.place == inName {
			return
		}
	}
	if l.place == afterColon {
		if i == len(b) {
			return
		}
		if b[i] == ' ' {
			i++
		}
		m.beginValue()
	}
	switch b = b[i:]; l.field {
	case dataField:
		m.data(b, off+i)
	case eventField:
		f := &m.frame
		n := copy(f.name[f.length:], b)
		f.length += n
		f.tooLong = f.tooLong || n < len(b)
	case otherField:
	}
}

// scanName reads the name of a field and its colon.
func (l *line) scanName(b []byte) int {
	if l.length == 0 && (l.bom == 0 || l.bom == len(byteOrderMark)) && len(b) >= 5 && string(b[:5]) == "data:" {
		l.place, l.field, l.bom = afterColon, dataField, len(byteOrderMark)
		return 5
	}
	for i, c := range b {
		switch {
		case l.bom < len(byteOrderMark) && c == byteOrderMark[l.bom]:
			l.bom++
			continue
		case l.bom > 0 && l.bom < len(byteOrderMark):
			l.length = len(l.name) // half a mark is part of the name
		}
		l.bom = len(byteOrderMark)
		if c == ':' {
			l.field, l.place = l.named(), afterColon
			return i + 1
		}
		if l.length < len(l.name) {
			l.name[l.length] = c
			l.length++
		}
	}
	return len(b)
}

// named returns the field whose name was read.
func (l *line) named() lineField {
	switch string(l.name[:l.length]) {
	case "data":
		return dataField
	case "event":
		return eventField
	}
	return otherField
}

// beginValue is called at the first byte of a field's value, or its end.
func (m *Meter) beginValue() {
	m.line.place = inValue
	f := &m.frame
	switch m.line.field {
	case dataField:
		if f.data { // lines of data are joined by line feeds
			f.begun = true
			m.joinLines()
		}
		f.data = true
	case eventField:
		f.named, f.length, f.tooLong = true, 0, false
	case otherField:
	}
}

// joinLines puts a line feed between two lines of data.
func (m *Meter) joinLines() {
	if m.frame.marker {
		m.frame.matched = -1
		return
	}
	m.doc.scan(lineBreak, 0)
}

// data reads bytes of an event's data. off is their place in the chunk.
func (m *Meter) data(b []byte, off int) {
	if len(b) == 0 {
		return
	}
	f := &m.frame
	if !f.begun {
		f.begun = true
		f.marker = b[0] == '['
		if !f.marker {
			m.doc.scanFirst(b, off-m.editor.start)
			return
		}
	}
	if !f.marker {
		m.doc.scan(b, off-m.editor.start)
		return
	}
	if f.matched < 0 || len(b) > len(doneText)-f.matched || doneText[f.matched:f.matched+len(b)] != string(b) {
		f.matched = -1
		return
	}
	f.matched += len(b)
}

// endLine is called at the end of every line: size is the place in the chunk
// behind the byte that ends it, end the place behind a line feed that belongs
// to that.
func (m *Meter) endLine(chunk []byte, size, end int) {
	l := &m.line
	if l.place == inName {
		half := l.bom > 0 && l.bom < len(byteOrderMark)
		l.bom = len(byteOrderMark)
		if l.length == 0 && !half {
			m.endEvent(chunk, size, end)
			return
		}
		if !half {
			l.field, l.place = l.named(), afterColon
		}
	}
	if l.place == afterColon {
		m.beginValue()
	}
	l.place, l.field, l.length = inName, otherField, 0
}

// endEvent is called at every blank line, and at the end of the body where
// that is missing.
func (m *Meter) endEvent(chunk []byte, size, end int) {
	var e edit
	if m.frame.data {
		e = m.event()
		m.doc.reset()
	}
	m.frame = frame{}
	if m.editor.event(chunk, size, end, e) {
		m.doc.note(Oversize)
	}
	m.editor.returned = m.line.afterCR
}

// eof ends an event that the body left without a blank line.
func (m *Meter) eof(chunk []byte) {
	if m.line.place != inName || m.line.length > 0 {
		m.endLine(chunk, len(chunk), len(chunk))
	}
	if m.frame.data {
		m.endEvent(chunk, len(chunk), len(chunk))
	}
	if m.failed {
		m.over = true
	}
}

// event takes what the event said that ends here, and returns what is to be
// done with its bytes.
func (m *Meter) event() edit {
	d := &m.doc
	switch {
	case m.frame.marker && m.frame.matched == len(doneText):
		if m.opts.Format != Responses && m.opts.Format != Messages {
			m.done, m.over = true, true
		}
	case m.frame.marker:
		d.note(Malformed)
	case d.state == atEnd:
		m.read = true
		return m.settle()
	case d.state != atStart && d.state != broken:
		d.note(Malformed)
	}
	return edit{}
}
