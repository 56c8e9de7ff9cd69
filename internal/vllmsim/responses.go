package vllmsim

import (
	"encoding/json"
	"strconv"
	"strings"
)

// responses answers /v1/responses.
func (x *exchange) responses() {
	p := &plan{logs: -1, plogs: -1}
	if bad := x.planResponses(p); bad != nil {
		x.refuse(bad)
		return
	}
	x.answer(p, &responsesDialect{x: x, p: p, item: "msg_" + randomHex(8)})
}

func (x *exchange) planResponses(p *plan) *problem {
	messages, bad := readInput(x.f)
	if bad != nil {
		return bad
	}
	if p.stream, bad = x.f.flag("stream"); bad != nil {
		return bad
	}
	s, late := x.readSampling("max_output_tokens")
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
	p.prompts = []*prompt{templated(messages)}
	return x.choose(p, s)
}

// readInput reads instructions and input, a string or a list of messages.
func readInput(f fields) ([]message, *problem) {
	raw, ok := f.get("input")
	if !ok {
		return nil, f.missing("input")
	}
	var messages []message
	instructions, bad := f.text("instructions")
	if bad != nil {
		return nil, bad
	}
	if instructions != "" {
		messages = append(messages, message{"system", instructions})
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return append(messages, message{"user", text}), nil
	}
	list, bad := readMessages(f, "input")
	return append(messages, list...), bad
}

// responsesDialect is the shape of /v1/responses.
type responsesDialect struct {
	x    *exchange
	p    *plan
	item string
	seq  int
}

// event writes {fields…,"sequence_number":n,"type":name}.
func (d *responsesDialect) event(e *emitter, name string, fields []byte) {
	e.event(d.frame(name, fields))
}

func (d *responsesDialect) frame(name string, fields []byte) []byte {
	b := append(append([]byte("event: "), name...), "\ndata: {"...)
	b = appendInt(append(b, fields...), `,"sequence_number":`, d.seq)
	d.seq++
	b = append(append(b, `,"type":"`...), name...)
	return append(b, "\"}\n\n"...)
}

func (d *responsesDialect) open(e *emitter) {
	response := d.appendResponse([]byte(`"response":`), "in_progress")
	d.event(e, "response.created", response)
	d.event(e, "response.in_progress", response)
	d.event(e, "response.output_item.added",
		[]byte(`"item":{"id":"`+d.item+`","content":[],"role":"assistant","status":"in_progress","type":"message","phase":null},"output_index":0`))
	d.event(e, "response.content_part.added",
		[]byte(`"content_index":0,"item_id":"`+d.item+`","output_index":0,"part":{"annotations":[],"text":"","type":"output_text","logprobs":[]}`))
}

func (d *responsesDialect) token(e *emitter, c *choice) {
	piece := c.prose.piece(c.sent - 1)
	if c.sent == 1 && d.x.script.BigEvent > 0 {
		piece += strings.Repeat("x", d.x.script.BigEvent)
	}
	if piece == "" {
		return
	}
	b := appendString([]byte(`"content_index":0,"delta":`), piece)
	b = append(b, `,"item_id":"`+d.item+`","logprobs":[],"output_index":0`...)
	e.content(c, d.frame("response.output_text.delta", b))
}

func (d *responsesDialect) abort(*emitter, *choice) {}

func (d *responsesDialect) close(e *emitter) {
	c := d.p.choices[0]
	place := `"content_index":0,"item_id":"` + d.item + `"`
	// The text stands between the sequence number and the type.
	b := append([]byte("event: response.output_text.done\ndata: {"), place...)
	b = appendInt(b, `,"logprobs":[],"output_index":0,"sequence_number":`, d.seq)
	d.seq++
	b = appendString(append(b, `,"text":`...), c.prose.text(c.sent))
	e.event(append(b, ",\"type\":\"response.output_text.done\"}\n\n"...))
	d.event(e, "response.content_part.done", d.appendPart([]byte(place+`,"output_index":0,"part":`)))
	d.event(e, "response.output_item.done", append(d.appendItem([]byte(`"item":`)), `,"output_index":0`...))
}

func (d *responsesDialect) last(e *emitter) {
	d.event(e, "response.completed", d.appendResponse([]byte(`"response":`), d.status()))
}

