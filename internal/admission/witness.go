package admission

import (
	"context"
	"time"

	"tollgate/internal/ledger"
	"tollgate/internal/limit"
	"tollgate/internal/usage"
)

// Cause says how a request ended by the proxy's account.
type Cause uint8

// The causes. What the proxy calls them is the adapters' business.
const (
	// CauseNone: the engine's answer went through whole.
	CauseNone Cause = iota
	// CauseDenied: our own refusal.
	CauseDenied
	// CauseRequest: the proxy refused the request itself (unknown path, body
	// too large, malformed).
	CauseRequest
	// CauseClient: the client went away.
	CauseClient
	// CauseUpstream: the engine cut its answer.
	CauseUpstream
	// CauseUnreached: the engine was never reached.
	CauseUnreached
	// CauseTimeout: silence for too long.
	CauseTimeout
	// CauseGateway: this service failed or cut the stream.
	CauseGateway
)

// EndReason is the ledger's name of the cause; "" where the cause alone names
// no early end.
func (c Cause) EndReason() ledger.EndReason {
	switch c {
	case CauseClient:
		return ledger.ClientAbort
	case CauseUpstream:
		return ledger.UpstreamAbort
	case CauseTimeout:
		return ledger.Timeout
	case CauseUnreached:
		return ledger.Refused
	case CauseNone, CauseDenied, CauseRequest, CauseGateway:
	}
	return ""
}

// Witness is the proxy's account of one finished request.
type Witness struct {
	LeaseID   string // "" where no ticket was issued
	RequestID string
	KeyID     string // as far as the proxy knows it
	Method    string
	Endpoint  string // canonical path, "other" where unknown
	Status    int    // what the client got; 0 = nothing
	Cause     Cause
	// Denied is the reason of our own refusal, "" otherwise.
	Denied     Reason
	ClientAddr string
	Started    time.Time
	Duration   time.Duration // whole request
	FirstByte  time.Duration // to the first byte sent to the client; 0 = none
	BytesIn    uint64
	BytesOut   uint64
	Details    string // the proxy's own words, for the record
}

// Access is the record of one request, written once when both witnesses have
// spoken or the second has been waited for long enough.
type Access struct {
	Witness
	User    string
	Model   string
	Reason  ledger.EndReason // "" where nothing was recorded in the ledger
	Quality ledger.Quality
	Counts  usage.Counts // [usage.Unsaid] where nothing was recorded
}

// aloneFor is how long a record that was written without a log entry is
// remembered, so that an entry that comes after all makes no second one; and
// aloneMost bounds how many are.
const (
	aloneFor  = 10 * time.Minute
	aloneMost = 1 << 16
)

func (g *Gate) noteAlone(leaseID string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.alone) < aloneMost {
		g.alone[leaseID] = time.Now()
	}
}

func (g *Gate) isAlone(leaseID string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.alone[leaseID]
	return ok
}

func (g *Gate) forgetAlone() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, at := range g.alone {
		if time.Since(at) > aloneFor {
			delete(g.alone, id)
		}
	}
}

// grace is how long one witness waits for the other.
const grace = time.Second

// Witness takes the proxy's account of a request. It names the cause of an
// early end, frees a lease that no stream ever claimed, and closes what the
// stream leaves open for longer than a second.
func (g *Gate) Witness(w Witness) {
	s := g.witnessed(w)
	if s == nil && g.isAlone(w.LeaseID) {
		return // too late: the record was written without it
	}
	if s == nil {
		g.access(Access{Witness: w, Counts: usage.None()})
		return
	}
	s.mu.Lock()
	if s.witness != nil {
		s.mu.Unlock()
		return
	}
	s.witness, s.witnessAt = &w, time.Now()
	unclaimed := s.stage == provisional
	if unclaimed {
		s.stage = closed // a late claim must fail
	}
	ready := s.stage == closed
	s.mu.Unlock()
	if unclaimed {
		// Without a lease in the entry the check's answer came too late, as
		// for a check that is cancelled.
		s.release(context.Background(), limit.Final{GiveBackRequest: w.Cause == CauseGateway || w.LeaseID == ""})
	}
	if ready {
		s.finish(context.Background())
	}
}

