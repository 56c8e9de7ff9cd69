package vllmsim

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// prompt is one prompt of a request.
type prompt struct {
	text   string
	ids    []int64 // when it was given as ids, or was asked for
	tokens int

	messages []message // of a conversation, which text shows as a whole
}

// choice is one completion on its way.
type choice struct {
	index  int
	prompt *prompt
	prose  prose
	limit  int    // tokens it will have
	finish string // finish_reason at the limit
	stop   string // the stop string that ends it, "" for none
	tool   *toolCall

	made int // tokens generated
	sent int // tokens up to and including the event being written
	over bool
}

// plan is what a request will get.
type plan struct {
	choices []*choice
	prompts []*prompt
	n       int
	stream  bool
	final   bool // include_usage
	running bool // continuous_usage_stats
	logs    int  // alternatives of every token; -1: no logprobs
	plogs   int  // the same for the prompt
	ids     bool // return_token_ids
	echo    bool
	cached  int // prompt tokens from the prefix cache
	created int // prompt tokens that went into it
}

func (p *plan) promptTokens() int {
	n := 0
	for _, q := range p.prompts {
		n += q.tokens
	}
	return n
}

// completion is what every choice has so far.
func (p *plan) completion() int {
	n := 0
	for _, c := range p.choices {
		n += c.sent
	}
	return n
}

// sampling is what the routes have in common.
type sampling struct {
	n     int
	max   int64 // -1: not given
	stops []string
}

// readSampling reads n, temperature, stop and the bound, whose names are tried in turn.
func (x *exchange) readSampling(bounds ...string) (sampling, *problem) {
	s := sampling{n: 1, max: -1}
	for _, name := range bounds {
		v, set, p := x.f.integer(name)
		if p != nil {
			return s, p
		}
		if set && s.max == -1 {
			s.max = v
			onlyEcho := v == 0 && x.endpoint == pathCompletions && x.echoed()
			if v < 1 && !onlyEcho {
				return s, badRequest("max_tokens", "max_tokens must be at least 1, got %d. (parameter=max_tokens, value=%d)", v, v)
			}
		}
	}
	n, set, p := x.f.integer("n")
	if p != nil {
		return s, p
	}
	if set {
		s.n = int(n)
	}
	if s.stops, p = x.f.strings("stop"); p != nil {
		return s, p
	}
	return s, x.checkSampling(s)
}

func (x *exchange) checkSampling(s sampling) *problem {
	temperature, set, p := x.f.number("temperature")
	beam, _ := x.f.flag("use_beam_search")
	switch {
	case p != nil:
		return p
	case s.n < 1:
		return badRequest("", "n must be at least 1, got %d.", s.n)
	case s.n > 16384:
		return badRequest("", "n must be at most 16384, got %d. To increase this limit, set the VLLM_MAX_N_SEQUENCES environment variable.", s.n)
	case set && temperature < 0:
		shown := pythonFloat(temperature)
		return badRequest("temperature", "temperature must be non-negative, got %s. (parameter=temperature, value=%s)", shown, shown)
	case set && temperature == 0 && s.n > 1 && !beam:
		return badRequest("", "n must be 1 when using greedy sampling, got %d.", s.n)
	}
	return nil
}

func (x *exchange) echoed() bool {
	echo, _ := x.f.flag("echo")
	return echo
}

// readStream reads stream and stream_options.
func (x *exchange) readStream(p *plan) *problem {
	var bad *problem
	if p.stream, bad = x.f.flag("stream"); bad != nil {
		return bad
	}
	options, bad := x.f.object("stream_options")
	switch {
	case bad != nil:
		return bad
	case options != nil && !p.stream:
		return badRequest("stream_options", "Stream options can only be defined when `stream=True`. (parameter=stream_options)")
	}
	if p.final, bad = options.flag("include_usage"); bad != nil {
		return bad
	}
	if p.running, bad = options.flag("continuous_usage_stats"); bad != nil {
		return bad
	}
	p.running = p.running && p.final
	if x.sim.opts.ForceUsage {
		p.final, p.running = true, true
	}
	if x.script.NoUsage {
		p.final, p.running = false, false
	}
	return nil
}