func (d *responsesDialect) fail(e *emitter, p *problem) {
	b := strconv.AppendInt([]byte(`"code":"`), int64(p.status), 10)
	b = appendString(append(b, `","message":`...), p.message)
	d.event(e, "error", append(b, `,"param":null`...))
}

func (d *responsesDialect) body() []byte { return d.appendResponse(nil, d.status()) }

func (d *responsesDialect) status() string {
	if d.p.choices[0].finish == "length" {
		return "incomplete"
	}
	return "completed"
}

// appendPart appends the content part with all text.
func (d *responsesDialect) appendPart(b []byte) []byte {
	c := d.p.choices[0]
	b = appendString(append(b, `{"annotations":[],"text":`...), c.prose.text(c.sent))
	return append(b, `,"type":"output_text","logprobs":null}`...)
}

// appendItem appends the finished message.
func (d *responsesDialect) appendItem(b []byte) []byte {
	b = d.appendPart(append(b, `{"id":"`+d.item+`","content":[`...))
	return append(b, `],"role":"assistant","status":"completed","type":"message","phase":null}`...)
}

// appendResponse appends the response object in that status.
func (d *responsesDialect) appendResponse(b []byte, status string) []byte {
	live := status == "in_progress"
	b = appendString(append(b, `{"id":`...), "resp_"+d.x.id)
	b = strconv.AppendInt(append(b, `,"created_at":`...), d.x.created, 10)
	if status == "incomplete" {
		b = append(b, `,"incomplete_details":{"reason":"max_output_tokens"}`...)
	} else {
		b = append(b, `,"incomplete_details":null`...)
	}
	instructions, _ := d.x.f.text("instructions")
	b = appendOptional(append(b, `,"instructions":`...), instructions)
	b = appendString(append(b, `,"metadata":null,"model":`...), d.x.model)
	b = append(b, `,"object":"response","output":[`...)
	if !live {
		b = d.appendItem(b)
	}
	temperature, set, _ := d.x.f.number("temperature")
	if !set {
		temperature = 1
	}
	b = append(b, `],"parallel_tool_calls":true,"temperature":`+pythonFloat(temperature)...)
	b = append(b, `,"tool_choice":"none","tools":[],"top_p":1.0,"background":false,"max_output_tokens":`...)
	b = appendInt(b, "", d.maxOutput())
	b = append(b, `,"max_tool_calls":null,"previous_response_id":null,"prompt":null,"reasoning":null,"service_tier":"auto","status":"`...)
	b = append(b, status+`","text":null,"top_logprobs":null,"truncation":"disabled"`...)
	b = d.appendUsage(b, live)
	b = append(b, `,"user":null`...)
	if !live && d.x.sim.opts.RequestMetrics {
		b = d.x.appendSpeed(b, d.p.completion())
	}
	return append(b, `,"presence_penalty":0.0,"frequency_penalty":0.0,"kv_transfer_params":null,"ec_transfer_params":null,"input_messages":null,"output_messages":null}`...)
}

func (d *responsesDialect) maxOutput() int {
	if v, set, _ := d.x.f.integer("max_output_tokens"); set {
		return int(v)
	}
	return d.x.sim.opts.MaxModelLen - d.p.promptTokens()
}

func (d *responsesDialect) appendUsage(b []byte, live bool) []byte {
	if live || d.x.script.NoUsage {
		return append(b, `,"usage":null`...)
	}
	b, done := appendOverride(b, d.x.script.UsageOverride)
	if done {
		return b
	}
	cached := 0
	if d.x.sim.opts.TokenDetails {
		cached = d.p.cached
	}
	in, out := d.p.promptTokens(), d.p.completion()
	b = appendInt(b, `,"usage":{"input_tokens":`, in)
	b = appendInt(b, `,"input_tokens_details":{"cached_tokens":`, cached)
	b = append(b, `,"cache_write_tokens":0,"input_tokens_per_turn":[],"cached_tokens_per_turn":[]}`...)
	b = appendInt(b, `,"output_tokens":`, out)
	b = append(b, `,"output_tokens_details":{"reasoning_tokens":0,"tool_output_tokens":0,"output_tokens_per_turn":[],"tool_output_tokens_per_turn":[]}`...)
	return append(appendInt(b, `,"total_tokens":`, in+out), '}')
}
