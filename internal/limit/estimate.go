package limit

import (
	"math"
	"strings"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	// modelsKept and pairsKept bound what an [Estimator] remembers: about 150
	// bytes a model and 1 KiB a pair of key and model.
	modelsKept = 1024
	pairsKept  = 4096

	startRatio         = 0.25 // tokens a byte, before anything was learned
	minRatio, maxRatio = 1.0 / 256, 16.0
	// minText and maxText bound the ratio of output text: no token of text is
	// shorter than a byte.
	minText, maxText = 1.0 / 16, 1.0

	outputQuantile = 0.9
	// outputsNeeded is how many outputs of a pair must be known before their
	// percentile counts.
	outputsNeeded = 10
	// leastDeclared is reserved for a choice that may be longer, whatever was
	// learned: a client's max_tokens says what it allows, not what it expects.
	leastDeclared = 1024
)

// Sample is what is known of a request before it is sent.
type Sample struct {
	KeyID string
	Model string
	// PromptBytes is the size of all its prompts together.
	PromptBytes int64
	// N is the choices per prompt and Prompts the number of prompts; below 1
	// counts as 1.
	N, Prompts int
	// MaxTokens is the output bound per choice that the client gave; below 0:
	// none was given. Routes without output say 0.
	MaxTokens int64
	// Context is the model's context length in tokens; below 1: not known.
	Context int64
}

// choices is how many outputs the request has.
func (s *Sample) choices() int64 { return saturatingMul(s.prompts(), int64(max(s.N, 1))) }

func (s *Sample) prompts() int64 { return int64(max(s.Prompts, 1)) }

// Estimate is what a request will probably use, in tokens, over all its
// prompts and choices.
type Estimate struct {
	Prompt int64
	Output int64
}

// Total is what to reserve.
func (e Estimate) Total() int64 { return min(e.Prompt+e.Output, maxTokens) }

// Estimator guesses how many tokens a request will use, from those that were
// settled before. It is safe for concurrent use; its memory is bounded (the
// models and pairs used last).
//
// What it guesses for a key comes from that key's own requests. Other keys of the
// same model only shift what a key begins with, each by one vote: the most
// that one of them can change by it is 7 % (see [votes]).
type Estimator struct {
	defaultOutput int64

	mu     sync.Mutex
	models *simplelru.LRU[string, *voters] // guarded by mu
	pairs  *simplelru.LRU[pair, *habits]   // guarded by mu
}

type pair struct{ key, model string }

// voters are what the keys of one model agree on.
type voters struct{ prompt, text votes }

// habits are what was learned of one key with one model.
type habits struct {
	outputs outputs
	prompt  line  // tokens of a prompt by its bytes
	text    share // tokens of output by the bytes of its text
	of      *voters
}

// NewEstimator returns an estimator that has learned nothing. defaultOutput is
// the output per choice that it assumes at least where the client gives no
// bound (request.default_output_estimate); below 0 counts as 0.
func NewEstimator(defaultOutput int64) *Estimator {
	models, err := simplelru.NewLRU[string, *voters](modelsKept, nil)
	if err != nil {
		panic(err) // only a size below 1 is refused
	}
	pairs, err := simplelru.NewLRU(pairsKept, func(_ pair, h *habits) { h.silence() })
	if err != nil {
		panic(err)
	}
	return &Estimator{defaultOutput: bounded(defaultOutput), models: models, pairs: pairs}
}

// Estimate guesses the use of a request. A prompt is an overhead and its bytes
// by a ratio (at first none and 0.25 tokens a byte), rounded up. The output of
// a choice is the 90th percentile of what this key's choices of this model came
// to, or the last much longer one, but never less than the default. With
// MaxTokens it is half as much again, 1,024 at least, and MaxTokens at most.
// Neither is above Context per prompt and per choice.
func (e *Estimator) Estimate(s Sample) Estimate {
	fit, learned := start, int64(0)
	e.mu.Lock()
	if h, ok := e.pairs.Get(pair{s.KeyID, s.Model}); ok {
		fit, learned = h.prompt.fit(h.of.prompt.center()), h.outputs.expected()
	} else if v, ok := e.models.Get(s.Model); ok {
		fit.ratio = v.prompt.center()
	}
	e.mu.Unlock()

	perChoice := max(e.defaultOutput, learned)
	if s.MaxTokens >= 0 {
		perChoice = min(bounded(s.MaxTokens), max(leastDeclared, learned+learned/2))
	}
	prompt := fit.tokens(bounded(s.PromptBytes), s.prompts())
	if s.Context > 0 {
		perChoice = min(perChoice, s.Context)
		prompt = min(prompt, saturatingMul(s.Context, s.prompts()))
	}
	return Estimate{Prompt: bounded(prompt), Output: saturatingMul(perChoice, s.choices())}
}

