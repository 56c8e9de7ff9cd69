package usage

import "math"

// field is a count in a usage object.
type field uint8

const (
	promptField field = iota
	completionField
	cachedField
	reasoningField
	createdField // messages: written to the prefix cache, part of the prompt
	fields
)

// The kinds of text that an event may carry.
const (
	plainText = iota
	reasoningText
	oldReasoningText
	texts
)

// tally is one usage object as it was read.
type tally struct {
	value [fields]int64 // Unsaid: missing, null or nonsense
	keyed uint8         // a bit for every field whose key was met
	bad   bool          // a count was nonsense
}

// reading is what was read of one document.
type reading struct {
	complete    bool // the top-level value has been closed
	usage       bool // a usage object was read to its end
	usageKeyed  bool // a usage key was met, whatever its value
	duplicate   bool // a second one was met
	topUsage    bool // the usage object stands at the top level
	failed      bool // there is an error that is not null
	ended       bool // a choice has a finish_reason
	aborted     bool // and it is "abort"
	indexed     bool // an index of this choice was met
	event       event
	status      event
	choices     int          // elements of choices
	index       int64        // of the first choice; Unsaid when missing or nonsense
	choiceIndex int64        // of the choice that is being read
	text        [texts]int64 // bytes
	tally       tally

	// Places in the event, for the strip.
	comma   int // the last comma at the top level, -1 before the first
	keyAt   int // the last key's quote
	cutFrom int // the bytes of usage, one neighbouring comma included
	cutTo   int
	cutNext bool // usage is the first member: the comma behind it goes with it
}

// stamp is where the fingerprint stands in the event, the comma before it
// included if there is one. It is at the top level; the zero value stands for none.
type stamp struct {
	from, to int
	open     bool // its end has not been met
}

// end is told of the place of what ends the member.
func (s *stamp) end(at int) {
	if s.open {
		s.to, s.open = at, false
	}
}

// textBytes returns the length of the decoded text.
func (r *reading) textBytes() int64 {
	return r.text[plainText] + max(r.text[reasoningText], r.text[oldReasoningText])
}

// pastComma is told of every comma at the top level.
func (r *reading) pastComma(at int) {
	r.comma = at
	if r.cutNext && r.usage {
		r.cutNext = false
		r.cutTo = at + 1
	}
}

// keyed is called with every key of the shape's objects; nil stands for one
// that is longer than all known ones.
func (d *document) keyed(key []byte) {
	d.state = atColon
	in := d.stack[d.depth-1]
	n := child(in, key)
	d.node = n
	d.stamp.end(d.r.comma) // nobody reads what is inside: it is the next member
	switch {
	case n == unreadNode:
	case shapes[n].usage:
		d.usageKeyed(in)
	case n == fingerprintNode:
		d.stamp = stamp{from: d.r.keyAt, open: true}
		if d.r.comma >= 0 {
			d.stamp.from = d.r.comma
		}
	case n > countNode:
		bit := uint8(1) << (n - countNode - 1)
		if d.r.tally.keyed&bit != 0 {
			d.note(Malformed)
			d.r.tally.value[n-countNode-1] = Unsaid
			d.r.tally.bad = true
			d.node = unreadNode
		}
		d.r.tally.keyed |= bit
	case n == indexNode:
		if d.r.indexed {
			d.r.choiceIndex = Unsaid
			d.node = unreadNode
		}
		d.r.indexed = true
	}
}

// usageKeyed is called with every usage key. in is the object that has it.
func (d *document) usageKeyed(in node) {
	if d.r.usageKeyed {
		if !d.r.duplicate {
			d.note(Malformed)
		}
		d.r.duplicate = true
		d.node = unreadNode
		return
	}
	d.r.usageKeyed = true
	d.r.topUsage = in != messageNode
	d.r.cutFrom, d.r.cutNext = d.r.keyAt, true
	if d.r.comma >= 0 {
		d.r.cutFrom, d.r.cutNext = d.r.comma, false
	}
}

// left is called when a container of the shape is closed. at is the place of
// the bracket.
func (d *document) left(n node, at int) {
	if d.depth == 0 {
		d.brace = at
		d.stamp.end(at)
	}
	switch {
	case shapes[n].usage:
		d.r.usage = true
		d.r.cutTo = at + 1
	case n == choiceNode:
		if d.r.choiceIndex == Unsaid && !d.r.indexed && d.choices == 1 {
			d.r.choiceIndex = 0 // there is only one that it can be
		}
		if d.r.choiceIndex == Unsaid {
			d.note(BadIndex)
		}
		if d.r.choices == 1 {
			d.r.index = d.r.choiceIndex
		}
	}
}

// stringRead is called at the end of a string value.
func (d *document) stringRead() {
	switch n := d.node; {
	case shapes[n].kind != stringKind:
	case n == typeNode:
		d.r.event = eventNamed(d.known())
	case n == statusNode:
		d.r.status = eventNamed(d.known())
	case n == finishNode:
		d.r.ended = true
		d.r.aborted = d.r.aborted || string(d.known()) == "abort"
	}
}

// mistyped is called when the value of a node has a type that it should not have.
func (d *document) mistyped() {
	switch n := d.node; {
	case n == errorNode:
		d.r.failed = true
	case n > countNode:
		d.note(WrongType)
		d.r.tally.bad = true
	case shapes[n].typed:
		d.note(WrongType)
		if n == choicesNode {
			d.r.choices++ // not the empty list
		}
	}
}

// scalarRead is called at the end of a number or a literal.
func (d *document) scalarRead() {
	n := d.node
	if !shapes[n].scalar || d.number.null() {
		return
	}
	v, a, ok := d.number.value()
	switch {
	case n == errorNode:
		d.r.failed = true
	case n == indexNode:
		if ok && v < d.choices {
			d.r.choiceIndex = v
		}
	case n > countNode && ok:
		d.r.tally.value[n-countNode-1] = v
	case n > countNode:
		d.note(a)
		d.r.tally.bad = true
	default:
		d.mistyped()
	}
}

// number is a number or a literal, read in pieces.
type number struct {
	v        int64
	length   int
	literal  [4]byte // the first bytes
	negative bool
	fraction bool // a point or an exponent
	overflow bool
	other    bool // not a number
}

// add takes the next bytes.
func (n *number) add(b []byte) {
	for _, c := range b {
		if n.length < len(n.literal) {
			n.literal[n.length] = c
		}
		switch {
		case c >= '0' && c <= '9':
			d := int64(c - '0')
			if n.v > (math.MaxInt64-d)/10 {
				n.overflow = true
				break
			}
			n.v = n.v*10 + d
		case c == '-' && n.length == 0:
			n.negative = true
		case n.length > 0 && (c == '.' || c == 'e' || c == 'E' || c == '-' || c == '+'):
			n.fraction = true
		default:
			n.other = true
		}
		n.length++
	}
}

// null reports whether it is the literal null.
func (n *number) null() bool { return n.length == 4 && string(n.literal[:]) == "null" }

// value returns the number, or what is wrong with it.
func (n *number) value() (v int64, a Anomaly, ok bool) {
	switch {
	case n.other, n.length > 1 && n.literal[0] == '0' && !n.fraction:
		return Unsaid, WrongType, false
	case n.negative:
		return Unsaid, Negative, false
	case n.fraction:
		return Unsaid, Fractional, false
	case n.overflow:
		return Unsaid, Overflow, false
	}
	return n.v, 0, true
}
