package admission

import (
	"context"
	"errors"

	"tollgate/internal/ledger"
	"tollgate/internal/request"
)

// Settle writes the final record. It must return without an error before the
// last byte of an answer is released: a client that saw the end is in the
// ledger. On an error the record is kept and retried, and the stream must be
// cut. Only the first call settles; a request without an intent has nothing to
// settle. The lease is given back here already, because vLLM is done.
func (s *Session) Settle(ctx context.Context, o Outcome) error {
	s.mu.Lock()
	if s.state.Ledger != request.LedgerOpen {
		s.mu.Unlock()
		return nil
	}
	if s.cutReason != "" && o.Reason == ledger.Aborted {
		o.Reason = s.cutReason
	}
	end := request.OnEnded
	if o.Reason == ledger.Aborted {
		end = request.OnBroken
	}
	do, err := s.nextLocked(end, nil)
	if err == nil {
		s.outcome, s.ended = o, true
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return s.perform(ctx, do)
}

// Close ends the session: what is not settled is settled, the lease goes back.
// It is the one deferred call of the stream, whose context may be dead. It does
// nothing after [Session.HandOver].
func (s *Session) Close(ctx context.Context, o Outcome) {
	if s.handed() {
		return
	}
	if err := s.end(ctx, o); err != nil {
		s.log.Error("cannot settle, will retry", "request_id", s.facts.RequestID, "error", err)
	}
}

// end settles what is not settled and closes the session. The error is that of the
// ledger.
func (s *Session) end(ctx context.Context, o Outcome) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	failed := s.Settle(ctx, o)
	return errors.Join(failed, legal(s.happen(ctx, request.OnClosed, nil)))
}

// OnCut names what ends the stream when the request is cut from outside. It is
// called at most once, from another goroutine, at once if the cut came first.
func (s *Session) OnCut(fn func()) {
	s.mu.Lock()
	cut := s.state.Cut
	if !cut {
		s.onCut = fn
	}
	s.mu.Unlock()
	if cut && fn != nil {
		fn()
	}
}

// HandOver gives the answer to the meter inside the Envoy of that instance: from now
// on the gate hears of it by lease id. It must be called after [Session.Reserve] and
// before Envoy gets the answer that has the meter's plan, so that the meter cannot
// speak first. cut takes the place of [Session.OnCut]. It is false when the meter has
// said already that the stream is gone; then the session is closed. Either way
// [Session.Close] does nothing any more.
func (s *Session) HandOver(ctx context.Context, instance string, cut func()) bool {
	s.OnCut(cut)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	if err := legal(s.happen(ctx, request.OnHandedOver, func() { s.instance = instance })); err != nil {
		s.log.Error("cannot settle, will retry", "request_id", s.facts.RequestID, "error", err)
	}
	return s.standsAt().Stage == request.Handed
}

// handed reports whether a meter inside Envoy has, or had, the answer.
func (s *Session) handed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.instance != ""
}