// Text guesses how many tokens of output so many bytes of delivered text are:
// never more than the bytes.
func (e *Estimator) Text(s Sample, textBytes int64) int64 {
	e.mu.Lock()
	ratio := startRatio
	if h, ok := e.pairs.Get(pair{s.KeyID, s.Model}); ok {
		ratio = h.text.value(h.of.text.center())
	} else if v, ok := e.models.Get(s.Model); ok {
		ratio = v.text.center()
	}
	e.mu.Unlock()
	textBytes = bounded(textBytes)
	return min(textBytes, int64(math.Ceil(float64(textBytes)*min(max(ratio, minText), maxText))))
}

// Learn takes in a request that ended by itself with the counts the engine
// reported: promptTokens of each prompt once, outputTokens over all choices. A
// count below 0 is not known and teaches nothing. Outputs that MaxTokens cut
// off say what was allowed, not what was wanted: they can only raise.
func (e *Estimator) Learn(s Sample, promptTokens, outputTokens int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	h := e.habits(s)
	if promptTokens > 0 && s.PromptBytes > 0 {
		h.prompt.learn(float64(bounded(s.PromptBytes))/float64(s.prompts()), float64(bounded(promptTokens))/float64(s.prompts()))
		h.of.prompt.cast(&h.prompt.vote, h.prompt.fit(startRatio).ratio, h.prompt.seen)
	}
	choices := s.choices()
	switch {
	case outputTokens < 0:
	case s.MaxTokens >= 0 && outputTokens >= saturatingMul(s.MaxTokens, choices):
		h.outputs.raise(perChoice(outputTokens, choices))
	default:
		h.outputs.learn(perChoice(outputTokens, choices))
	}
}

// LearnText takes in the output of a whole answer whose text was delivered.
func (e *Estimator) LearnText(s Sample, textBytes, outputTokens int64) {
	if textBytes <= 0 || outputTokens <= 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	h := e.habits(s)
	h.text.learn(float64(bounded(textBytes)), float64(bounded(outputTokens)))
	h.of.text.cast(&h.text.vote, h.text.value(startRatio), h.text.seen)
}

// Raise takes in the output of an answer that was cut: at least so many tokens
// were wanted.
func (e *Estimator) Raise(s Sample, outputTokens int64) {
	if outputTokens <= 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.habits(s).outputs.raise(perChoice(outputTokens, s.choices()))
}

func perChoice(tokens, choices int64) int64 { return (bounded(tokens) + choices - 1) / choices }

// habits returns those of a key and a model, new ones if need be.
// REQUIRES: mu held.
func (e *Estimator) habits(s Sample) *habits {
	v, ok := e.models.Get(s.Model)
	if !ok {
		v = &voters{}
		e.models.Add(strings.Clone(s.Model), v) // not the request body that it may lie in
	}
	h, ok := e.pairs.Get(pair{s.KeyID, s.Model})
	if !ok {
		h = &habits{outputs: outputs{weight: 1}, of: v}
		e.pairs.Add(pair{strings.Clone(s.KeyID), strings.Clone(s.Model)}, h)
	}
	if h.of != v { // its model was forgotten meanwhile
		h.of, h.prompt.vote, h.text.vote = v, vote{}, vote{}
	}
	return h
}

// silence takes the votes of a forgotten pair back.
func (h *habits) silence() {
	h.of.prompt.take(&h.prompt.vote)
	h.of.text.take(&h.text.vote)
}

// saturatingMul multiplies two counts; the product stays within maxTokens.
func saturatingMul(a, b int64) int64 {
	a, b = bounded(a), bounded(b)
	if a != 0 && b > maxTokens/a {
		return maxTokens
	}
	return a * b
}