// finish joins the two accounts, once: the end gets its name, and when the
// ledger has it, the metrics get their settlement and the log its record.
func (s *Session) finish(ctx context.Context) {
	s.mu.Lock()
	if s.finished {
		s.mu.Unlock()
		return
	}
	s.finished = true
	w, rec := s.witness, s.record
	claimed, owed, unbilled := s.claimed, s.owed, s.unbilled
	if owed != nil { // what is still to be written gets the name before it is
		named := *owed
		named.Reason, named.Status = s.nameOf(owed.Reason, owed.Status)
		named.Counts = s.billed(named.Reason, named.Counts)
		s.owed = &named
	}
	s.mu.Unlock()
	if w == nil && claimed {
		s.gate.noteAlone(s.leaseID)
	}
	s.gate.forget(s)
	if unbilled > 0 {
		defer s.releaseBilled(ctx)
	}
	if w == nil && !claimed {
		// The client left during the check: its log entry came without a lease.
		return
	}
	if owed != nil || rec != nil && !s.rename(ctx, rec) {
		return // retryPending concludes
	}
	s.conclude(w)
}

// conclude tells the metrics and the log of an end that has its last name.
func (s *Session) conclude(w *Witness) {
	s.mu.Lock()
	rec, order := s.record, s.order
	s.mu.Unlock()
	if rec != nil {
		if w != nil {
			s.compare(*w, *rec)
		}
		s.count(*rec)
	}
	s.gate.access(s.accessRecord(w, rec, order))
}

// nameOf is the name of an end, where it has none yet the one that a cut, the
// proxy's account or the proxy's death gives it; and its status. REQUIRES: mu held.
func (s *Session) nameOf(reason ledger.EndReason, status int) (ledger.EndReason, int) {
	if reason != ledger.Aborted {
		return reason, status
	}
	if s.witness == nil {
		if s.orphaned() {
			reason = ledger.EnvoyCrash
		}
		return reason, status
	}
	name := s.witness.Cause.EndReason()
	if s.cutReason != "" {
		name = s.cutReason
	}
	if name == "" || name == ledger.Refused {
		return reason, status
	}
	if status == 0 {
		status = s.witness.Status
	}
	return name, status
}

// rename gives a settled end of unknown cause its name; the counts stay, but for
// what is charged only where the client ended the request. It is
// false when the name could not be written now: then it is owed.
func (s *Session) rename(ctx context.Context, rec *ledger.Record) bool {
	s.mu.Lock()
	reason, status := s.nameOf(rec.Reason, rec.Status)
	counts := s.billed(reason, rec.Counts)
	s.mu.Unlock()
	if reason == rec.Reason {
		return true
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	st := ledger.Settlement{
		LeaseID: s.leaseID, Status: status, FirstByteAt: rec.FirstByteAt, EndedAt: rec.EndedAt,
		Reason: reason, Quality: rec.Quality, Counts: counts,
	}
	named, _, err := s.gate.ledger.Settle(ctx, st)
	if err != nil {
		s.owe(st)
		return false
	}
	s.settledAs(named)
	return true
}

// compare counts ends on which the two witnesses disagree.
func (s *Session) compare(w Witness, rec ledger.Record) {
	whole := rec.Reason == ledger.Complete
	cut := w.Cause == CauseUpstream || w.Cause == CauseTimeout
	lost := rec.Reason == ledger.Aborted && w.Cause == CauseNone
	status := rec.Status != 0 && w.Status != 0 && rec.Status != w.Status
	if (whole && cut) || lost || status {
		s.gate.metrics.disagreements.Inc()
		s.gate.log.Warn("witnesses disagree", "request_id", s.arrival.RequestID, "end_reason", string(rec.Reason),
			"status", rec.Status, "proxy_status", w.Status, "proxy_details", w.Details)
	}
}

func (s *Session) accessRecord(w *Witness, rec *ledger.Record, order Order) Access {
	a := Access{User: s.key.User, Model: order.Model, Counts: usage.None()}
	if w != nil {
		a.Witness = *w
	} else {
		a.Witness = Witness{
			Method: s.arrival.Method, Cause: CauseGateway, Started: s.wallStart,
			Duration: time.Since(s.issued), FirstByte: time.Duration(s.firstByte.Load()), Details: "no_access_log_entry",
		}
	}
	a.LeaseID, a.RequestID, a.KeyID = s.leaseID, s.arrival.RequestID, s.key.ID
	a.Endpoint, a.ClientAddr = s.arrival.Endpoint, s.arrival.Addr.String()
	if rec != nil {
		a.Reason, a.Quality, a.Counts = rec.Reason, rec.Quality, rec.Counts
		if a.Status == 0 {
			a.Status = rec.Status
		}
	}
	return a
}