// choose makes the choices: how long each is and what ends it.
func (x *exchange) choose(p *plan, s sampling) *problem {
	p.n = s.n
	format, bad := x.structured()
	if bad != nil {
		return bad
	}
	length := int64(x.sim.opts.MaxModelLen)
	if s.max > length {
		return badRequest("max_tokens", "max_tokens=%d cannot be greater than max_model_len=%d. Please request fewer output tokens. (parameter=max_tokens, value=%d)", s.max, length, s.max)
	}
	for i, q := range p.prompts {
		room := length - int64(q.tokens)
		switch {
		case room <= 0:
			return badRequest("input_tokens", "This model's maximum context length is %d tokens. However, your prompt contains at least %d input tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input prompt. (parameter=input_tokens, value=%d)", length, length+1, length+1)
		case s.max > room:
			return badRequest("input_tokens", "This model's maximum context length is %d tokens. However, you requested %d output tokens and your prompt contains at least %d input tokens, for a total of at least %d tokens. Please reduce the length of the input prompt or the number of requested output tokens. (parameter=input_tokens, value=%d)", length, s.max, q.tokens, s.max+int64(q.tokens), q.tokens)
		}
		for j := range s.n {
			c := &choice{index: i*s.n + j, prompt: q}
			x.shape(c, s, int(room), format)
			p.choices = append(p.choices, c)
		}
	}
	x.cache(p)
	x.rec.update(func(t *Truth) {
		t.ResponseID, t.Model, t.Stream = x.id, x.model, p.stream
		t.N, t.Prompts, t.PromptTokens = s.n, len(p.prompts), p.promptTokens()
		t.Generated = make([]int, len(p.choices))
		t.Written = make([]int, len(p.choices))
		t.Chunks = make([]int, len(p.choices))
	})
	return nil
}

// longestAsked is the largest max_tokens that is taken for a wish. What coding
// agents send (32,000) is only a bound: an answer that went to it would make them
// ask for its continuation, without end.
const longestAsked = 16384

// shape decides the words and the length of a choice; format is the structured
// output that was asked for, "" for none.
func (x *exchange) shape(c *choice, s sampling, room int, format string) {
	sc := x.script
	c.prose = prose{seed: hash64(x.model, c.prompt.text, strconv.Itoa(c.index)), emptyEvery: sc.EmptyEvery}
	natural := defaultTokens
	if s.max >= 0 && s.max <= longestAsked {
		natural = int(s.max) // as the recorded model, which never ends by itself
	}
	if sc.Text != "" {
		format = sc.Text
	}
	if format != "" {
		c.prose.given = split(format)
		natural = len(c.prose.given)
	}
	if sc.Tokens != nil {
		natural = *sc.Tokens
	}
	bound := room
	if s.max >= 0 {
		bound = int(s.max)
	}
	c.limit, c.finish = max(1, min(natural, bound)), "stop"
	if natural >= bound {
		c.finish = "length"
	}
	if len(s.stops) > 0 {
		if limit, stop := c.prose.stopAt(c.limit, s.stops); stop != "" {
			c.limit, c.stop, c.finish = limit, stop, "stop"
		}
	}
}

// generate accounts for the tokens of c up to the given number.
func (x *exchange) generate(c *choice, upto int) {
	upto = min(upto, c.limit)
	if upto <= c.made {
		return
	}
	if c.made == 0 {
		if x.first.IsZero() {
			x.first = time.Now()
		}
		x.tally.do(func(t *tally) { t.PromptTokens += int64(c.prompt.tokens) })
	}
	x.tally.generated.Add(int64(upto - c.made))
	c.made = upto
	x.rec.update(func(t *Truth) { t.Generated[c.index] = upto })
}

// produce generates every choice, in turn a token of each, and hands each to
// emit with c.sent moved on.
func (x *exchange) produce(p *plan, emit func(c *choice) error) error {
	pace := delay(x.script.DelayMS, x.sim.opts.Delay)
	for round := 0; p.active(); round++ {
		if round > 0 || x.script.DelayMS != nil {
			if err := x.wait(pace); err != nil {
				return err
			}
		}
		for _, c := range p.choices {
			if c.over {
				continue
			}
			if err := x.marks(); err != nil {
				return err
			}
			x.generate(c, c.sent+1)
			c.sent++
			c.over = c.sent >= c.limit
			if err := emit(c); err != nil {
				return err
			}
		}
	}
	if err := x.marks(); !errors.Is(err, errStopped) {
		return err
	}
	return nil // an abort comes too late for an answer that is complete
}

func (p *plan) active() bool {
	return slices.ContainsFunc(p.choices, func(c *choice) bool { return !c.over })
}

// abort ends what is not over yet where it is.
func (p *plan) abort() {
	for _, c := range p.choices {
		if !c.over {
			c.over, c.finish, c.stop, c.limit = true, finishAbort, "", c.sent
		}
	}
}

// success counts the choices as vLLM does when they finish. An abort is not
// counted at all.
func (x *exchange) success(p *plan) {
	x.tally.do(func(t *tally) {
		for _, c := range p.choices {
			if c.over && c.finish != finishAbort {
				t.success[c.finish]++
			}
		}
	})
}

// busy refuses what the queue limit refuses.
func (x *exchange) busy(p *plan) *problem {
	limit := x.sim.opts.MaxQueued
	if limit == 0 {
		return nil
	}
	var full bool
	x.tally.do(func(t *tally) {
		full = t.sequences+t.sequencesWait+len(p.choices) > limit
		if full {
			t.busy++
		}
	})
	if !full {
		return nil
	}
	return &problem{status: http.StatusServiceUnavailable, kind: kindBusy, message: messageBusy}
}
