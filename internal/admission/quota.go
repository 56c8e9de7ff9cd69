package admission

import (
	"context"
	"errors"
	"fmt"

	"tollgate/internal/limit"
	"tollgate/internal/usage"
)

const (
	// endless is more output than any engine makes, where neither the client nor
	// the model's context bounds it.
	endless = 1 << 40
	// completionsDefault is the bound of an engine for completions that name none.
	completionsDefault = 16
	// promptSpare is what a chat template may add to a prompt before it is known.
	promptSpare = 64
	// contextSpare is left free beside a prompt that is only estimated: an engine
	// refuses a bound that reaches beyond its context.
	contextSpare = 128
)

// running: usage comes along while the answer does, so what it holds of a quota
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
	case o.Format == usage.Completions:
		return completionsDefault, false
	case context > 0:
		return context, false
	}
	return endless, false
}

// holdOf is what a request may need of its key's quota. A prompt is taken for a
// quarter of a token a byte at least, whatever was learned of the key's own.
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

// grant takes over what the decision has granted: a bound for an answer that
// cannot be extended.
func (s *Session) grant(o Order, hold limit.Hold, tokens, context int64) {
	s.bound, s.lowered, s.prompted = 0, false, hold.Prompt
	if hold.Extended {
		s.granted.Store(tokens)
		return
	}
	if tokens < 0 || !o.generates() {
		return
	}
	most, declared := o.mostPerChoice(context)
	each := max(0, tokens-hold.Prompt) / o.choices()
	if each >= most {
		return
	}
	if !declared && context > 0 {
		each = min(each, max(1, context-hold.Prompt/int64(max(o.Prompts, 1))-contextSpare))
	}
	s.bound, s.lowered = max(each, 1), declared
}

// Bound is the most output per choice that the request may be sent with, 0 where
// it is its own; lowered tells that the client had asked for more.
func (s *Session) Bound() (most int64, lowered bool) { return s.bound, s.lowered }

// Covers reports whether the key's quota holds what an answer has come to, and
// extends what the request holds of it where that is too little. Called for each
// chunk before it is passed, it locks nothing until an extension is due. Text
// without usage counts a token a delta. unread is the size in bytes of what is
// delivered although nobody can read it: without usage it counts like its
// settlement does, beside the prompt. An error says that nobody can tell: the
// answer must be cut, but not for its quota.
func (s *Session) Covers(ctx context.Context, r usage.Report, unread int64) (bool, error) {
	granted := s.granted.Load()
	if granted < 0 {
		return true, nil
	}
	used := max(0, r.Counts.Prompt) + max(0, r.Counts.Completion, r.Deltas*boolean(r.Counts.Completion < 0))
	if unread > 0 && !r.Seen {
		used = max(used, s.prompted+(unread+bytesPerToken-1)/bytesPerToken)
	}
	if used <= granted {
		return true, nil
	}
	granted, err := s.extend(ctx, used)
	if err != nil {
		return false, fmt.Errorf("extend reservation: %w", err)
	}
	s.granted.Store(granted)
	return granted < 0 || used <= granted, nil
}

// extend asks for more of the quota, and seeds its counter where that is lost.
func (s *Session) extend(ctx context.Context, used int64) (granted int64, err error) {
	g := s.gate
	granted, err = g.limits.Extend(ctx, s.leaseID, s.caps, used)
	if errors.Is(err, limit.ErrUnseeded) {
		if err = g.seed(ctx, s.key, s.wallStart); err == nil {
			granted, err = g.limits.Extend(ctx, s.leaseID, s.caps, used)
		}
	}
	return granted, err
}

func boolean(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// Metered reports whether the answer must be covered by a quota as it runs, so that
// Covers has something to do.
func (s *Session) Metered() bool { return s.granted.Load() >= 0 }
