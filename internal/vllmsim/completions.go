package vllmsim

import (
	"encoding/json"
	"strconv"
	"strings"
)

// defaultCompletionTokens is max_tokens of /v1/completions where it is absent.
const defaultCompletionTokens = 16

// completions answers /v1/completions.
func (x *exchange) completions() {
	p := &plan{logs: -1, plogs: -1}
	if bad := x.planCompletions(p); bad != nil {
		x.refuse(bad)
		return
	}
	d := &completionsDialect{x: x, p: p}
	d.head = appendString([]byte(`{"id":`), "cmpl-"+x.id)
	d.head = strconv.AppendInt(append(d.head, `,"object":"text_completion","created":`...), x.created, 10)
	d.head = append(appendString(append(d.head, `,"model":`...), x.model), `,"choices":[`...)
	x.answer(p, d)
}

func (x *exchange) planCompletions(p *plan) *problem {
	var bad *problem
	if p.prompts, bad = readPrompts(x.f); bad != nil {
		return bad
	}
	if bad = x.readStream(p); bad != nil {
		return bad
	}
	if p.echo, bad = x.f.flag("echo"); bad != nil {
		return bad
	}
	logs, set, bad := x.f.integer("logprobs")
	if bad != nil {
		return bad
	}
	if set {
		p.logs = int(min(max(logs, 0), 20))
	}
	if bad = x.readPromptLogprobs(p); bad != nil {
		return bad
	}
	s, late := x.readSampling("max_tokens")
	if late != nil && late.kind == kindValidation {
		return late
	}
	if _, given := x.f["max_tokens"]; !given {
		s.max = defaultCompletionTokens
	}
	if bad = x.resolveModel(); bad != nil {
		return bad
	}
	if late != nil {
		return late
	}
	if beam, _ := x.f.flag("use_beam_search"); beam && p.stream {
		return badRequest("", "Streaming is not currently supported with beam search")
	}
	return x.choose(p, s)
}

// readPrompts reads a prompt: a string, a list of strings, a list of token ids
// or a list of such lists.
func readPrompts(f fields) ([]*prompt, *problem) {
	raw, ok := f.get("prompt")
	if !ok {
		return nil, f.missing("prompt")
	}
	var one string
	var many []string
	var ids []int64
	var lists [][]int64
	switch {
	case json.Unmarshal(raw, &one) == nil:
		many = []string{one}
	case json.Unmarshal(raw, &many) == nil && len(many) > 0:
	case json.Unmarshal(raw, &ids) == nil && len(ids) > 0:
		return []*prompt{idPrompt(ids)}, nil
	case json.Unmarshal(raw, &lists) == nil && len(lists) > 0:
		prompts := make([]*prompt, len(lists))
		for i, ids := range lists {
			prompts[i] = idPrompt(ids)
		}
		return prompts, nil
	default:
		return nil, invalid("body.prompt", "string_type", "Input should be a valid string", repr(raw))
	}
	prompts := make([]*prompt, len(many))
	for i, text := range many {
		prompts[i] = &prompt{text: text, tokens: CountTokens(text)}
	}
	return prompts, nil
}

func idPrompt(ids []int64) *prompt {
	return &prompt{text: detokenize(ids), ids: ids, tokens: len(ids)}
}

// completionsDialect is the shape of /v1/completions.
type completionsDialect struct {
	x    *exchange
	p    *plan
	head []byte
}

func (d *completionsDialect) open(*emitter) {}

func (d *completionsDialect) token(e *emitter, c *choice) {
	text := d.text(c, c.sent-1)
	if d.p.echo && c.sent == 1 {
		text = c.prompt.text + text
	}
	if c.sent == 1 && d.x.script.BigEvent > 0 {
		text += strings.Repeat("x", d.x.script.BigEvent)
	}
	d.write(e, c, text, c.sent-1)
}

// text is the text of token i: nothing where only the echo was asked for, for
// which vLLM still counts a token.
func (d *completionsDialect) text(c *choice, i int) string {
	if d.onlyEcho() {
		return ""
	}
	return c.prose.piece(i)
}

