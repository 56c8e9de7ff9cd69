package openai

import "bytes"

// PromptWriter takes the text of a prompt from its beginning.
type PromptWriter interface {
	// Text takes some of it. The bytes are the caller's again afterwards.
	Text(b []byte)
	// End marks the end of a message.
	End()
	// Full reports that the writer wants no more text.
	Full() bool
}

// The parts of a prompt, in the order in which chat templates write them.
const (
	partTools = iota
	partFunctions
	partSystem
	partInstructions
	partMessages
	partPrompt
	partInput
	promptParts
)

// billing is the beginning of a system text in which Claude Code names its version and
// a checksum of the first message. The text differs between conversations, stands
// before everything that they share, and means nothing to a model.
var billing = []byte("x-anthropic-billing-header:")

// WritePrompt writes to w the text from which the engine makes its prompt. Two requests
// whose texts begin alike have prompts that begin alike. The text keeps JSON's escapes.
// Names of fields, Anthropic's cache marks and the billing line of Claude Code are left
// out, so that a repeated message has the same text in every request. Routes that
// generate nothing have no prompt.
//
// The caller must not have changed the parsed body.
func (r *Request) WritePrompt(w PromptWriter) {
	for part, at := range r.parts {
		if at.end == 0 || w.Full() {
			continue
		}
		b := r.source[at.start:at.end]
		if part == partTools || part == partFunctions {
			w.Text(b)
			w.End()
			continue
		}
		p := promptWalk{b: b, w: w, system: part == partSystem}
		p.value(1)
	}
}

// span is a part of a body; end is 0 where there is none.
type span struct{ start, end int }

// part wraps a rule and records where this part of the prompt stands.
func part(number int, read rule) rule {
	return func(p *parser) error {
		start := p.pos
		err := read(p)
		if p.ep.streams() {
			p.out.parts[number] = span{start, p.pos}
		}
		return err
	}
}

// promptWalk goes through a value that was checked before.
type promptWalk struct {
	b      []byte
	i      int
	w      PromptWriter
	system bool
	done   bool // the writer is full: nothing is read any more
}

// value writes the texts of a value. The elements of a list at the first level are
// messages.
func (p *promptWalk) value(level int) {
	switch p.skip(); p.b[p.i] {
	case '"':
		if s := p.str(); !p.system || !bytes.HasPrefix(s, billing) {
			p.w.Text(s)
		}
	case '[':
		p.elements(func() {
			message := level == 1 && (p.b[p.i] == '{' || p.b[p.i] == '"')
			if p.value(level + 1); message {
				p.w.End()
			}
		})
	case '{':
		p.elements(func() { p.member(level) })
	default:
		p.w.Text(p.scalar())
		p.w.Text(comma) // 1,23 is not 12,3
	}
	if level == 1 {
		p.w.End()
	}
}

func (p *promptWalk) member(level int) {
	key := p.str()
	p.skip()
	p.i++ // the colon
	switch string(key) {
	case "cache_control", "type":
		w := p.w
		p.w = nowhere{}
		p.value(level + 1)
		p.w = w
	default:
		p.value(level + 1)
	}
}

// nowhere discards text.
type nowhere struct{}

func (nowhere) Text([]byte) {}
func (nowhere) End()        {}
func (nowhere) Full() bool  { return false }

// elements calls each for every element of the list or object that begins here.
func (p *promptWalk) elements(each func()) {
	p.i++
	for p.skip(); p.b[p.i] != ']' && p.b[p.i] != '}'; p.skip() {
		if p.b[p.i] == ',' {
			p.i++
			p.skip()
		}
		if each(); p.done || p.w.Full() {
			p.done = true
			return
		}
	}
	p.i++
}

// skip steps over white space. The body is valid JSON, so there is always a byte after
// it.
func (p *promptWalk) skip() {
	for p.b[p.i] == ' ' || p.b[p.i] == '\n' || p.b[p.i] == '\r' || p.b[p.i] == '\t' {
		p.i++
	}
}

// str reads a string and returns what is between its quotes.
func (p *promptWalk) str() []byte {
	p.i++
	start := p.i
	for {
		p.i = plain(p.b, p.i)
		if p.b[p.i] == '"' {
			p.i++
			return p.b[start : p.i-1]
		}
		p.i += 2 // an escaped quote does not end the string
	}
}

// scalar reads a number or a word.
func (p *promptWalk) scalar() []byte {
	start := p.i
	for ; p.i < len(p.b); p.i++ {
		switch p.b[p.i] {
		case ',', ']', '}', ' ', '\n', '\r', '\t':
			return p.b[start:p.i]
		}
	}
	return p.b[start:]
}

var comma = []byte(",")
