package openai

import (
	"bytes"
	"math"
	"strconv"
	"unicode/utf8"

	"tollgate/internal/media"
	"tollgate/internal/usage"
)

const (
	// maxCount bounds every token bound; vLLM's own is far below it.
	maxCount = math.MaxInt32
	// maxInputs bounds the inputs of an embeddings, score or rerank request. MaxPrompts
	// does not apply to them: they generate nothing, and batches of thousands are usual.
	maxInputs = 1 << 16
)

// unset is a count that the client did not give.
const unset = -1

// parser reads one body. Its fields hold the values read so far.
type parser struct {
	scanner
	ep  Endpoint
	lim Limits
	out Request

	brace int  // the position behind the opening brace
	drop  bool // the current member is to be removed
	edits []edit

	stream                              bool
	n, bestOf                           int64
	maxTokens, maxCompletion, maxOutput int64
	minTokens                           int64
	bounds                              [boundFields]edit // the values of the three bounds; end is 0 where there is none
	options                             edit              // the value of stream_options; end is 0 where there is none
	optionsSet                          bool              // and it is an object
	includeUsage, continuous            bool
	prompts, embeds, items              int64
	modelAt                             span
}

// Parse checks a request body and rewrites it. The rewritten body differs from the
// client's only by the fields that docs/metering.md names; all other bytes are the
// same. Where nothing changes the result is body itself, not a copy, so the caller must
// not modify body afterwards.
//
// Parse does not modify body. Its memory beside the new body is bounded. Every refusal
// is a [*BadRequestError]. Parse does not know which models exist.
//
// Decisions on single fields: null is the same as absent everywhere. Unknown
// keys in stream_options vanish with it (vLLM ignores them). store is let
// through: vLLM turns it off by itself unless its operator allowed it.
// chat_template is let through: vLLM refuses it unless its operator allowed it.
// Inputs of embeddings, score and rerank are bounded by 65,536, not by
// MaxPrompts.
func Parse(ep Endpoint, body []byte, lim Limits) (*Request, error) {
	if lim.Media == nil {
		lim.Media = new(media.Policy)
	}
	p := newParser(ep, body, lim)
	if err := p.document(); err != nil {
		return nil, err
	}
	if err := p.verdict(); err != nil {
		return nil, err
	}
	req := p.out
	req.Endpoint, req.Format, req.source = ep, ep.Format(), body
	req.Body = p.rewritten()
	return &req, nil
}

func newParser(ep Endpoint, body []byte, lim Limits) parser {
	return parser{
		scanner: scanner{buf: body, names: names{live: make([]name, 0, 32)}}, ep: ep, lim: lim,
		n: unset, bestOf: unset, maxTokens: unset, maxCompletion: unset, maxOutput: unset,
	}
}

func badParam(param, message string) error {
	return &BadRequestError{Message: message, Param: param}
}

// document walks the top level.
func (p *parser) document() error {
	switch {
	case len(p.buf) > math.MaxInt32:
		return p.fail("it is too long")
	case bytes.HasPrefix(p.buf, []byte("\xef\xbb\xbf")):
		return p.fail("there is a byte order mark")
	case !utf8.Valid(p.buf):
		p.pos = invalidAt(p.buf)
		return p.fail("there is invalid UTF-8")
	}
	p.space()
	if p.peek() != '{' {
		if len(p.buf) == p.pos {
			return badParam("", "The request body is empty; send a JSON object.")
		}
		return badParam("", "The request body must be a JSON object.")
	}
	p.brace = p.pos + 1
	empty, err := p.open('}')
	if err != nil {
		return err
	}
	if err := p.members(!empty); err != nil {
		return err
	}
	if p.space(); p.pos != len(p.buf) {
		return p.fail("there is something behind its end,")
	}
	return nil
}

