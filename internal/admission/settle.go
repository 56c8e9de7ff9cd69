package admission

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tollgate/internal/ledger"
	"tollgate/internal/limit"
	"tollgate/internal/usage"
)

// Outcome is what a stream knows of its end.
type Outcome struct {
	// Reason is [ledger.Aborted] when the stream ended without its end: the
	// proxy's log says why.
	Reason ledger.EndReason
	Status int    // HTTP status that the client got; 0 when none is known
	Engine string // address of the engine that answered, "" where unknown
	Report usage.Report
	// Unread is the size in bytes of what was delivered although nobody could
	// read it; 0 where the report knows what there was.
	Unread int64
	// Unreadable: the answer was not delivered, because nobody could have said
	// what is in it.
	Unreadable bool

	doubtful bool  // the report has nonsense in it
	made     int64 // output that the engine made by its own account, where no usage was seen
}

// Settle writes the final record. It must return without an error before the
// last byte of an answer is released: a client that saw the end is in the
// ledger. On an error the record is kept and retried, and the stream must be
// cut. Only the first call settles; a request without an intent has nothing to
// settle. The lease is given back here already, because vLLM is done.
func (s *Session) Settle(ctx context.Context, o Outcome) error {
	s.mu.Lock()
	if s.settling || !s.intent {
		s.mu.Unlock()
		return nil
	}
	s.settling = true
	if s.cutReason != "" && o.Reason == ledger.Aborted {
		o.Reason = s.cutReason
	}
	order, reserved, most := s.order, s.reserved, s.most
	s.mu.Unlock()

	nonsense := plausible(&o.Report.Counts, most)
	if nonsense == "" && o.Unreadable {
		nonsense = anomalyUnreadable
	}
	o.doubtful = nonsense != ""
	made := s.made(ctx, o, order)
	if chargeable(o.Reason) {
		o.made, made = made, 0
	}
	st := s.settlement(o, order)
	explained := known(st.Counts, st.Quality)
	if all := o.made + made; all > 0 {
		explained = all
	}
	s.gate.unseen.leave(s, explained)
	if made > 0 {
		// Whether it is charged hangs on who ended the request, which the proxy's
		// log will say: the lease stays until then.
		s.mu.Lock()
		s.unbilled = made
		s.mu.Unlock()
	}
	s.gate.metrics.anomalies(o.Report, nonsense)
	rec, _, err := s.gate.ledger.Settle(ctx, st)
	if err != nil {
		s.owe(st)
		return fmt.Errorf("settle: %w", err)
	}
	s.settledAs(rec)
	s.gate.learn(s, order, reserved, rec, o.Report.TextBytes)
	if o.Reason != ledger.Aborted {
		s.count(rec)
	}
	if made == 0 {
		s.release(ctx, limit.Final{Total: total(rec.Counts)})
	}
	return nil
}

// Close ends the session: what is not settled is settled, the lease goes back.
// It is the one deferred call of the stream, whose context may be dead.
func (s *Session) Close(ctx context.Context, o Outcome) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	if err := s.Settle(ctx, o); err != nil {
		s.gate.log.Error("cannot settle, will retry", "request_id", s.arrival.RequestID, "error", err)
	}
	s.mu.Lock()
	s.stage, s.closedAt = closed, time.Now()
	final := limit.Final{GiveBackRequest: s.giveBack}
	if s.intent {
		final.Total = max(0, s.prompt.Load()) + max(0, s.completion.Load())
	}
	ready, unbilled := s.witness != nil, s.unbilled > 0
	s.mu.Unlock()
	if !unbilled {
		s.release(ctx, final)
	}
	if ready {
		s.finish(ctx)
	}
}

func (s *Session) settledAs(rec ledger.Record) {
	s.mu.Lock()
	s.record = &rec
	s.mu.Unlock()
}

// settlement applies the table of ends in docs/metering.md.
func (s *Session) settlement(o Outcome, order Order) ledger.Settlement {
	st := ledger.Settlement{
		LeaseID: s.leaseID, Status: o.Status, EndedAt: s.now(), Reason: o.Reason, Engine: o.Engine,
	}
	if ns := s.firstByte.Load(); ns > 0 {
		st.FirstByteAt = s.wallStart.Add(time.Duration(ns))
	}
	st.Counts, st.Quality = s.account(o, order)
	return st
}

// account finds the counts of an end and how well they are known.
func (s *Session) account(o Outcome, order Order) (usage.Counts, ledger.Quality) {
	zero := usage.Counts{Cached: usage.Unsaid, Reasoning: usage.Unsaid}
	r := o.Report
	switch {
	case o.Reason == ledger.Refused, order.Format == usage.Free:
		return zero, ledger.Exact
	case exact(r, order) && !o.doubtful:
		c := r.Counts
		c.Prompt, c.Completion = max(0, c.Prompt), max(0, c.Completion)
		return c, ledger.Exact
	}
	// Nothing exact was said: the prompt from what was said or from its size,
	// the output from the text that was delivered.
	c := zero
	if c.Prompt = r.Counts.Prompt; c.Prompt < 0 {
		c.Prompt = s.gate.estimate.Estimate(s.sample(order, 0)).Prompt
	}
	c.Completion = max(0, r.Counts.Completion, s.completion.Load())
	if r.TextBytes > 0 || r.Deltas > 0 {
		c.Completion = max(1, r.Deltas, c.Completion, s.gate.estimate.Text(s.sample(order, 0), r.TextBytes))
	}
	if order.Format != usage.Pooling {
		c.Completion = max(c.Completion, (o.Unread+bytesPerToken-1)/bytesPerToken, o.made)
	}
	return c, ledger.Estimated
}

