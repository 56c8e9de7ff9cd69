package openai

import (
	"strconv"

	"tollgate/internal/usage"
	"tollgate/internal/whole"
)

// The methods of this file are the rules of the top-level fields: each reads
// the value at the current position and keeps what the gateway needs of it.

func (p *parser) model() error {
	if p.peek() != '"' {
		k, err := p.value(false)
		if err == nil && k != null {
			err = badParam("model", "'model' must be a string.")
		}
		return err
	}
	start := p.pos
	raw, _, escaped, err := p.str()
	if err != nil {
		return err
	}
	if escaped {
		raw = unescape(raw)
	}
	p.out.Model, p.modelAt = string(raw), span{start, p.pos}
	return nil
}

// flag reads true, false or null.
func (p *parser) flag(name string, into *bool) error {
	k, err := p.value(false)
	switch {
	case err != nil:
		return err
	case k == boolTrue:
		*into = true
	case k != boolFalse && k != null:
		return badParam(name, "'"+name+"' must be true or false.")
	}
	return nil
}

func (p *parser) mustBeOff(name string) error {
	on := false
	err := p.flag(name, &on)
	if err == nil && on {
		err = badParam(name, "'"+name+"' is not supported; leave it out.")
	}
	return err
}

// count reads a whole number from 0 to maxCount, or null. 1024.0 and 1e3 are whole
// numbers too: some clients write them so, and vLLM takes them.
func (p *parser) count(name string, into *int64) error {
	start := p.pos
	k, err := p.value(false)
	switch {
	case err != nil:
		return err
	case k == null:
		return nil
	case k != integer && k != fraction:
		return badParam(name, "'"+name+"' must be an integer.")
	}
	v, isWhole := whole.Number(p.buf[start:p.pos])
	switch {
	case !isWhole:
		return badParam(name, "'"+name+"' must be an integer.")
	case v < 0 || v > maxCount:
		return badParam(name, "'"+name+"' must be between 0 and "+strconv.Itoa(maxCount)+".")
	}
	*into = v
	return nil
}

// streamOptions reads stream_options; on routes without usage in streams it checks only
// the form, because OpenAI's Responses API has other options under this name.
func (p *parser) streamOptions() error {
	start := p.pos
	if p.peek() != '{' {
		k, err := p.value(false)
		if err == nil && k != null {
			err = badParam("stream_options", "'stream_options' must be an object.")
		}
		p.options = edit{start: start, end: p.pos}
		return err
	}
	empty, err := p.open('}')
	base := p.names.len()
	for more := !empty; more && err == nil; {
		if err = p.streamOption(base); err == nil {
			more, err = p.next('}')
		}
	}
	if err != nil {
		return err
	}
	p.names.drop(base)
	p.options, p.optionsSet = edit{start: start, end: p.pos}, true
	return nil
}

func (p *parser) streamOption(base int) error {
	key, err := p.key(base)
	if err != nil {
		return err
	}
	switch string(key) {
	case "include_usage":
		return p.flag("stream_options.include_usage", &p.includeUsage)
	case "continuous_usage_stats":
		return p.flag("stream_options.continuous_usage_stats", &p.continuous)
	}
	if !lowercase(key) {
		switch name := fold(key); name {
		case "include_usage", "continuous_usage_stats", "include_obfuscation":
			return badParam("stream_options."+name, "A field is spelt in capitals or look-alike letters; write '"+name+"'.")
		}
	}
	_, err = p.value(false)
	return err
}

// encodingFormat records the formats whose answer is not JSON.
func (p *parser) encodingFormat() error {
	if p.peek() != '"' {
		k, err := p.value(false)
		if err == nil && k != null {
			err = badParam("encoding_format", "'encoding_format' must be a string.")
		}
		return err
	}
	raw, _, escaped, err := p.str()
	if err != nil {
		return err
	}
	if escaped {
		raw = unescape(raw)
	}
	if s := string(raw); s == "bytes" || s == "bytes_only" {
		p.out.Binary = true
		if p.ep.Format() != usage.Pooling {
			return badParam("encoding_format", "This 'encoding_format' is for embeddings; leave it out.")
		}
	}
	return nil
}

// shape describes the first level of a value.
type shape struct {
	kind                            kind
	items, strings, integers, lists int64
}

// shaped reads a value and adds its text and numbers to PromptBytes.
func (p *parser) shaped() (sh shape, err error) {
	size, numbers := p.textBytes, p.numbers
	if p.peek() == '[' {
		sh, err = p.list()
	} else {
		sh.kind, err = p.value(false)
	}
	p.out.PromptBytes += p.textBytes - size + 4*(p.numbers-numbers)
	return sh, err
}

func (p *parser) list() (sh shape, err error) {
	sh.kind = array
	empty, err := p.open(']')
	for more := !empty; more && err == nil; {
		var k kind
		start := p.pos
		if k, err = p.value(false); err != nil {
			break
		}
		sh.items++
		if k == fraction {
			if _, ok := whole.Number(p.buf[start:p.pos]); ok {
				k = integer
			}
		}
		switch k {
		case text:
			sh.strings++
		case integer:
			sh.integers++
		case array:
			sh.lists++
		case null, boolTrue, boolFalse, fraction, object:
		}
		more, err = p.next(']')
	}
	return sh, err
}

// prompt reads the prompts of a completions request: a string, a list of strings, token
// ids (one prompt), or a list of lists of token ids. On other routes it is plain text.
func (p *parser) prompt() error {
	sh, err := p.shaped()
	switch {
	case err != nil || p.ep != Completions || sh.kind == null:
		return err
	case sh.kind == text:
		p.prompts = 1
	case sh.kind != array:
		return badParam("prompt", "'prompt' must be a string, a list of strings, a list of token ids or a list of such lists.")
	case sh.items == 0:
		return badParam("prompt", "'prompt' must not be empty.")
	case sh.integers == sh.items:
		p.prompts = 1
	case sh.strings == sh.items || sh.lists == sh.items:
		p.prompts = sh.items
	default:
		return badParam("prompt", "'prompt' must not mix strings, token ids and lists.")
	}
	return nil
}

// promptEmbeds counts prompts that come as embeddings; vLLM adds them to those of
// prompt. Their size does not depend on the number of tokens, so each counts as media.
func (p *parser) promptEmbeds() error {
	var sh shape
	var err error
	if p.peek() == '[' {
		sh, err = p.list()
	} else {
		sh.kind, err = p.value(false)
	}
	if err != nil || sh.kind == null {
		return err
	}
	p.embeds = max(1, sh.items)
	p.out.PromptBytes += mediaBytes * p.embeds
	return nil
}

// inputs reads text that may be a list of inputs.
func (p *parser) inputs() error {
	sh, err := p.shaped()
	if sh.kind == array && sh.integers < sh.items {
		p.items = max(p.items, sh.items)
	}
	return err
}

// words reads the texts in a value of any structure.
func (p *parser) words() error {
	before := p.textBytes
	_, err := p.value(false)
	p.out.PromptBytes += p.textBytes - before
	return err
}

// raw reads a value that a chat template writes out as JSON.
func (p *parser) raw() error {
	start := p.pos
	k, err := p.value(false)
	if k != null {
		p.out.PromptBytes += int64(p.pos - start)
	}
	return err
}

func (p *parser) remove() error {
	p.drop = true
	_, err := p.value(false)
	return err
}
