package limit

import (
	"math"
	"strings"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	// modelsKept and pairsKept bound what an [Estimator] remembers: about 100
	// bytes a model and 1 KiB a pair of key and model.
	modelsKept = 1024
	pairsKept  = 4096

	startRatio         = 0.25 // tokens a prompt byte, before anything was learned
	minRatio, maxRatio = 1.0 / 256, 16.0
	// priorBytes is the weight of startRatio, bytesCap that of the longest
	// prompt: a ratio is settled after some prompts, and no single one sets it.
	priorBytes = 4096
	bytesCap   = 64 << 10
	ratioDecay = 0.98 // per settled request: the last 50 or so count

	outputQuantile = 0.9
	// outputsNeeded is how many outputs of a pair must be known before they
	// count for more than the default.
	outputsNeeded = 10
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
type Estimator struct {
	defaultOutput int64

	mu     sync.Mutex
	models *simplelru.LRU[string, *ratio] // guarded by mu
	pairs  *simplelru.LRU[pair, *outputs] // guarded by mu
}

type pair struct{ key, model string }

// NewEstimator returns an estimator that has learned nothing. defaultOutput is
// the output per choice that it assumes until it has learned a key's habit
// with a model (request.default_output_estimate); below 0 counts as 0.
func NewEstimator(defaultOutput int64) *Estimator {
	models, err := simplelru.NewLRU[string, *ratio](modelsKept, nil)
	if err != nil {
		panic(err) // only a size below 1 is refused
	}
	pairs, err := simplelru.NewLRU[pair, *outputs](pairsKept, nil)
	if err != nil {
		panic(err)
	}
	return &Estimator{defaultOutput: bounded(defaultOutput), models: models, pairs: pairs}
}

// Estimate guesses the use of a request. The prompt is its bytes by the ratio
// of the model (0.25 tokens a byte at first), rounded up. The output is
// MaxTokens for each choice when given, otherwise the 90th percentile of what
// this key's choices of this model came to, otherwise the default. Neither is
// above Context per prompt and per choice.
func (e *Estimator) Estimate(s Sample) Estimate {
	tokensPerByte, perChoice := float64(startRatio), e.defaultOutput
	e.mu.Lock()
	if r, ok := e.models.Get(s.Model); ok {
		tokensPerByte = r.value()
	}
	if s.MaxTokens >= 0 {
		perChoice = bounded(s.MaxTokens)
	} else if o, ok := e.pairs.Get(pair{s.KeyID, s.Model}); ok && o.seen >= outputsNeeded {
		perChoice = o.quantile(outputQuantile)
	}
	e.mu.Unlock()

	prompt := int64(math.Ceil(float64(bounded(s.PromptBytes)) * tokensPerByte))
	if s.Context > 0 {
		perChoice = min(perChoice, s.Context)
		prompt = min(prompt, saturatingMul(s.Context, s.prompts()))
	}
	return Estimate{Prompt: bounded(prompt), Output: saturatingMul(perChoice, s.choices())}
}

// Learn takes in a request that ended by itself with the counts the engine
// reported: promptTokens of each prompt once, outputTokens over all choices. A
// count below 0 is not known and teaches nothing. Outputs that MaxTokens cut
// off teach nothing either: they say what was allowed, not what was wanted.
func (e *Estimator) Learn(s Sample, promptTokens, outputTokens int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if promptTokens > 0 && s.PromptBytes > 0 {
		r, ok := e.models.Get(s.Model)
		if !ok {
			r = &ratio{tokens: startRatio * priorBytes, bytes: priorBytes}
			e.models.Add(strings.Clone(s.Model), r) // not the request body that it may lie in
		}
		r.learn(float64(s.PromptBytes), float64(promptTokens))
	}
	choices := s.choices()
	if outputTokens < 0 || (s.MaxTokens >= 0 && outputTokens >= saturatingMul(s.MaxTokens, choices)) {
		return
	}
	o, ok := e.pairs.Get(pair{s.KeyID, s.Model})
	if !ok {
		o = &outputs{weight: 1}
		e.pairs.Add(pair{strings.Clone(s.KeyID), strings.Clone(s.Model)}, o)
	}
	o.learn((bounded(outputTokens) + choices - 1) / choices)
}

// ratio is tokens over bytes, of sums that fade.
type ratio struct{ tokens, bytes float64 }

func (r *ratio) learn(bytes, tokens float64) {
	weight := min(bytes, bytesCap)
	r.tokens = r.tokens*ratioDecay + min(tokens/bytes, maxRatio)*weight
	r.bytes = r.bytes*ratioDecay + weight
}

func (r *ratio) value() float64 { return min(max(r.tokens/r.bytes, minRatio), maxRatio) }

// saturatingMul multiplies two counts; the product stays within maxTokens.
func saturatingMul(a, b int64) int64 {
	a, b = bounded(a), bounded(b)
	if a != 0 && b > maxTokens/a {
		return maxTokens
	}
	return a * b
}
