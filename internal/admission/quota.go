package admission

import (
	"context"
	"errors"
	"fmt"

	"tollgate/internal/limit"
	"tollgate/internal/usage"
)

// contextSpare is left free beside a prompt that is only estimated: an engine
// refuses a bound that reaches beyond its context.
const contextSpare = 128

// grant takes over the tokens that a reservation granted. An answer whose share cannot
// be extended gets them as its bound.
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

// Bound is the bound on output tokens per choice that the request must be sent with; 0
// leaves the client's own. lowered tells that the client had asked for more.
func (s *Session) Bound() (most int64, lowered bool) { return s.bound, s.lowered }

// Covers reports whether the key's quota covers an answer with that report, and
// extends the request's share of it where it does not. It must be called for each
// chunk before the chunk is passed, and takes no lock until an extension is due. Text
// without usage counts one token for each delta. unread is the size in bytes of an
// answer that is delivered unread: without usage it counts as in its settlement,
// beside the prompt. An error says that the limits cannot tell: the answer must be
// cut, but not for its quota.
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
		return false, err
	}
	return granted < 0 || used <= granted, nil
}

// extend asks for more of the quota, and seeds its counter where that is lost.
func (s *Session) extend(ctx context.Context, used int64) (granted int64, err error) {
	granted, err = s.limits.Extend(ctx, s.facts.LeaseID, s.facts.Caps, used)
	if errors.Is(err, limit.ErrUnseeded) {
		if err = s.seed(ctx); err == nil {
			granted, err = s.limits.Extend(ctx, s.facts.LeaseID, s.facts.Caps, used)
		}
	}
	if err != nil {
		return 0, fmt.Errorf("extend reservation: %w", err)
	}
	s.granted.Store(granted)
	return granted, nil
}

func boolean(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// QuotaBound reports whether the answer must be covered by a quota as it runs, so that
// [Session.Covers] must be asked for each chunk.
func (s *Session) QuotaBound() bool { return s.granted.Load() >= 0 }

// Allowance is what a meter inside Envoy must know of the key's quota: how many
// tokens the answer may use in all until it is extended, below 0 when there is no
// bound to watch, and how many of them are held for the prompt.
func (s *Session) Allowance() (granted, prompted int64) { return s.granted.Load(), s.prompted }
