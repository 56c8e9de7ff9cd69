package usage

import "slices"

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
	wait          // some may go, the others wait until the next event is known
)

// edit is what is done with the bytes of an event. Its places are in the event.
type edit struct {
	kind editKind
	// from and to enclose the bytes that go. Where the whole event is dropped, they
	// enclose the member that the event that waits gets of it; none when equal.
	from, to int
	brace    int // what closes the JSON of an event that waits
}

// editor decides which bytes of an event stream go on. While it is off, all do.
type editor struct {
	on       bool
	held     []byte // the event that began in an earlier chunk
	waiting  []byte // the event before it, edited, where that waits
	brace    int    // what closes the JSON of that
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
	*e = editor{on: on, held: emptied(old.held), waiting: emptied(old.waiting), out: emptied(old.out)}
}

// emptied returns the memory of b, or none when that is too large to be kept.
func emptied(b []byte) []byte {
	if cap(b) > maxKept {
		return nil
	}
	return b[:0]
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
	case len(e.waiting) > 0:
		e.waiting = append(e.waiting, '\n')
	case !e.dropped:
		return
	}
	e.flush(chunk, 0)
	e.passed = 1
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
	e.release(chunk, start, ed)
	if ed.kind == keep {
		e.out = append(e.out, e.held...)
		e.held = e.held[:0]
		return tooLarge
	}
	e.flush(chunk, max(start, 0))
	switch at := len(e.out); ed.kind {
	case drop:
		e.dropped = true
	case cut:
		e.out = e.appendPart(e.out, chunk, start, 0, end-start)
		e.out = slices.Delete(e.out, at+ed.from, at+ed.to)
	case wait:
		e.waiting = e.appendPart(e.waiting, chunk, start, 0, end-start)
		e.waiting = slices.Delete(e.waiting, ed.from, ed.to)
		e.brace = ed.brace - (ed.to - ed.from)
	case keep: // done
	}
	e.passed = end
	e.held = e.held[:0]
	return tooLarge
}

// appendPart appends the bytes between two places of the event that began at start.
func (e *editor) appendPart(b, chunk []byte, start, from, to int) []byte {
	if start < 0 {
		n := -start
		b = append(b, e.held[min(from, n):min(to, n)]...)
		from, to, start = max(from-n, 0), max(to-n, 0), 0
	}
	return append(b, chunk[start+from:start+to]...)
}

// release sends on the event that waits, if there is one. Nothing stands between
// it and the event that began at start, of which ed is known.
func (e *editor) release(chunk []byte, start int, ed edit) {
	if len(e.waiting) == 0 {
		return
	}
	e.changed = true
	e.out = append(e.out, e.waiting[:e.brace]...)
	if ed.kind == drop && ed.from < ed.to {
		at := len(e.out)
		e.out = e.appendPart(e.out, chunk, start, ed.from, ed.to)
		if e.out[at] != ',' { // it was the first member
			e.out = slices.Insert(e.out, at, ',')
		}
	}
	e.out = append(e.out, e.waiting[e.brace:]...)
	e.waiting = e.waiting[:0]
}

// end is called behind every chunk. It holds the event that is incomplete and
// reports whether that is too large to be held.
func (e *editor) end(chunk []byte, last bool) (tooLarge bool) {
	switch {
	case !e.on || e.tooLarge:
	case last, len(chunk)-e.start > maxEvent:
		tooLarge = len(chunk)-e.start > maxEvent
		e.tooLarge = tooLarge
		e.release(chunk, e.start, edit{})
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
