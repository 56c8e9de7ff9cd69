package admission

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tollgate/internal/ledger"
	"tollgate/internal/limit"
	"tollgate/internal/request"
	"tollgate/internal/usage"
)

const (
	// releaseTimeout bounds a release; settleTimeout a write of a row.
	releaseTimeout = 2 * time.Second
	settleTimeout  = 5 * time.Second
)

// happen lets an event happen, performs its effects and reports their results as
// events, until nothing is left to do. note is that of next. The error is a
// [*request.IllegalError], or that of the ledger when it refused a write. The context
// must bound how long the ledger is waited for. REQUIRES: mu not held.
func (s *Session) happen(ctx context.Context, on request.Event, note func()) error {
	do, err := s.next(on, note)
	if err != nil {
		return err
	}
	return s.perform(ctx, do)
}

// legal is the error of an event without the one that says that it came too late.
func legal(err error) error {
	if err == nil {
		return nil
	}
	var illegal *request.IllegalError
	if errors.As(err, &illegal) {
		return nil
	}
	return err
}

// perform performs effects and what follows from them. REQUIRES: mu not held.
func (s *Session) perform(ctx context.Context, do request.Effects) (failed error) {
	for effect, rest := do.Pop(); effect != 0; effect, rest = rest.Pop() {
		result, err := s.do(ctx, effect)
		failed = errors.Join(failed, err)
		if result == 0 {
			continue
		}
		more, illegal := s.next(result, nil)
		if illegal != nil {
			s.log.Error("the life of a request went wrong", "lease_id", s.facts.LeaseID, "error", illegal)
		}
		if result == request.OnRefused {
			s.owe(s)
		}
		rest |= more
	}
	return failed
}

// do performs one effect and returns the event that it results in; 0 for none.
func (s *Session) do(ctx context.Context, effect request.Effect) (result request.Event, err error) {
	switch effect {
	case request.DoTake, request.DoWriteIntent:
		// The caller performs them itself: their results are its answers.
	case request.DoAdopt:
		s.adopt(ctx)
	case request.DoLapse:
		result = s.lapse(ctx)
	case request.DoCut:
		s.tellHolder()
	case request.DoSettle:
		result, err = s.settle(ctx)
	case request.DoRename:
		result, err = s.rename(ctx)
	case request.DoCount:
		s.countRow()
	case request.DoForget:
		s.drop()
	case request.DoGiveBack:
		s.giveBack(ctx)
	case request.DoRecord:
		s.writeRecord()
	}
	return result, err
}

// settle writes the settlement that is owed. The first call makes it from the outcome.
func (s *Session) settle(ctx context.Context) (request.Event, error) {
	s.mu.Lock()
	owing, outcome := s.owing, s.lastOutcome()
	s.mu.Unlock()
	if !owing {
		st := s.settlement(ctx, outcome)
		s.mu.Lock()
		s.owed, s.owing = st, true
		s.mu.Unlock()
	}
	s.mu.Lock()
	if s.state.Named {
		s.owed = s.named(s.owed)
	}
	st := s.owed
	s.mu.Unlock()
	return s.write(ctx, st)
}

// write writes a settlement and says what the ledger answered.
func (s *Session) write(ctx context.Context, st ledger.Settlement) (request.Event, error) {
	rec, _, err := s.ledger.Settle(ctx, st)
	switch {
	case errors.Is(err, ledger.ErrUnknown):
		return request.OnRowMissing, fmt.Errorf("settle: %w", err)
	case err != nil:
		return request.OnRefused, fmt.Errorf("settle: %w", err)
	}
	s.mu.Lock()
	first := s.record == nil
	s.record = &rec
	order, reserved, text := s.order, s.reserved, s.lastOutcome().Report.TextBytes
	s.mu.Unlock()
	if first {
		s.learnSeat(&rec)
		s.learn(order, reserved, &rec, text)
	}
	return request.OnAccepted, nil
}

