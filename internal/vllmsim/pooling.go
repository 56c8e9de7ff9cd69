package vllmsim

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
)

// dimensions of a simulated embedding.
const dimensions = 8

// embeddings answers /v1/embeddings: input in the four forms of a prompt.
func (x *exchange) embeddings() { x.vectors("embd-", "embedding", "embedding") }

// pooling answers /pooling, which has the same numbers under another name.
func (x *exchange) pooling() { x.vectors("pool-", "pooling", "data") }

// vectors answers with numbers for each input: kind begins the id, object is what
// an entry says it is, and name holds its numbers.
func (x *exchange) vectors(kind, object, name string) {
	p, ok := x.inputs()
	if !ok {
		return
	}
	b := x.poolHead(kind)
	for i, q := range p.prompts {
		b = appendInt(separate(b, i), `{"index":`, i)
		b = append(b, `,"object":"`+object+`","`+name+`":[`...)
		for j := range dimensions {
			b = append(separate(b, j), pythonFloat(similarity(q.text, strconv.Itoa(j)))...)
		}
		b = append(b, "]}"...)
	}
	x.pooled(p, append(x.appendWhole(append(b, ']'), p), '}'))
}

// classify answers /classify: two labels for each input.
func (x *exchange) classify() {
	p, ok := x.inputs()
	if !ok {
		return
	}
	b := x.poolHead("classify-")
	for i, q := range p.prompts {
		first := similarity(q.text)
		label := "LABEL_0"
		if first < 0.5 {
			label = "LABEL_1"
		}
		b = appendInt(separate(b, i), `{"index":`, i)
		b = appendString(append(b, `,"label":`...), label)
		b = append(b, `,"probs":[`+pythonFloat(first)+","+pythonFloat(1-first)+`],"num_classes":2}`...)
	}
	x.pooled(p, append(x.appendWhole(append(b, ']'), p), '}'))
}

// inputs reads what is to be pooled: input in the four forms of a prompt, or a
// conversation. False where the request was refused.
func (x *exchange) inputs() (*plan, bool) {
	prompts, bad := x.readInputs()
	if bad == nil {
		bad = x.resolveModel()
	}
	p, bad := x.pool(prompts, bad)
	if bad != nil {
		x.refuse(bad)
		return nil, false
	}
	return p, true
}

func (x *exchange) readInputs() ([]*prompt, *problem) {
	if _, ok := x.f.get("input"); ok {
		return readPrompts(fields{"prompt": x.f["input"]})
	}
	if _, ok := x.f.get("messages"); !ok {
		return nil, x.f.missing("input")
	}
	messages, bad := readMessages(x.f, "messages")
	if bad != nil {
		return nil, bad
	}
	q := &prompt{tokens: len(templatedIDs(messages))}
	for _, m := range messages {
		q.text += m.text + "\n"
	}
	return []*prompt{q}, nil
}

// score answers /v1/score: text_1 or queries against text_2 or documents.
func (x *exchange) score() {
	queries, documents, bad := x.pairs([]string{"text_1", "queries"}, []string{"text_2", "documents"})
	prompts := make([]*prompt, 0, len(documents))
	for i, text := range documents {
		q := queries[min(i, len(queries)-1)]
		prompts = append(prompts, &prompt{text: q + "\n" + text, tokens: CountTokens(q) + CountTokens(text)})
	}
	p, bad := x.pool(prompts, bad)
	if bad != nil {
		x.refuse(bad)
		return
	}
	b := x.poolHead("score-")
	for i, q := range p.prompts {
		b = appendInt(separate(b, i), `{"index":`, i)
		b = append(b, `,"object":"score","score":`+pythonFloat(similarity(q.text))+"}"...)
	}
	x.pooled(p, append(x.appendWhole(append(b, ']'), p), '}'))
}

// rerank answers /v1/rerank: the most relevant first, top_n of them (0: all).
func (x *exchange) rerank() {
	queries, documents, bad := x.pairs([]string{"query"}, []string{"documents"})
	prompts := make([]*prompt, 0, len(documents))
	for _, text := range documents {
		prompts = append(prompts, &prompt{text: queries[0] + "\n" + text, tokens: CountTokens(queries[0]) + CountTokens(text)})
	}
	top, _, late := x.f.integer("top_n")
	if bad == nil {
		bad = late
	}
	p, bad := x.pool(prompts, bad)
	if bad != nil {
		x.refuse(bad)
		return
	}
	b := appendString([]byte(`{"id":`), "rerank-"+x.id)
	b = appendString(append(b, `,"model":`...), x.model)
	b = append(x.appendWhole(b, p), `,"results":[`...)
	for n, i := range ranked(p.prompts, top) {
		b = appendInt(separate(b, n), `{"index":`, i)
		b = appendString(append(b, `,"document":{"text":`...), documents[i])
		b = append(b, `,"multi_modal":null},"relevance_score":`+pythonFloat(similarity(p.prompts[i].text))+"}"...)
	}
	x.pooled(p, append(b, "]}"...))
}

