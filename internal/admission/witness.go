package admission

import (
	"context"
	"time"

	"tollgate/internal/request"
	"tollgate/internal/usage"
)

// Witness takes the proxy's account of a request. It names the cause of an
// early end, frees a lease that no stream ever claimed, and closes what the
// stream leaves open for longer than a second.
func (g *Gate) Witness(w Witness) {
	s, late := g.sessions.logged(&w)
	if s == nil && late {
		return // the record was written without it
	}
	if s != nil && s.logged(&w) {
		return
	}
	if s == nil && g.replicas && w.LeaseID != "" {
		return // another gateway has the request, and writes its record
	}
	g.access(Access{Witness: w, Alone: true, Counts: usage.None()})
}

// logged takes the log entry of the session. It is false when the access record must
// be made of the entry alone: the session was withdrawn.
func (s *Session) logged(w *Witness) bool {
	s.mu.Lock()
	do, err := s.nextLocked(request.OnEntry, nil)
	if err == nil {
		s.witness = w
		// Without a lease in the entry the check's answer came too late, as for a
		// check that is cancelled.
		s.refund = s.refund || !s.claimed && (w.Cause == CauseGateway || w.LeaseID == "")
	}
	state := s.state
	s.mu.Unlock()
	if err != nil { // the second entry, or another gateway's, or too late
		return state.Entry != request.EntryAwaited || state.Lease == request.LeaseElsewhere
	}
	_ = s.perform(context.Background(), do) // what is owed is retried; a rename bounds its own time
	return true
}

// Holds reports whether a request is, or was until a moment ago, held here: its log
// entry concerns nobody else. A ticket that nobody has claimed yet is not held.
func (g *Gate) Holds(leaseID string) bool { return g.sessions.holds(leaseID) }

// ProxyGone tells that the last log stream of the proxy has broken off: it
// died, or it is about to come back. Streams that ended about that moment, and
// of which no log entry tells, are settled as [ledger.EnvoyCrash].
func (g *Gate) ProxyGone() {
	now := time.Now()
	g.proxy.Store(&now)
	g.log.Warn("the proxy's access log has broken off")
}