// lastOutcome is what the holder said of the end, or what was last heard of it.
// REQUIRES: mu held.
func (s *Session) lastOutcome() Outcome {
	if s.ended {
		return s.outcome
	}
	counts := usage.None()
	seen := s.completion.Load() > 0 || s.prompt.Load() > 0
	if seen {
		counts = s.counts()
	}
	o := Outcome{Reason: ledger.Aborted, Report: usage.Report{Counts: counts, Seen: seen}, partial: true}
	if s.cutReason != "" {
		o.Reason = s.cutReason
	}
	return o
}

// rename gives the row the name that its end has by now. The counts stay, but for
// those that are charged only where the client ended the request.
func (s *Session) rename(ctx context.Context) (request.Event, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	s.mu.Lock()
	rec := s.record
	st := s.named(ledger.Settlement{
		LeaseID: s.facts.LeaseID, Status: rec.Status, FirstByteAt: rec.FirstByteAt, EndedAt: rec.EndedAt,
		Reason: rec.Reason, Quality: rec.Quality, Counts: rec.Counts,
	})
	s.owed, s.owing = st, true
	s.mu.Unlock()
	if st.Reason == rec.Reason {
		return request.OnAccepted, nil
	}
	result, err := s.write(ctx, st)
	if result == request.OnRowMissing {
		return request.OnAccepted, nil // retention has removed the row: the name has no place any more
	}
	return result, err
}

// adopt makes the limits hold what the request was given by another process.
func (s *Session) adopt(ctx context.Context) {
	s.mu.Lock()
	order, reserved := s.order, s.reserved
	s.mu.Unlock()
	r := limit.Reservation{Tokens: reserved, Slots: 1, Hold: limit.Hold{Output: reserved, Most: reserved, Extended: order.running()}}
	if order.generates() {
		r.Slots = order.choices()
	}
	spent := total(s.counts())
	if err := s.limits.Adopt(ctx, s.facts.LeaseID, s.key.ID, s.facts.Caps, r, spent); err != nil {
		s.log.Warn("the limits do not hold a request that goes on after a restart", "lease_id", s.facts.LeaseID, "error", err)
	}
}

// tellHolder makes the holder end the request, once. A holder that is not known yet
// is told when it is.
func (s *Session) tellHolder() {
	s.mu.Lock()
	cut := s.onCut
	s.onCut = nil
	s.mu.Unlock()
	if cut != nil {
		cut()
	}
}

// countRow adds the settled row to the metrics.
func (s *Session) countRow() {
	s.mu.Lock()
	rec := *s.record
	model, requested := s.modelLabels()
	s.mu.Unlock()
	s.metrics.models.WithLabelValues(model, requested).Inc()
	s.metrics.modelTokens.WithLabelValues(model, "input").Add(float64(max(0, rec.Counts.Prompt)))
	s.metrics.modelTokens.WithLabelValues(model, "output").Add(float64(max(0, rec.Counts.Completion)))
	first := time.Duration(0)
	if !rec.FirstByteAt.IsZero() {
		first = rec.FirstByteAt.Sub(rec.StartedAt)
	}
	s.metrics.settled(rec, first, rec.EndedAt.Sub(rec.StartedAt))
}

// drop makes the gate forget the session.
func (s *Session) drop() {
	s.mu.Lock()
	unlogged := s.claimed && s.state.Entry == request.EntryWaived
	s.mu.Unlock()
	s.forget(s, unlogged)
}

// giveBack gives the lease back, with what the request has used in the end.
func (s *Session) giveBack(ctx context.Context) {
	s.mu.Lock()
	claimed, final := s.claimed, s.final()
	s.mu.Unlock()
	s.stand()
	if claimed {
		s.metrics.active.Dec()
	}
	// The stream's context may be dead by now, and the lease must not outlive it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	if _, err := s.limits.Release(ctx, s.facts.LeaseID, final); err != nil {
		s.log.Warn("cannot release lease, it expires by itself", "lease_id", s.facts.LeaseID, "error", err)
	}
}

