package vllmsim

import (
	"encoding/json"
	"strconv"
	"strings"
)

const (
	pathChat        = "/v1/chat/completions"
	pathCompletions = "/v1/completions"
	pathResponses   = "/v1/responses"
	pathMessages    = "/v1/messages"
)

// templated makes the prompt of a conversation.
func templated(messages []message) *prompt {
	q := &prompt{messages: messages}
	var all strings.Builder
	for _, m := range messages {
		all.WriteString("<|start|>" + m.role + "\n" + m.text + "<|end|>\n")
		q.tokens += templatePerMessage + CountTokens(m.text)
	}
	q.text = all.String()
	q.tokens += templateAnswer
	return q
}

// templatedIDs are the token ids of that prompt.
func templatedIDs(messages []message) []int64 {
	var ids []int64
	for _, m := range messages {
		ids = append(ids, idStart, tokenID(m.role), idNewline)
		ids = append(ids, tokenIDs(m.text)...)
		ids = append(ids, idEnd, idNewline)
	}
	return append(ids, idStart, tokenID("assistant"), idNewline)
}

// message is one turn of a conversation, as text.
type message struct{ role, text string }

// readMessages reads the list of a field: content is a string or a list of
// parts, of which the texts count.
func readMessages(f fields, name string) ([]message, *problem) {
	list, p := f.list(name)
	if p != nil {
		return nil, p
	}
	messages := make([]message, 0, len(list))
	for i, raw := range list {
		var m fields
		loc := "body." + name + "." + strconv.Itoa(i)
		if json.Unmarshal(raw, &m) != nil || m == nil {
			return nil, invalid(loc, "dict_type", "Input should be a valid dictionary", repr(raw))
		}
		role, p := m.text("role")
		if p != nil {
			return nil, p
		}
		text, p := contentText(m["content"], loc)
		if p != nil {
			return nil, p
		}
		messages = append(messages, message{role, text})
	}
	return messages, nil
}

// contentText is the text of a content: a string, null, or a list of parts.
func contentText(raw json.RawMessage, loc string) (string, *problem) {
	if len(raw) == 0 || string(raw) == "null" {
		return "", nil
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text, nil
	}
	var parts []struct {
		Text string `json:"text"`
	}
	if json.Unmarshal(raw, &parts) != nil {
		return "", invalid(loc+".content", "string_type", "Input should be a valid string", repr(raw))
	}
	for _, part := range parts {
		text += part.Text
	}
	return text, nil
}

// chat answers /v1/chat/completions.
func (x *exchange) chat() {
	p := &plan{logs: -1, plogs: -1}
	if bad := x.planChat(p); bad != nil {
		x.refuse(bad)
		return
	}
	d := &chatDialect{x: x, p: p}
	d.head = appendString([]byte(`{"id":`), "chatcmpl-"+x.id)
	d.head = append(d.head, `,"object":"chat.completion.chunk","created":`...)
	d.head = strconv.AppendInt(d.head, x.created, 10)
	d.head = append(appendString(append(d.head, `,"model":`...), x.model), `,"choices":[`...)
	x.answer(p, d)
}

func (x *exchange) planChat(p *plan) *problem {
	messages, bad := readMessages(x.f, "messages")
	if bad != nil {
		return bad
	}
	if bad = x.readStream(p); bad != nil {
		return bad
	}
	if bad = x.readLogprobs(p); bad != nil {
		return bad
	}
	if bad = x.checkTools(); bad != nil {
		return bad
	}
	s, late := x.readSampling("max_completion_tokens", "max_tokens")
	if late != nil && late.kind == kindValidation {
		return late
	}
	if bad = x.resolveModel(); bad != nil {
		return bad
	}
	if len(messages) == 0 {
		return badRequest("", "Cannot apply chat template to an empty conversation. Provide at least one message.")
	}
	if late != nil {
		return late
	}
	p.prompts = []*prompt{templated(messages)}
	if p.ids {
		p.prompts[0].ids = templatedIDs(messages)
	}
	if bad = x.choose(p, s); bad != nil {
		return bad
	}
	return x.planTools(p)
}

// readLogprobs reads what a chat request says of them, and return_token_ids.
func (x *exchange) readLogprobs(p *plan) *problem {
	wanted, bad := x.f.flag("logprobs")
	if bad != nil {
		return bad
	}
	top, _, bad := x.f.integer("top_logprobs")
	if bad != nil {
		return bad
	}
	if wanted {
		p.logs = int(min(max(top, 0), 20))
	}
	return x.readPromptLogprobs(p)
}

func (x *exchange) readPromptLogprobs(p *plan) *problem {
	n, set, bad := x.f.integer("prompt_logprobs")
	if bad != nil {
		return bad
	}
	if set {
		p.plogs = int(min(max(n, 0), 20))
	}
	p.ids, bad = x.f.flag("return_token_ids")
	return bad
}

// chatDialect is the shape of /v1/chat/completions.
type chatDialect struct {
	x    *exchange
	p    *plan
	head []byte // what every chunk begins with, up to choices
}

const chatRunningTail = `,"completion_tokens_details":null`

func (d *chatDialect) chunk(e *emitter) []byte {
	return append(append(e.buf[:0], "data: "...), d.head...)
}

