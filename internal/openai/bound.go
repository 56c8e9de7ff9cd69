package openai

import "strconv"

// The fields that bound an answer, by route.
const (
	atMaxTokens = iota
	atMaxCompletion
	atMaxOutput
	boundFields
)

var boundNames = [boundFields]string{"max_tokens", "max_completion_tokens", "max_output_tokens"}

// bound reads one of the bounds and remembers where its value stands.
func (p *parser) bound(field int, into *int64) error {
	start := p.pos
	err := p.count(boundNames[field], into)
	p.bounds[field] = edit{start: start, end: p.pos}
	return err
}

// Bound returns a copy of a body that [Parse] has accepted, in which n bounds each
// choice: it replaces the client's bound or is added. The copy lies in memory of
// lim.Buffer, or is allocated where that is nil.
func Bound(ep Endpoint, body []byte, n int64, lim Limits) ([]byte, error) {
	p := newParser(ep, body, lim)
	if err := p.document(); err != nil {
		return nil, err
	}
	field := atMaxTokens
	switch {
	case ep == Responses:
		field = atMaxOutput
	case ep == ChatCompletions && p.maxCompletion != unset:
		field = atMaxCompletion
	}
	e := p.bounds[field]
	e.with = strconv.FormatInt(n, 10)
	if e.end == 0 {
		e.start, e.end = p.brace, p.brace
		e.with = `"` + boundNames[field] + `":` + e.with + ","
	}
	p.edits = []edit{e}
	return p.edited(), nil
}