// lapse gives back the lease of a ticket that nobody has claimed here. Where other
// gateways share the limits, a lease that does not lapse was claimed at one of them.
func (s *Session) lapse(ctx context.Context) request.Event {
	s.mu.Lock()
	final := s.final()
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	lapsed, err := s.limits.Lapse(ctx, s.facts.LeaseID, final)
	if err != nil {
		s.log.Warn("cannot release lease, it expires by itself", "lease_id", s.facts.LeaseID, "error", err)
	}
	if s.replicas && !lapsed && err == nil {
		return request.OnElsewhere
	}
	return request.OnLapsed
}

// final is what the request has used in the end. REQUIRES: mu held.
func (s *Session) final() limit.Final {
	f := limit.Final{QuotaPeriod: s.facts.Caps.QuotaPeriod, GiveBackRequest: s.refund}
	switch {
	case s.record != nil:
		f.Total = total(s.record.Counts)
	case s.owing && s.state.Named:
		f.Total = total(s.named(s.owed).Counts)
	case s.owing:
		f.Total = total(s.owed.Counts)
	}
	return f
}

// writeRecord writes the access record, and counts an end on which the two
// witnesses disagree.
func (s *Session) writeRecord() {
	s.mu.Lock()
	w, rec, order := s.witness, s.record, s.order
	if s.state.Ledger == request.LedgerLost {
		named := s.named(s.owed)
		rec = &ledger.Record{Status: named.Status, Reason: named.Reason, Quality: named.Quality, Counts: named.Counts, EndedAt: named.EndedAt}
		rec.Engine = named.Engine
	}
	model, requested := s.modelLabels()
	s.mu.Unlock()
	if w != nil && rec != nil {
		s.compare(w, rec)
	}
	a := s.accessRecord(w, rec, order)
	a.ModelLabel, a.RequestedLabel = model, requested
	s.access(a)
}

// compare counts ends on which the two witnesses disagree.
func (s *Session) compare(w *Witness, rec *ledger.Record) {
	whole := rec.Reason == ledger.Complete
	cut := w.Cause == CauseUpstream || w.Cause == CauseTimeout
	lost := rec.Reason == ledger.Aborted && w.Cause == CauseNone
	status := rec.Status != 0 && w.Status != 0 && rec.Status != w.Status
	if (whole && cut) || lost || status {
		s.metrics.disagreements.Inc()
		s.log.Warn("witnesses disagree", "request_id", s.facts.RequestID, "end_reason", string(rec.Reason),
			"status", rec.Status, "proxy_status", w.Status, "proxy_details", w.Details)
	}
}

// accessRecord joins the two accounts; w is nil where no log entry came, rec where
// nothing was sent to an engine.
func (s *Session) accessRecord(w *Witness, rec *ledger.Record, order Order) Access {
	a := Access{User: s.key.User, Model: order.Model, RequestedModel: order.Requested, Counts: usage.None()}
	if w != nil {
		a.Witness = *w
	} else {
		a.Witness = Witness{
			Method: s.facts.Method, Cause: CauseGateway, Started: s.facts.Started,
			Duration: time.Since(s.issued), FirstByte: time.Duration(s.firstByte.Load()), Details: "no_access_log_entry",
		}
	}
	a.LeaseID, a.RequestID, a.KeyID = s.facts.LeaseID, s.facts.RequestID, s.key.ID
	a.Endpoint, a.ClientAddr = s.facts.Endpoint, s.facts.Addr.String()
	if !s.facts.Trace.None() {
		a.Trace = s.facts.Trace
	}
	if rec != nil {
		a.Reason, a.Quality, a.Counts = rec.Reason, rec.Quality, rec.Counts
		a.Stream, a.Engine, a.Ended = order.Stream, rec.Engine, rec.EndedAt
		a.Started = s.facts.Started // the clock of Ended
		if a.Status == 0 {
			a.Status = rec.Status
		}
	}
	return a
}
