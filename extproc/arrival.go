package extproc

import (
	"sync"
	"time"

	"tollgate/internal/rpc"
)

// The least rate of arrival: a body that brings fewer than slowBytes in
// slowWindow, and is not whole by then, is refused with 408. It is far below any
// real link; it is for clients that open requests and send nothing.
const (
	slowWindow = 10 * time.Second
	slowBytes  = 10 << 10
)

// Sizes of the pieces in which a body is kept: small first, so that a body of
// a few bytes holds little.
const (
	smallPiece = 4 << 10
	largePiece = 256 << 10
)

// arrival is a request's body on its way in. Envoy sends it in the pieces in
// which it comes and keeps none of them, so what a body costs is seen, and
// bounded, here. A body that comes as one message is never copied.
type arrival struct {
	announced int64 // content-length; 0 = not said
	size      int64 // bytes that have come
	pieces    []*[]byte
	kept      int     // bytes of memory of the pieces
	json      jsonEnd // finds the end of a body without a length
	held      int64   // bytes taken of Options.Bodies

	// The watch over the rate of arrival. While it is on, the loop holds mu
	// around each step and its answer.
	mu      sync.Mutex
	on      bool // written by the loop under mu
	expired bool // guarded by mu: the watch has answered in place of the loop
	timer   *time.Timer
	last    int64 // guarded by mu: size at the last look
}

// add takes the next piece and reports whether the body is complete with it. Where
// it came as one piece it is not kept.
func (a *arrival) add(piece []byte, end bool) (complete bool) {
	a.size += int64(len(piece))
	complete = end || a.announced > 0 && a.size >= a.announced
	if !complete && a.announced == 0 {
		// Trailers would come without an end of the body, and Envoy sends them
		// only after the last piece is answered, when nothing can be sent in its
		// place any more. So the end is found in the body itself.
		complete = a.json.feed(piece)
	}
	if !complete || len(a.pieces) > 0 {
		a.keep(piece)
	}
	return complete
}

// join makes one of the pieces, in a buffer of rpc.Buffers.
func (a *arrival) join() *[]byte {
	joined := rpc.Buffers.Get(int(a.size))
	*joined = (*joined)[:0]
	for _, p := range a.pieces {
		*joined = append(*joined, *p...)
		rpc.Buffers.Put(p)
	}
	a.pieces = nil
	return joined
}

// room is the memory that keeping n more bytes takes beyond what is held.
func (a *arrival) room(n int) (memory int64) {
	n -= a.free()
	for kept := a.kept; n > 0; {
		size := pieceSize(kept, n)
		kept, n, memory = kept+size, n-size, memory+int64(size)
	}
	return memory
}

// keep copies a piece: the message that brought it is used again.
func (a *arrival) keep(b []byte) {
	for len(b) > 0 {
		if a.free() == 0 {
			size := pieceSize(a.kept, len(b))
			next := rpc.Buffers.Get(size)
			*next = (*next)[:0]
			a.pieces = append(a.pieces, next)
			a.kept += size
		}
		last := a.pieces[len(a.pieces)-1]
		fits := min(len(b), a.free())
		*last = append(*last, b[:fits]...)
		b = b[fits:]
	}
}

// free is the room in the last piece.
func (a *arrival) free() int {
	if len(a.pieces) == 0 {
		return 0
	}
	last := *a.pieces[len(a.pieces)-1]
	return cap(last) - len(last)
}

// pieceSize is the size of the next piece when so many bytes are kept and n more
// have come: as much again, or what has come, as a power of two.
func pieceSize(kept, n int) int {
	size := smallPiece
	for size < largePiece && size < max(kept, n) {
		size *= 2
	}
	return size
}

// drop gives the pieces back.
func (a *arrival) drop() {
	for _, p := range a.pieces {
		rpc.Buffers.Put(p)
	}
	a.pieces = nil
}

// watch calls slow when the body comes too slowly, until stop. slow runs with
// mu held, and must answer in place of the loop.
func (a *arrival) watch(slow func()) {
	a.on = true
	a.timer = time.AfterFunc(slowWindow, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if !a.on {
			return
		}
		if a.size-a.last >= slowBytes {
			a.last = a.size
			a.timer.Reset(slowWindow)
			return
		}
		a.expired = true
		slow()
	})
}

// stop ends the watch. REQUIRES: mu held.
func (a *arrival) stop() {
	a.on = false
	if a.timer != nil {
		a.timer.Stop()
	}
}

// jsonEnd finds the end of one JSON object or array that comes in pieces. What
// is no JSON has no end; that is found out when all of it is here.
type jsonEnd struct {
	depth             int
	inString, escaped bool
}

// feed reports whether the value ends in b. It must not be called again then.
func (j *jsonEnd) feed(b []byte) bool {
	for _, c := range b {
		switch {
		case j.escaped:
			j.escaped = false
		case j.inString:
			j.escaped, j.inString = c == '\\', c != '"'
		case c == '"':
			j.inString = true
		case c == '{', c == '[':
			j.depth++
		case c == '}', c == ']':
			if j.depth--; j.depth <= 0 {
				return true
			}
		}
	}
	return false
}
