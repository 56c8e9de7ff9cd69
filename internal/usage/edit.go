package usage

import (
	"bytes"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// maxEvent is the largest event, in bytes, that is held for a strip. Larger
// ones pass as they are.
const maxEvent = 1 << 20

// maxKept is the largest buffer that a meter takes into its next answer.
const maxKept = 64 << 10

// editKind is what is done with the bytes of an event.
type editKind uint8

const (
	keep editKind = iota
	drop          // all of them go
	cut           // some of them go
)

// edit is what is done with the bytes of an event; from and to are places in it.
type edit struct {
	kind     editKind
	from, to int
	wait     bool // it goes on with the next event, which may have to give it something
}

// editor decides which bytes of an event stream go on. While it is off, all do.
type editor struct {
	on       bool
	held     []byte // the event that began in an earlier chunk
	waiting  []byte // the event that waits for the next one
	out      []byte // what goes on, where that is not the chunk itself
	start    int    // where the event begins in the chunk; negative when it is held
	passed   int    // bytes of the chunk that are in out or dropped
	changed  bool
	tooLarge bool // the event passes without being held
	dropped  bool // the last event was dropped
	returned bool // it ended with a carriage return at the chunk's end
}

// reset makes the editor ready for another answer, in the memory of old.
func (e *editor) reset(old editor, on bool) {
	*e = editor{on: on, held: old.held[:0], waiting: old.waiting[:0], out: old.out[:0]}
	if cap(e.held) > maxKept {
		e.held = nil
	}
	if cap(e.waiting) > maxKept {
		e.waiting = nil
	}
	if cap(e.out) > maxKept {
		e.out = nil
	}
}

// begin is called before every chunk.
func (e *editor) begin() {
	e.out, e.passed = e.out[:0], 0
	e.start, e.changed = -len(e.held), len(e.held) > 0
}

// lineFeed is called when the chunk begins with the line feed of a carriage
// return that ended the chunk before.
func (e *editor) lineFeed(chunk []byte) {
	if !e.on || !e.returned {
		return // it is part of the event that is held
	}
	e.start = 1
	switch {
	case e.dropped:
		e.flush(chunk, 0)
		e.passed = 1
	case len(e.waiting) > 0:
		e.waiting = append(e.waiting, '\n')
		e.flush(chunk, 0)
		e.passed = 1
	}
}

// flush sends on the bytes of the chunk before to.
func (e *editor) flush(chunk []byte, to int) {
	e.changed = true
	if to > e.passed {
		e.out = append(e.out, chunk[e.passed:to]...)
		e.passed = to
	}
}

// event is called at the end of every event: size is the place in the chunk
// that its size is measured to, end the place where the next one begins. It
// reports whether the event is too large to be edited.
func (e *editor) event(chunk []byte, size, end int, ed edit) (tooLarge bool) {
	start := e.start
	e.start, e.dropped = end, false
	if !e.on {
		return false
	}
	if e.tooLarge {
		e.tooLarge = false
		return false // said already
	}
	if size-start > maxEvent {
		ed, tooLarge = edit{}, true
	}
	if len(e.waiting) > 0 {
		if ed.kind == drop {
			e.moveFingerprint(chunk[max(start, 0):end])
		}
		e.goOn()
	}
	if ed.wait {
		e.wait(chunk, start, end, ed)
		return tooLarge
	}
	switch ed.kind {
	case keep:
		e.out = append(e.out, e.held...)
	case drop:
		e.flush(chunk, max(start, 0))
		e.passed = end
		e.dropped = true
	case cut:
		e.flush(chunk, max(start, 0))
		at := len(e.out)
		e.out = append(e.out, e.held...)
		e.flush(chunk, end)
		e.out = slices.Delete(e.out, at+ed.from, at+ed.to)
	}
	e.held = e.held[:0]
	return tooLarge
}

// wait keeps an event, edited, until the next one is known.
func (e *editor) wait(chunk []byte, start, end int, ed edit) {
	e.flush(chunk, max(start, 0))
	e.waiting = append(append(e.waiting[:0], e.held...), chunk[max(start, 0):end]...)
	if ed.kind == cut {
		e.waiting = slices.Delete(e.waiting, ed.from, ed.to)
	}
	e.passed = end
	e.held = e.held[:0]
}

// goOn sends on the event that waited. Nothing stands between it and the bytes
// that are still to be sent.
func (e *editor) goOn() {
	e.changed = true
	e.out = append(e.out, e.waiting...)
	e.waiting = e.waiting[:0]
}

// moveFingerprint gives the waiting event the fingerprint of the usage event
// that is dropped behind it, of which rest is what has not been held: vLLM puts
// it into its last data chunk, and without usage the waiting one is the last
// (vLLM 0.32, recorded). It happens once in a stream.
func (e *editor) moveFingerprint(rest []byte) {
	const name = "system_fingerprint"
	brace := bytes.LastIndexByte(e.waiting, '}')
	if brace < 0 || len(bytes.Trim(e.waiting[brace+1:], "\r\n")) > 0 {
		return
	}
	event := append(slices.Clone(e.held), rest...)
	open := bytes.IndexByte(event, '{')
	if open < 0 {
		return
	}
	d := jsontext.NewDecoder(bytes.NewReader(event[open:]))
	if _, err := d.ReadToken(); err != nil {
		return
	}
	for d.PeekKind() == '"' {
		key, err := d.ReadToken()
		if err != nil {
			return
		}
		found := key.String() == name
		value, err := d.ReadValue()
		if err != nil {
			return
		}
		if found {
			member := append([]byte(`,"`+name+`":`), value...)
			e.waiting = slices.Insert(e.waiting, brace, member...)
			return
		}
	}
}

// end is called behind every chunk. It holds the event that is incomplete and
// reports whether that is too large to be held.
func (e *editor) end(chunk []byte, last bool) (tooLarge bool) {
	if len(e.waiting) > 0 && (last || len(chunk)-e.start > maxEvent) {
		e.goOn()
	}
	switch {
	case !e.on || e.tooLarge:
	case last, len(chunk)-e.start > maxEvent:
		tooLarge = len(chunk)-e.start > maxEvent
		e.tooLarge = tooLarge
		if e.start < 0 {
			e.out = append(e.out, e.held...)
		}
		e.held = e.held[:0]
	case e.start < len(chunk):
		e.flush(chunk, max(e.start, 0))
		e.held = append(e.held, chunk[max(e.start, 0):]...)
		e.passed = len(chunk)
	}
	if e.changed {
		e.flush(chunk, len(chunk))
	}
	return tooLarge
}

// result returns the bytes to forward.
func (e *editor) result(chunk []byte) (forward []byte, changed bool) {
	if !e.changed {
		return chunk, false
	}
	return e.out, true
}