// bytesPerToken is what is taken for one token where nothing else is known.
const bytesPerToken = 4

// exact tells whether what was said is an account: the final usage, or the
// running one of a stream. A usage whose output count is missing or nonsense
// is none, except where there is no output.
func exact(r usage.Report, o Order) bool {
	said := r.Counts.Completion != usage.Unsaid || o.Format == usage.Pooling
	running := r.Seen && o.Stream && (o.Format == usage.Chat || o.Format == usage.Completions)
	return said && (r.Final || running)
}

func total(c usage.Counts) int64 { return max(0, c.Prompt) + max(0, c.Completion) }

// learn teaches the estimator from exact answers only; one that was cut shows
// no more than that it was wanted so long.
func (g *Gate) learn(s *Session, o Order, reserved int64, rec ledger.Record, textBytes int64) {
	if rec.Quality != ledger.Exact || o.Format == usage.Free {
		return
	}
	sample := s.sample(o, 0)
	if rec.Reason != ledger.Complete {
		g.estimate.Raise(sample, rec.Counts.Completion)
		return
	}
	g.estimate.Learn(sample, rec.Counts.Prompt, rec.Counts.Completion)
	g.estimate.LearnText(sample, textBytes, rec.Counts.Completion)
	if used := total(rec.Counts); used > 0 && reserved > 0 {
		g.metrics.estimateError.Observe(float64(reserved) / float64(used))
	}
}

// count adds a final settlement to the metrics, once.
func (s *Session) count(rec ledger.Record) {
	s.mu.Lock()
	done := s.counted
	s.counted = true
	s.mu.Unlock()
	if done {
		return
	}
	first := time.Duration(s.firstByte.Load())
	s.gate.metrics.settled(rec, first, time.Since(s.issued))
}

// owe remembers what the ledger refused; [Gate.retryPending] writes it.
func (s *Session) owe(st ledger.Settlement) {
	s.mu.Lock()
	listed := s.owed != nil
	s.owed = &st
	s.mu.Unlock()
	if listed {
		return
	}
	g := s.gate
	g.pendingMu.Lock()
	g.pending = append(g.pending, s)
	g.pendingMu.Unlock()
}

// retryPending writes what the ledger refused before, oldest first, until it
// refuses again.
func (g *Gate) retryPending(ctx context.Context) {
	g.pendingMu.Lock()
	batch := g.pending
	g.pending = nil
	g.pendingMu.Unlock()
	for i, s := range batch {
		if err := s.pay(ctx); err != nil {
			g.pendingMu.Lock()
			g.pending = append(batch[i:], g.pending...)
			g.pendingMu.Unlock()
			return
		}
	}
}

// pay writes what the session owes, with the name that it has by now.
func (s *Session) pay(ctx context.Context) error {
	for {
		s.mu.Lock()
		owed := s.owed
		s.mu.Unlock()
		rec, _, err := s.gate.ledger.Settle(ctx, *owed)
		unknown := errors.Is(err, ledger.ErrUnknown)
		if err != nil && !unknown {
			return fmt.Errorf("settle: %w", err)
		}
		s.mu.Lock()
		if s.owed != owed && !unknown { // it was named meanwhile
			s.mu.Unlock()
			continue
		}
		s.owed = nil
		if !unknown { // else its intent was never written: there is nothing to end
			s.record = &rec
		}
		finished, w := s.finished, s.witness
		s.mu.Unlock()
		switch {
		case finished:
			s.conclude(w)
		case !unknown && rec.Reason != ledger.Aborted:
			s.count(rec)
		}
		return nil
	}
}

// giveUp writes the access records of what is owed still: nothing will be
// written any more, and the log must not lose it too.
func (g *Gate) giveUp() {
	g.pendingMu.Lock()
	rest := g.pending
	g.pendingMu.Unlock()
	for _, s := range rest {
		s.mu.Lock()
		w, order, st, finished := s.witness, s.order, s.owed, s.finished
		s.mu.Unlock()
		if finished && st != nil {
			g.access(s.accessRecord(w, &ledger.Record{Status: st.Status, Reason: st.Reason, Quality: st.Quality, Counts: st.Counts}, order))
		}
	}
}

// Pending is the number of settlements that wait for the ledger.
func (g *Gate) Pending() int {
	g.pendingMu.Lock()
	defer g.pendingMu.Unlock()
	return len(g.pending)
}