func (d *completionsDialect) onlyEcho() bool {
	v, set, _ := d.x.f.integer("max_tokens")
	return d.p.echo && set && v == 0
}

// write writes the chunk of the tokens of c from the given one up to c.sent.
func (d *completionsDialect) write(e *emitter, c *choice, text string, from int) {
	b := append(append(e.buf[:0], "data: "...), d.head...)
	b = appendInt(b, `{"index":`, c.index)
	b = appendString(append(b, `,"text":`...), text)
	b = appendLogprobs(append(b, `,"logprobs":`...), d.p, c, from)
	b = appendFinish(b, c)
	// With echo the first chunk has the prompt's ids, asked for or not.
	first := c.sent == 1 && (d.p.echo || d.p.ids)
	if first && c.prompt.ids == nil {
		c.prompt.ids = tokenIDs(c.prompt.text)
	}
	b = appendIDs(append(b, `,"prompt_token_ids":`...), first, c.prompt.ids)
	b = append(b, `,"token_ids":`...)
	if d.p.ids {
		b = appendIDs(b, true, c.ids(from))
	} else {
		b = append(b, "null"...)
	}
	b = d.x.appendRunning(append(b, "}]"...), d.p, c, "")
	if c.over && !d.p.final && !d.p.active() {
		b = d.x.appendFingerprint(b)
	}
	b = append(b, "}\n\n"...)
	e.content(c, b)
	e.buf = b
}

func appendFinish(b []byte, c *choice) []byte {
	if !c.over {
		return append(b, `,"finish_reason":null,"stop_reason":null`...)
	}
	b = append(append(append(b, `,"finish_reason":"`...), c.finish...), `","stop_reason":`...)
	return appendOptional(b, c.stop)
}

func (d *completionsDialect) abort(e *emitter, c *choice) { d.write(e, c, "", c.sent) }

func (d *completionsDialect) close(e *emitter) {
	if !d.p.final {
		return
	}
	b := append(append(append(e.buf[:0], "data: "...), d.head...), ']')
	b = d.x.appendFinal(b, d.p, false)
	b = d.x.appendFingerprint(b)
	b = d.x.appendStreamSpeed(b, d.p.completion())
	e.event(append(b, "}\n\n"...))
}

func (d *completionsDialect) last(e *emitter) { e.event([]byte("data: [DONE]\n\n")) }

func (d *completionsDialect) fail(e *emitter, p *problem) {
	e.event(append(append([]byte("data: "), p.spaced()...), "\n\n"...))
	d.last(e)
}

func (d *completionsDialect) body() []byte {
	b := d.head
	for i, c := range d.p.choices {
		if i > 0 {
			b = append(b, ',')
		}
		b = d.appendChoice(b, c)
	}
	b = append(append(b, `],"service_tier":null,"system_fingerprint":`...), d.x.wholeFingerprint()...)
	b = d.x.appendWhole(b, d.p)
	b = append(b, `,"kv_transfer_params":null,"ec_transfer_params":null`...)
	return append(d.x.appendSpeed(b, d.p.completion()), '}')
}

func (d *completionsDialect) appendChoice(b []byte, c *choice) []byte {
	var text strings.Builder
	if d.p.echo {
		text.WriteString(c.prompt.text)
	}
	for i := range c.sent {
		text.WriteString(d.text(c, i))
	}
	b = appendInt(b, `{"index":`, c.index)
	b = appendString(append(b, `,"text":`...), text.String())
	b = appendLogprobs(append(b, `,"logprobs":`...), d.p, c, 0)
	b = append(appendFinish(b, c), `,"token_ids":`...)
	if d.p.ids {
		b = appendIDs(b, true, c.ids(0))
		if c.prompt.ids == nil {
			c.prompt.ids = tokenIDs(c.prompt.text)
		}
	} else {
		b = append(b, "null"...)
	}
	b = appendPromptLogprobs(append(b, `,"prompt_logprobs":`...), d.p, c.prompt)
	b = appendIDs(append(b, `,"prompt_token_ids":`...), d.p.ids, c.prompt.ids)
	return append(b, `,"routed_experts":null}`...)
}
