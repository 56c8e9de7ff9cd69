package admission

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tollgate/internal/ledger"
	"tollgate/internal/limit"
	"tollgate/internal/placement"
	"tollgate/internal/request"
	"tollgate/internal/usage"
)

// Reserve checks the model, reserves the estimated tokens and writes the
// intent: after it the request may be sent to vLLM. A refusal is a
// [*DenialError] and has given back what docs/limits.md says; any other error means
// that the request could not be recorded. Either way nothing may be sent.
func (s *Session) Reserve(ctx context.Context, o Order) error {
	err := s.reserve(ctx, o)
	var denied *DenialError
	switch {
	case err == nil:
	case errors.As(err, &denied):
		s.Refused(denied.Reason)
	default:
		s.Refused(Unavailable)
	}
	return err
}

// Refused records that the stream refuses the request by itself (a body that
// does not parse) before anything was reserved. A mistake of the client keeps its
// request.
func (s *Session) Refused(r Reason) {
	s.metrics.decided(r)
	s.mu.Lock()
	s.refund = !r.counts()
	s.mu.Unlock()
}

func (s *Session) reserve(ctx context.Context, o Order) error {
	maxLen, denied := s.name(&o)
	if denied != nil {
		return denied
	}
	var room [8]placement.Engine
	engines, err := s.candidates(o, room[:0])
	if err != nil {
		return err
	}
	tokens, err := s.take(ctx, o, maxLen)
	if err != nil {
		return err
	}
	s.most = boundsOf(o, maxLen)
	seat := s.place(engines, o, tokens)
	if _, err := s.next(request.OnReserved, func() { s.order, s.reserved, s.seat = o, tokens, seat }); err != nil {
		seat.Leave()
		return s.deny(Cancelled) // somebody has cut it meanwhile
	}
	return s.begin(ctx, o, tokens)
}

// take reserves what the order needs of the key's window and quota and returns the
// tokens of the window. Free requests take nothing.
func (s *Session) take(ctx context.Context, o Order, maxLen int64) (tokens int64, err error) {
	if o.Format == usage.Free {
		return 0, nil
	}
	estimate := s.estimate.Estimate(o.sample(s.key.ID, maxLen))
	hold := holdOf(o, estimate, maxLen)
	r := reservationOf(o, estimate, hold)
	d, err := s.limits.Reserve(ctx, s.facts.LeaseID, s.facts.Caps, r)
	if errors.Is(err, limit.ErrUnseeded) {
		if err = s.seed(ctx); err == nil {
			d, err = s.limits.Reserve(ctx, s.facts.LeaseID, s.facts.Caps, r)
		}
	}
	if err != nil {
		return 0, fmt.Errorf("reserve: %w", err)
	}
	s.mu.Lock()
	s.standing = s.standingOf(d)
	s.mu.Unlock()
	if d.Denied != limit.Admitted {
		return 0, s.denial(d, r.Tokens)
	}
	s.grant(o, hold, d.Granted, maxLen)
	s.expected.Store(estimate.Output)
	return r.Tokens, nil
}

// begin writes the intent.
func (s *Session) begin(ctx context.Context, o Order, tokens int64) error {
	err := s.ledger.Begin(ctx, s.intent(o, tokens))
	if err == nil {
		if o.generates() {
			s.attribution.join(ctx, &s.tally, s.facts.LeaseID, o, time.Now())
		}
		return s.happen(ctx, request.OnBegun, nil)
	}
	failed := fmt.Errorf("write intent: %w", err)
	if errors.Is(err, ledger.ErrUnavailable) {
		_ = s.happen(ctx, request.OnIntentRefused, nil) // legal: the intent was being written
		return failed
	}
	// The intent may have been written although its caller did not wait for it (the
	// client left meanwhile). Nothing was sent to vLLM.
	withdrawn := ledger.Settlement{
		LeaseID: s.facts.LeaseID, EndedAt: s.now(), Reason: ledger.Refused, Quality: ledger.Exact,
		Counts: usage.Counts{Cached: usage.Unsaid, Reasoning: usage.Unsaid},
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	// The error that counts is the one above; a settlement that fails is retried.
	_ = s.happen(ctx, request.OnIntentUnknown, func() { s.owed, s.owing, s.refund = withdrawn, true, true })
	return failed
}

func (s *Session) intent(o Order, tokens int64) ledger.Intent {
	return ledger.Intent{
		LeaseID: s.facts.LeaseID, RequestID: s.facts.RequestID, KeyID: s.key.ID, User: s.key.User,
		Model: o.Model, RequestedModel: o.Requested, Endpoint: s.facts.Endpoint, Engine: s.engine(),
		Stream: o.Stream, N: o.N, Prompts: o.Prompts, StartedAt: s.facts.Started,
		Reserved: tokens, ClientAddr: s.facts.Addr.String(), Meter: o.Meter, Secret: s.facts.Secret.String(),
		EndUser: s.facts.EndUser, Trace: s.facts.Trace.String(),
	}
}

// engine is the address of the engine that the request goes to first, "" where the
// proxy chooses.
func (s *Session) engine() string {
	if _, endpoints := s.Endpoints(); len(endpoints) > 0 {
		return endpoints[0]
	}
	return s.catalog.Only()
}
