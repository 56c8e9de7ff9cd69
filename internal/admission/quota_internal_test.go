package admission

import (
	"testing"

	"tollgate/internal/limit"
	"tollgate/internal/usage"
)

func TestWhatARequestIsSentWith(t *testing.T) {
	chat := Order{Format: usage.Chat, N: 1, Prompts: 1, PromptBytes: 40, MaxTokens: -1}
	with := func(change func(o *Order)) Order {
		o := chat
		change(&o)
		return o
	}
	for name, c := range map[string]struct {
		order   Order
		context int64
		granted int64 // prompt of 10 included
		bound   int64
		lowered bool
	}{
		"what it asked for":                    {with(func(o *Order) { o.MaxTokens = 100 }), 8192, 110, 0, false},
		"less than it asked for":               {with(func(o *Order) { o.MaxTokens = 100 }), 8192, 60, 50, true},
		"divided by its choices":               {with(func(o *Order) { o.MaxTokens, o.N, o.Prompts = 100, 2, 2 }), 8192, 110, 25, true},
		"all of the context":                   {chat, 8192, 8202, 0, false},
		"a part of the context, beside prompt": {chat, 8192, 8190, 8192 - 10 - contextSpare, false},
		"a small part of the context":          {chat, 8192, 510, 500, false},
		"without a known context":              {chat, 0, 510, 500, false},
		"completions have their own default":   {with(func(o *Order) { o.Format = usage.Completions }), 8192, 26, 0, false},
		"a stream is extended":                 {with(func(o *Order) { o.Stream = true }), 8192, 60, 0, false},
		"messages streams are not":             {with(func(o *Order) { o.Stream, o.Format, o.MaxTokens = true, usage.Messages, 100 }), 8192, 60, 50, true},
		"no quota":                             {with(func(o *Order) { o.MaxTokens = 100 }), 8192, limit.Unlimited, 0, false},
		"embeddings have no output":            {with(func(o *Order) { o.Format = usage.Pooling }), 8192, 10, 0, false},
	} {
		s := &Session{}
		s.granted.Store(limit.Unlimited)
		hold := holdOf(c.order, limit.Estimate{Prompt: 10, Output: 20}, c.context)
		s.grant(c.order, hold, c.granted, c.context)
		if bound, lowered := s.Bound(); bound != c.bound || lowered != c.lowered {
			t.Errorf("%s: sent with %d, lowered %v; want %d, %v", name, bound, lowered, c.bound, c.lowered)
		}
		if s.QuotaBound() != (c.order.running() && c.granted >= 0) {
			t.Errorf("%s: covered as it runs: %v", name, s.QuotaBound())
		}
	}
	if h := holdOf(with(func(o *Order) { o.MinTokens, o.N = 30, 2 }), limit.Estimate{Prompt: 1, Output: 20}, 0); h.Least != 60 || h.Prompt != 10 {
		t.Errorf("hold of a request with min_tokens: %+v, want 60 at least and a prompt of 10", h)
	}
}