// members reads the top-level members and marks those to remove: before the first kept
// member together with the comma after them, elsewhere together with the comma before
// them.
func (p *parser) members(more bool) error {
	comma, kept := p.brace, false
	for more {
		start := p.pos
		err := p.member()
		switch {
		case err != nil:
			return err
		case p.drop && kept:
			p.edits = append(p.edits, edit{start: comma, end: p.pos})
		case !p.drop && !kept:
			if kept = true; comma != p.brace {
				p.edits = append(p.edits, edit{start: p.brace, end: start})
			}
		}
		p.space()
		comma = p.pos
		if more, err = p.next('}'); err != nil {
			return err
		}
	}
	return nil
}

// member reads one top-level member.
func (p *parser) member() error {
	p.drop = false
	key, err := p.key(0)
	if twice := string(p.twice); err != nil && isField(twice) {
		return badParam(twice, "The field '"+twice+"' is given twice.")
	}
	if err != nil {
		return err
	}
	if p.media = nil; fetched[string(key)] {
		p.media = p.lim.Media
	}
	read, known := fields[string(key)]
	switch {
	case known && read != nil:
		return read(p)
	case !known && !lowercase(key):
		if name := fold(key); isField(name) {
			return badParam(name, "A field is spelt in capitals or look-alike letters; write '"+name+"'.")
		}
	}
	_, err = p.value(false)
	return err
}

func isField(name string) bool {
	_, known := fields[name]
	return known
}

// invalidAt is the position of the first byte that is not UTF-8.
func invalidAt(b []byte) int {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(b)
}

// verdict makes the checks that need the whole document, and fills the request.
func (p *parser) verdict() error {
	if p.out.Model == "" {
		return badParam("model", "You must provide a model: set 'model' to one of the names in /v1/models.")
	}
	if p.bestOf > 1 {
		return badParam("best_of", "'best_of' above 1 is not supported; use 'n'.")
	}
	p.out.N, p.out.Prompts = 1, 1
	if p.ep.choices() {
		if err := p.checkChoices(); err != nil {
			return err
		}
	}
	if p.ep == Completions {
		if err := p.checkPrompts(); err != nil {
			return err
		}
	}
	if p.ep.Format() == usage.Pooling {
		if p.items > maxInputs {
			return badParam("input", "There are too many inputs; send at most "+strconv.Itoa(maxInputs)+" in one request.")
		}
		p.out.Prompts = int(max(1, p.items))
	}
	p.out.Stream = p.stream && p.ep.streams()
	p.out.MaxTokens, p.out.MinTokens = p.outputBound(), p.minTokens
	return nil
}

func (p *parser) checkChoices() error {
	if most := int64(max(1, p.lim.MaxN)); p.n != unset {
		if p.n < 1 || p.n > most {
			return badParam("n", "'n' must be between 1 and "+strconv.FormatInt(most, 10)+".")
		}
		p.out.N = int(p.n)
	}
	if p.optionsSet && !p.stream {
		return badParam("stream_options", "'stream_options' is only allowed when 'stream' is true.")
	}
	p.out.WantsUsage = p.includeUsage
	p.out.WantsRunning = p.includeUsage && p.continuous
	return nil
}

func (p *parser) checkPrompts() error {
	count := max(1, p.prompts+p.embeds)
	if most := int64(max(1, p.lim.MaxPrompts)); count > most {
		return badParam("prompt", "'prompt' has too many entries; send at most "+strconv.FormatInt(most, 10)+" in one request.")
	}
	p.out.Prompts = int(count)
	return nil
}

// outputBound returns the bound of the answer that vLLM obeys on this route.
func (p *parser) outputBound() int64 {
	switch p.ep {
	case ChatCompletions:
		if p.maxCompletion != unset {
			return p.maxCompletion
		}
		return p.maxTokens
	case Completions, Messages:
		return p.maxTokens
	case Responses:
		return p.maxOutput
	case Embeddings, CountTokens, Score, Rerank, RerankV2, Pooling, Classify, Tokenize, Detokenize:
	}
	return unset
}
