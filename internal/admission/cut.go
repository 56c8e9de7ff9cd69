package admission

import (
	"context"

	"tollgate/internal/apikey"
	"tollgate/internal/ledger"
	"tollgate/internal/request"
)

// cut ends a request from outside, a ticket as soon as it is claimed. The reason
// names its end. It reports whether the request was still open.
func (s *Session) cut(ctx context.Context, reason ledger.EndReason) bool {
	err := s.happen(ctx, request.OnCut, func() {
		if s.cutReason == "" {
			s.cutReason = reason
		}
	})
	return err == nil
}

// Cancel cuts the live requests that carry the request id and returns how many
// there were; what they used is settled as [ledger.Cancelled].
func (g *Gate) Cancel(requestID string) int {
	n := 0
	for _, s := range g.sessions.all() {
		if s.facts.RequestID == requestID && s.cut(context.Background(), ledger.Cancelled) {
			n++
		}
	}
	return n
}

// Revoke cuts the live requests whose secret no longer opens their key in ring:
// see [apikey.Ring.Holds]. What expires later is cut by [Gate.Run].
func (g *Gate) Revoke(ring *apikey.Ring) {
	for _, s := range g.sessions.all() {
		if !g.heldBy(s, ring) {
			s.cut(context.Background(), ledger.Revoked)
		}
	}
}

// heldBy tells whether the ring lets the request go on, and notes until when.
func (g *Gate) heldBy(s *Session, ring *apikey.Ring) bool {
	until, ok := ring.Holds(s.facts.KeyID, s.facts.Secret, g.wall())
	s.mu.Lock()
	s.until = until
	s.mu.Unlock()
	return ok
}

// Drain refuses every new arrival from now on.
func (g *Gate) Drain() { g.sessions.drain() }

// CutAll cuts the live requests that a stream of this process holds, as
// [ledger.Drained]. What the meter inside an Envoy holds goes on without this
// process.
func (g *Gate) CutAll() {
	for _, s := range g.sessions.all() {
		if !s.handed() {
			s.cut(context.Background(), ledger.Drained)
		}
	}
}