func (d *chatDialect) open(e *emitter) {
	for _, c := range d.p.choices {
		b := appendInt(d.chunk(e), `{"index":`, c.index)
		b = append(b, `,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]`...)
		b = d.x.appendRunning(b, d.p, c, chatRunningTail)
		b = appendIDs(append(b, `,"prompt_token_ids":`...), d.p.ids, c.prompt.ids)
		b = append(b, ",\"prompt_text\":null}\n\n"...)
		e.event(b)
		e.buf = b
	}
}

func (d *chatDialect) token(e *emitter, c *choice) {
	if c.tool != nil {
		d.toolToken(e, c)
		return
	}
	piece := c.prose.piece(c.sent - 1)
	if c.sent == 1 && d.x.script.BigEvent > 0 {
		piece += strings.Repeat("x", d.x.script.BigEvent)
	}
	if piece == "" && d.x.sim.opts.ToolParser {
		if !c.over {
			return // a parser is looking: chunks without text are suppressed
		}
		d.write(e, c, "", true)
		return
	}
	d.write(e, c, string(appendString([]byte(`"content":`), piece)), true)
}

// write writes the chunk of c with that delta.
func (d *chatDialect) write(e *emitter, c *choice, delta string, fresh bool) {
	b := appendInt(d.chunk(e), `{"index":`, c.index)
	b = append(append(append(b, `,"delta":{`...), delta...), `},"logprobs":`...)
	from := c.sent
	if fresh {
		from--
	}
	if d.p.logs >= 0 && from < c.sent {
		b = appendChatLogprobs(b, d.p, c, from)
	} else {
		b = append(b, "null"...)
	}
	if c.over {
		b = append(append(append(b, `,"finish_reason":"`...), c.finish...), `","stop_reason":`...)
		b = appendOptional(b, c.stop)
	} else {
		b = append(b, `,"finish_reason":null`...)
	}
	b = append(b, `,"token_ids":`...)
	if d.p.ids {
		b = appendIDs(b, true, c.ids(from))
	} else {
		b = append(b, "null"...)
	}
	b = d.x.appendRunning(append(b, "}]"...), d.p, c, chatRunningTail)
	if c.over && !d.p.final && !d.p.active() {
		b = d.x.appendFingerprint(b)
	}
	b = append(b, "}\n\n"...)
	e.content(c, b)
	e.buf = b
}

func (d *chatDialect) abort(e *emitter, c *choice) { d.write(e, c, `"content":""`, false) }

func (d *chatDialect) close(e *emitter) {
	if !d.p.final {
		return
	}
	b := append(d.chunk(e), ']')
	b = d.x.appendFinal(b, d.p, true)
	b = d.x.appendFingerprint(b)
	b = d.x.appendStreamSpeed(b, d.p.completion())
	e.event(append(b, "}\n\n"...))
}

func (d *chatDialect) last(e *emitter) { e.event([]byte("data: [DONE]\n\n")) }

func (d *chatDialect) fail(e *emitter, p *problem) {
	e.event(append(append([]byte("data: "), p.spaced()...), "\n\n"...))
	d.last(e)
}

func (d *chatDialect) body() []byte {
	b := appendString([]byte(`{"id":`), "chatcmpl-"+d.x.id)
	b = strconv.AppendInt(append(b, `,"object":"chat.completion","created":`...), d.x.created, 10)
	b = append(appendString(append(b, `,"model":`...), d.x.model), `,"choices":[`...)
	for i, c := range d.p.choices {
		if i > 0 {
			b = append(b, ',')
		}
		b = d.appendChoice(b, c)
	}
	b = append(append(b, `],"service_tier":null,"system_fingerprint":`...), d.x.wholeFingerprint()...)
	b = d.x.appendWhole(b, d.p)
	b = appendPromptLogprobs(append(b, `,"prompt_logprobs":`...), d.p, d.p.prompts[0])
	b = appendIDs(append(b, `,"prompt_token_ids":`...), d.p.ids, d.p.prompts[0].ids)
	b = append(b, `,"prompt_text":null,"kv_transfer_params":null,"ec_transfer_params":null`...)
	return append(d.x.appendSpeed(b, d.p.completion()), '}')
}

func (d *chatDialect) appendChoice(b []byte, c *choice) []byte {
	b = appendInt(b, `{"index":`, c.index)
	b = append(b, `,"message":{"role":"assistant","content":`...)
	calls := ""
	switch {
	case c.tool == nil:
		b = appendString(b, c.prose.text(c.sent))
	case c.finish == finishTools:
		b = append(b, "null"...)
		calls = c.tool.whole()
	default:
		b = appendString(b, c.tool.unparsed(c.sent))
	}
	b = append(b, `,"refusal":null,"annotations":null,"audio":null,"function_call":null`...)
	b = append(append(b, calls...), `,"reasoning":null},"logprobs":`...)
	b = appendChatLogprobs(b, d.p, c, 0)
	b = append(append(append(b, `,"finish_reason":"`...), c.finish...), `","stop_reason":`...)
	b = appendOptional(b, c.stop)
	if d.p.ids {
		b = appendIDs(append(b, `,"token_ids":`...), true, c.ids(0))
	} else {
		b = append(b, `,"token_ids":null`...)
	}
	return append(b, `,"routed_experts":null}`...)
}
