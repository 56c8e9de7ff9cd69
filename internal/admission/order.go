package admission

import (
	"tollgate/internal/limit"
	"tollgate/internal/placement"
	"tollgate/internal/usage"
)

// Order is what a request asks for, known from its body.
type Order struct {
	// Model is the name that the client asks for; once reserved, the one that serves.
	Model       string
	Requested   string // the client's own, set by [Session.Reserve]
	Format      usage.Format
	Stream      bool
	N, Prompts  int   // choices per prompt, prompts; both at least 1
	PromptBytes int64 // bytes of the text that will be tokenized
	MaxTokens   int64 // bound per choice, or -1
	MinTokens   int64 // least per choice
	// Meter is the instance of the meter inside Envoy to which the answer will be
	// handed over; "" when the stream counts it.
	Meter string
	// Attached: the order is made from its row, and its body is not known.
	Attached bool
	// Prompt is what [Session.Prompt] gave, written to its end; nil where it gave
	// nothing. It belongs to the session from now on.
	Prompt *placement.Prompt

	alias string // that led to the model, as the operator wrote it; "" where none did
}

const (
	// endless is more output than any engine makes, where neither the client nor
	// the model's context bounds it.
	endless = 1 << 40
	// completionsDefault is the bound of an engine for completions that name none.
	completionsDefault = 16
	// promptSpare is what a chat template may add to a prompt before it is known.
	promptSpare = 64
)

// generates: the answer is made token by token. Embeddings and scores are not.
func (o Order) generates() bool {
	switch o.Format {
	case usage.Chat, usage.Completions, usage.Responses, usage.Messages:
		return true
	case usage.Pooling, usage.Free:
	}
	return false
}

// running: usage comes along while the answer does, so that its share of a quota
// can be extended.
func (o Order) running() bool {
	return o.Stream && (o.Format == usage.Chat || o.Format == usage.Completions)
}

func (o Order) choices() int64 { return int64(max(o.N, 1)) * int64(max(o.Prompts, 1)) }

// mostPerChoice is how long a choice can become; declared tells that the client
// has said so.
func (o Order) mostPerChoice(context int64) (most int64, declared bool) {
	switch {
	case o.MaxTokens >= 0:
		return o.MaxTokens, true
	case o.Format == usage.Completions && !o.Attached:
		return completionsDefault, false
	case context > 0:
		return context, false
	}
	return endless, false
}

// sample is what the estimator may know of the request of a key.
func (o Order) sample(keyID string, maxLen int64) limit.Sample {
	maxTokens := o.MaxTokens
	if o.Format == usage.Pooling {
		maxTokens = 0 // no output
	}
	return limit.Sample{
		KeyID: keyID, Model: o.Model, PromptBytes: o.PromptBytes,
		N: o.N, Prompts: o.Prompts, MaxTokens: maxTokens, Context: maxLen,
	}
}

// reservationOf is what a request takes beside its lease: a slot for each
// sequence that it generates, and its tokens.
func reservationOf(o Order, e limit.Estimate, hold limit.Hold) limit.Reservation {
	r := limit.Reservation{Tokens: e.Total(), Slots: 1, Hold: hold}
	if o.generates() {
		r.Slots = o.choices()
	}
	return r
}

// holdOf is the share of its key's quota that a request may need. A prompt counts for
// at least a quarter of a token a byte, also where less was learned of the key.
func holdOf(o Order, e limit.Estimate, context int64) limit.Hold {
	h := limit.Hold{Prompt: max(e.Prompt, (o.PromptBytes+3)/4), Extended: o.running()}
	h.Spare = promptSpare*int64(max(o.Prompts, 1)) + h.Prompt/4
	if !o.generates() {
		return h
	}
	most, _ := o.mostPerChoice(context)
	h.Output, h.Most = e.Output, min(most, endless)*o.choices()
	h.Least = min(h.Most, max(1, o.MinTokens)*o.choices())
	return h
}