// ranked are the numbers of the prompts by falling similarity, the first top of
// them; below 1: all.
func ranked(prompts []*prompt, top int64) []int {
	order := make([]int, len(prompts))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int {
		return cmp.Compare(similarity(prompts[j].text), similarity(prompts[i].text))
	})
	if top > 0 {
		order = order[:min(int64(len(order)), top)]
	}
	return order
}

// pairs reads the two sides of a comparison under the first name that is there.
func (x *exchange) pairs(left, right []string) (queries, documents []string, bad *problem) {
	read := func(names []string) ([]string, *problem) {
		for _, name := range names {
			if _, ok := x.f.get(name); ok {
				return x.f.strings(name)
			}
		}
		return nil, x.f.missing(names[0])
	}
	if queries, bad = read(left); bad != nil {
		return nil, nil, bad
	}
	if documents, bad = read(right); bad != nil {
		return nil, nil, bad
	}
	if len(queries) == 0 || len(documents) == 0 {
		return nil, nil, badRequest("", "At least one text is needed on each side")
	}
	return queries, documents, x.resolveModel()
}

// pool plans a request whose tokens are its prompt's.
func (x *exchange) pool(prompts []*prompt, bad *problem) (*plan, *problem) {
	if bad != nil {
		return nil, bad
	}
	p := &plan{prompts: prompts, n: 1, logs: -1, plogs: -1}
	for _, q := range prompts {
		if q.tokens > x.sim.opts.MaxModelLen {
			return nil, badRequest("input_tokens", "This model's maximum context length is %d tokens. However, you requested %d tokens in the input for embedding generation. Please reduce the length of the input. (parameter=input_tokens, value=%d)", x.sim.opts.MaxModelLen, q.tokens, q.tokens)
		}
	}
	x.rec.update(func(t *Truth) {
		t.ResponseID, t.Model, t.N, t.Prompts, t.PromptTokens = x.id, x.model, 1, len(prompts), p.promptTokens()
	})
	return p, nil
}

// poolHead begins a list of results.
func (x *exchange) poolHead(kind string) []byte {
	b := appendString([]byte(`{"id":`), kind+x.id)
	b = strconv.AppendInt(append(b, `,"object":"list","created":`...), x.created, 10)
	return append(appendString(append(b, `,"model":`...), x.model), `,"data":[`...)
}

func separate(b []byte, i int) []byte {
	if i > 0 {
		return append(b, ',')
	}
	return b
}

// pooled sends body after the time that a prompt takes.
func (x *exchange) pooled(p *plan, body []byte) {
	switch err := x.start(p); {
	case errors.Is(err, errDead), errors.Is(err, errStopped):
		x.refuse(internalError(messageEngineDead))
		return
	case err != nil:
		x.finish(0, err)
		return
	}
	x.tally.do(func(t *tally) { t.PromptTokens += int64(p.promptTokens()) })
	x.whole(http.StatusOK, body)
}

// similarity is a number from 0 to 1 that only depends on its arguments.
func similarity(parts ...string) float64 { return float64(hash64(parts...)%10000) / 10000 }

// tokenize answers /tokenize, of a prompt or of messages. It costs nothing and
// needs no key.
func (s *Sim) tokenize(w http.ResponseWriter, r *http.Request) {
	s.plain(w, r, func(f fields) ([]byte, *problem) {
		var ids []int64
		if _, ok := f.get("messages"); ok {
			messages, bad := readMessages(f, "messages")
			if bad != nil {
				return nil, bad
			}
			ids = templatedIDs(messages)
		} else {
			text, bad := f.text("prompt")
			if _, ok := f["prompt"]; !ok {
				bad = f.missing("prompt")
			}
			if bad != nil {
				return nil, bad
			}
			ids = tokenIDs(text)
		}
		b := appendInt([]byte(`{"count":`), "", len(ids))
		b = appendInt(b, `,"max_model_len":`, s.opts.MaxModelLen)
		b = appendIDs(append(b, `,"tokens":`...), true, ids)
		return append(b, `,"token_strs":null}`...), nil
	})
}

// detokenize answers /detokenize.
func (s *Sim) detokenize(w http.ResponseWriter, r *http.Request) {
	s.plain(w, r, func(f fields) ([]byte, *problem) {
		raw, ok := f.get("tokens")
		if !ok {
			return nil, f.missing("tokens")
		}
		var ids []int64
		if json.Unmarshal(raw, &ids) != nil {
			return nil, invalid("body.tokens", "list_type", "Input should be a valid list", repr(raw))
		}
		return append(appendString([]byte(`{"prompt":`), detokenize(ids)), '}'), nil
	})
}

// countTokens answers /v1/messages/count_tokens.
func (s *Sim) countTokens(w http.ResponseWriter, r *http.Request) {
	s.plain(w, r, func(f fields) ([]byte, *problem) {
		q, bad := anthropicPrompt(f)
		if bad != nil {
			return nil, bad
		}
		b := appendInt(nil, `{"input_tokens":`, q.tokens)
		b = appendInt(b, `,"context_management":{"original_input_tokens":`, q.tokens)
		return append(b, "}}"...), nil
	})
}
