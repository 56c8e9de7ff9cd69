package admission

import "time"

// ProxyGone tells that the last log stream of the proxy has broken off: it
// died, or it is about to come back. Streams that ended about that moment, and
// of which no log entry tells, are settled as [ledger.EnvoyCrash].
func (g *Gate) ProxyGone() {
	g.mu.Lock()
	g.proxyGone = time.Now()
	g.mu.Unlock()
	g.log.Warn("the proxy's access log has broken off")
}

// orphaned tells whether the session ended with the proxy: without a word of
// it, and within the grace of its death. REQUIRES: s.mu held.
func (s *Session) orphaned() bool {
	s.gate.mu.Lock()
	gone := s.gate.proxyGone
	s.gate.mu.Unlock()
	if gone.IsZero() || s.witness != nil || s.stage != closed {
		return false
	}
	return s.closedAt.Sub(gone).Abs() <= grace
}
