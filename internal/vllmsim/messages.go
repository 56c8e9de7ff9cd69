package vllmsim

import "strings"

// messages answers Anthropic's /v1/messages.
func (x *exchange) messages() {
	p := &plan{logs: -1, plogs: -1}
	if bad := x.planMessages(p); bad != nil {
		x.refuse(bad)
		return
	}
	x.answer(p, &messagesDialect{x: x, p: p})
}

func (x *exchange) planMessages(p *plan) *problem {
	q, bad := anthropicPrompt(x.f)
	if bad != nil {
		return bad
	}
	if _, ok := x.f.get("max_tokens"); !ok {
		return x.f.missing("max_tokens")
	}
	if p.stream, bad = x.f.flag("stream"); bad != nil {
		return bad
	}
	s, late := x.readSampling("max_tokens")
	if late != nil && late.kind == kindValidation {
		return late
	}
	if bad = x.resolveModel(); bad != nil {
		return bad
	}
	if late != nil {
		return late
	}
	s.n = 1
	p.prompts = []*prompt{q}
	return x.choose(p, s)
}

// anthropicPrompt is the prompt of a body: system is beside the messages.
func anthropicPrompt(f fields) (*prompt, *problem) {
	messages, bad := readMessages(f, "messages")
	if bad != nil {
		return nil, bad
	}
	if _, ok := f.get("system"); ok {
		text, bad := contentText(f["system"], "body.system")
		if bad != nil {
			return nil, bad
		}
		messages = append([]message{{"system", text}}, messages...)
	}
	return templated(messages), nil
}

// messagesDialect is the shape of /v1/messages.
type messagesDialect struct {
	x *exchange
	p *plan
}

func (d *messagesDialect) named(e *emitter, name, rest string) []byte {
	b := append(append(e.buf[:0], "event: "...), name...)
	b = append(append(b, "\ndata: {\"type\":\""...), name...)
	return append(append(b, '"'), rest...)
}

func (d *messagesDialect) open(e *emitter) {
	b := appendString(d.named(e, "message_start", `,"message":{"id":`), "chatcmpl-"+d.x.id)
	b = appendString(append(b, `,"type":"message","role":"assistant","content":[],"model":`...), d.x.model)
	b = append(b, `,"stop_reason":null,"stop_sequence":null`...)
	b, done := appendOverride(b, d.x.script.RunningOverride)
	if !done && !d.x.script.NoUsage {
		b = appendInt(b, `,"usage":{"input_tokens":`, d.p.promptTokens())
		b = append(b, `,"output_tokens":0}`...)
	}
	e.event(append(b, "}}\n\n"...))
	e.event(append(d.named(e, "content_block_start", `,"content_block":{"type":"text","text":""},"index":0}`), "\n\n"...))
}

func (d *messagesDialect) token(e *emitter, c *choice) {
	piece := c.prose.piece(c.sent - 1)
	if c.sent == 1 && d.x.script.BigEvent > 0 {
		piece += strings.Repeat("x", d.x.script.BigEvent)
	}
	if piece == "" {
		return
	}
	b := appendString(d.named(e, "content_block_delta", `,"delta":{"type":"text_delta","text":`), piece)
	b = append(b, "},\"index\":0}\n\n"...)
	e.content(c, b)
	e.buf = b
}

func (d *messagesDialect) abort(*emitter, *choice) {}

func (d *messagesDialect) close(e *emitter) {
	e.event(append(d.named(e, "content_block_stop", `,"index":0}`), "\n\n"...))
	c := d.p.choices[0]
	b := append(d.named(e, "message_delta", `,"delta":{"stop_reason":"`), stopReason(c)...)
	b = appendOptional(append(b, `","stop_sequence":`...), c.stop)
	b = d.appendUsage(append(b, '}'))
	e.event(append(b, "}\n\n"...))
}

func (d *messagesDialect) last(e *emitter) {
	e.event(append(d.named(e, "message_stop", "}"), "\n\n"...))
}

func (d *messagesDialect) fail(e *emitter, p *problem) {
	b := append([]byte("event: error\ndata: "), p.anthropic("internal_error")...)
	e.event(append(b, "\n\n"...))
}

func (d *messagesDialect) body() []byte {
	c := d.p.choices[0]
	b := appendString([]byte(`{"id":`), "chatcmpl-"+d.x.id)
	b = append(b, `,"type":"message","role":"assistant","content":[{"type":"text","text":`...)
	b = appendString(b, c.prose.text(c.sent))
	b = appendString(append(b, `}],"model":`...), d.x.model)
	b = append(append(append(b, `,"stop_reason":"`...), stopReason(c)...), '"')
	if c.stop != "" {
		b = appendString(append(b, `,"stop_sequence":`...), c.stop)
	}
	return append(d.appendUsage(b), '}')
}

// appendUsage appends the final usage: with token details the prompt is the
// sum of three fields.
func (d *messagesDialect) appendUsage(b []byte) []byte {
	if d.x.script.NoUsage {
		return b
	}
	b, done := appendOverride(b, d.x.script.UsageOverride)
	if done {
		return b
	}
	input := d.p.promptTokens()
	if d.x.sim.opts.TokenDetails {
		input -= d.p.cached + d.p.created
	}
	b = appendInt(b, `,"usage":{"input_tokens":`, input)
	b = appendInt(b, `,"output_tokens":`, d.p.completion())
	if d.x.sim.opts.TokenDetails {
		b = appendInt(b, `,"cache_creation_input_tokens":`, d.p.created)
		b = appendInt(b, `,"cache_read_input_tokens":`, d.p.cached)
	}
	return append(b, '}')
}

func stopReason(c *choice) string {
	switch {
	case c.stop != "":
		return "stop_sequence"
	case c.finish == "length":
		return "max_tokens"
	}
	return "end_turn"
}
