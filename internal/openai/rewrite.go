package openai

import (
	"slices"
	"unicode/utf8"
)

// edit replaces the bytes [start, end) of a body by with.
type edit struct {
	start, end int
	with       string
}

// fullUsage makes vLLM report usage in every chunk and at the end.
const fullUsage = `{"include_usage":true,"continuous_usage_stats":true}`

// rewritten returns the body with all edits applied, in one buffer; without edits it
// returns the client's body itself. New members go first: a document that has passed
// the checks has a model, so another member always follows them.
func (p *parser) rewritten() []byte {
	added := ""
	if p.out.Stream && p.ep.choices() {
		if p.options.end > 0 {
			p.options.with = fullUsage
			p.edits = append(p.edits, p.options)
		} else {
			added = `"stream_options":` + fullUsage + `,`
		}
	}
	if p.lim.CacheSalt != "" && !p.ep.Free() {
		added += `"cache_salt":` + string(appendQuoted(nil, p.lim.CacheSalt)) + `,`
	}
	if p.lim.Served != nil {
		if name := p.lim.Served(p.out.Model); name != "" && name != p.out.Model {
			p.edits = append(p.edits, edit{p.modelAt.start, p.modelAt.end, string(appendQuoted(nil, name))})
		}
	}
	if added != "" {
		p.edits = append(p.edits, edit{start: p.brace, end: p.brace, with: added})
	}
	if len(p.edits) == 0 {
		return p.buf
	}
	return p.edited()
}

// edited is the body with all edits applied.
func (p *parser) edited() []byte {
	// At the same position an insertion comes before a cut.
	slices.SortFunc(p.edits, func(a, b edit) int {
		if a.start != b.start {
			return a.start - b.start
		}
		return a.end - b.end
	})
	size := len(p.buf)
	for _, e := range p.edits {
		size += len(e.with) - (e.end - e.start)
	}
	var out []byte
	if p.lim.Buffer != nil {
		out = p.lim.Buffer(size)
	} else {
		out = make([]byte, 0, size)
	}
	at := 0
	for _, e := range p.edits {
		out = append(out, p.buf[at:e.start]...)
		out = append(out, e.with...)
		at = e.end
	}
	return append(out, p.buf[at:]...)
}

// appendQuoted appends s as a JSON string; bytes that are not UTF-8 become
// U+FFFD.
func appendQuoted(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r == '\n':
			dst = append(dst, '\\', 'n')
		case r < ' ' || r == 0x7f:
			dst = append(dst, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}
