package admission

// tickets finds the tickets that nobody has claimed by their requests: when the
// client leaves during the check, or the proxy has waited for it for too long,
// the log entry has no lease, because the proxy threw our answer away. The
// entry may even overtake the check, so the last few are remembered. Guarded by
// the gate's mutex.
type tickets struct {
	open  map[string]*Session
	left  map[string]struct{} // requests that ended before their ticket was issued
	order [leftKept]string    // of left, oldest at next
	next  int
}

// leftKept is how many requests may end so between a log entry and the check
// that it has overtaken.
const leftKept = 1024

func newTickets() tickets {
	return tickets{open: make(map[string]*Session), left: make(map[string]struct{})}
}

// issue keeps a ticket; false when its request has ended already.
func (t *tickets) issue(s *Session) bool {
	id := s.arrival.RequestID
	if _, gone := t.left[id]; gone {
		return false
	}
	t.open[id] = s
	return true
}

// void: the ticket is claimed or given back.
func (t *tickets) void(s *Session) {
	if id := s.arrival.RequestID; t.open[id] == s {
		delete(t.open, id)
	}
}

// leave returns the ticket of a request that has ended without a lease; nil
// when there is none.
func (t *tickets) leave(w Witness) *Session {
	if w.RequestID == "" {
		return nil
	}
	if s := t.open[w.RequestID]; s != nil {
		return s
	}
	if w.Cause == CauseClient || w.Cause == CauseGateway {
		delete(t.left, t.order[t.next])
		t.order[t.next] = w.RequestID
		t.next = (t.next + 1) % leftKept
		t.left[w.RequestID] = struct{}{}
	}
	return nil
}
