package admission

import (
	"tollgate/internal/usage"
)

const (
	// mostTokens bounds each count of every request.
	mostTokens = 1 << 31
	// slack allows for engines whose context has grown since it was read.
	slack = 2
)

// bounds are the largest counts that a request can cost.
type bounds struct{ prompt, completion int64 }

// boundsOf are the bounds of an order to a model with that context (tokens, 0 =
// unknown): no sequence is longer. Two kinds may be: a response adds up the turns
// that its tools take, and long inputs of embeddings are cut into pieces.
func boundsOf(o Order, context int64) bounds {
	b := bounds{mostTokens, mostTokens}
	if context <= 0 || context > mostTokens || o.Format == usage.Responses || o.Format == usage.Pooling {
		return b
	}
	prompts := slack * context * int64(max(1, o.Prompts))
	b.prompt = min(b.prompt, prompts)
	b.completion = min(b.completion, prompts*int64(max(1, o.N)))
	return b
}

// plausible takes out of an account what cannot be true and names it; "" means
// that all of it can.
func plausible(c *usage.Counts, b bounds) (nonsense string) {
	if c.Prompt > b.prompt || c.Completion > b.completion {
		*c = usage.None()
		return anomalyAbsurd
	}
	if c.Prompt != usage.Unsaid && c.Cached > c.Prompt {
		c.Cached, nonsense = usage.Unsaid, anomalyInconsistent
	}
	if c.Completion != usage.Unsaid && c.Reasoning > c.Completion {
		c.Reasoning, nonsense = usage.Unsaid, anomalyInconsistent
	}
	return nonsense
}
