package admission

import (
	"sync"
	"time"
)

// sessions finds the sessions: by lease id until they are done, and by request id
// while their ticket is unclaimed. When the client leaves during the check, or the
// proxy has waited for it for too long, the log entry has no lease, because the
// proxy threw our answer away. The entry may even overtake the check, so the last
// few requests that ended in this way are remembered.
type sessions struct {
	mu       sync.Mutex
	byLease  map[string]*Session  // guarded by mu, like all that follows
	tickets  map[string]*Session  // unclaimed, by request id
	left     map[string]struct{}  // requests that ended before their ticket was issued
	order    [leftMost]string     // of left, oldest at oldest
	oldest   int                  // in order
	recorded map[string]time.Time // leases whose access record was written without a log entry, and when
	draining bool                 // no new ones
}

const (
	// leftMost is how many requests may end between a log entry and the check that it
	// has overtaken.
	leftMost = 1024
	// recordedFor is how long a lease that was recorded without a log entry is
	// remembered, so that a late entry makes no second record; recordedMost bounds
	// how many are.
	recordedFor  = 10 * time.Minute
	recordedMost = 1 << 16
)

func newSessions() sessions {
	return sessions{
		byLease: make(map[string]*Session), tickets: make(map[string]*Session),
		left: make(map[string]struct{}), recorded: make(map[string]time.Time),
	}
}

// issue keeps a session and its ticket; false when the gate is closing or the
// request has ended already.
func (r *sessions) issue(s *Session) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ended := r.left[s.facts.RequestID]; ended || r.draining {
		return false
	}
	r.byLease[s.facts.LeaseID] = s
	r.tickets[s.facts.RequestID] = s
	return true
}

// add keeps a session without a ticket; false when its lease is known already.
func (r *sessions) add(s *Session) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byLease[s.facts.LeaseID] != nil {
		return false
	}
	r.byLease[s.facts.LeaseID] = s
	return true
}

// claimed: the ticket of the session is used.
func (r *sessions) claimed(s *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropTicket(s)
}

// dropTicket forgets the ticket. REQUIRES: mu held.
func (r *sessions) dropTicket(s *Session) {
	if id := s.facts.RequestID; r.tickets[id] == s {
		delete(r.tickets, id)
	}
}

// forget drops a session. unlogged: its access record is written without its log
// entry.
func (r *sessions) forget(s *Session, unlogged bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byLease, s.facts.LeaseID)
	r.dropTicket(s)
	if unlogged && len(r.recorded) < recordedMost {
		r.recorded[s.facts.LeaseID] = time.Now()
	}
}

// get finds a session by its lease; nil when there is none.
func (r *sessions) get(leaseID string) *Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byLease[leaseID]
}

// logged finds the session of a log entry; nil when there is none. late: the access
// record was written without this entry.
func (r *sessions) logged(w *Witness) (s *Session, late bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w.LeaseID != "" {
		_, late = r.recorded[w.LeaseID]
		return r.byLease[w.LeaseID], late
	}
	if w.RequestID == "" {
		return nil, false
	}
	if s := r.tickets[w.RequestID]; s != nil {
		return s, false
	}
	if w.Cause == CauseClient || w.Cause == CauseGateway {
		r.leave(w.RequestID)
	}
	return nil, false
}

// holds reports whether the lease was claimed here, or was recorded without its log
// entry.
func (r *sessions) holds(leaseID string) bool {
	r.mu.Lock()
	s, recorded := r.byLease[leaseID], false
	_, recorded = r.recorded[leaseID]
	r.mu.Unlock()
	if s == nil {
		return recorded
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.claimed
}

// leave remembers a request that has ended without a ticket. REQUIRES: mu held.
func (r *sessions) leave(requestID string) {
	delete(r.left, r.order[r.oldest])
	r.order[r.oldest] = requestID
	r.oldest = (r.oldest + 1) % leftMost
	r.left[requestID] = struct{}{}
}

// all are the sessions now, in no order.
func (r *sessions) all() []*Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*Session, 0, len(r.byLease))
	for _, s := range r.byLease {
		out = append(out, s)
	}
	return out
}

// drain refuses every new session from now on.
func (r *sessions) drain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.draining = true
}

// expire forgets the recorded leases that no late entry will ask for.
func (r *sessions) expire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, at := range r.recorded {
		if time.Since(at) > recordedFor {
			delete(r.recorded, id)
		}
	}
}

// debts are the sessions whose settlement the ledger has refused, in the order of
// the refusals. The zero value is empty.
type debts struct {
	mu   sync.Mutex
	list []*Session // guarded by mu
}

func (d *debts) add(s *Session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list = append(d.list, s)
}

// take returns the first session and removes it; nil when there is none.
func (d *debts) take() *Session {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.list) == 0 {
		return nil
	}
	s := d.list[0]
	d.list = d.list[1:]
	return s
}

func (d *debts) len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.list)
}
