package admission

import (
	"context"
	"time"

	"tollgate/internal/ledger"
	"tollgate/internal/request"
	"tollgate/internal/usage"
)

// bytesPerToken is what is taken for one token where nothing else is known.
const bytesPerToken = 4

// settlement is what the ledger shall write of an end. It asks the engines where
// nobody saw the tokens, reports [request.OnChargeOpen] where the charge depends on
// the name of the end, and tells the attribution that the answer is over.
func (s *Session) settlement(ctx context.Context, o Outcome) ledger.Settlement {
	s.mu.Lock()
	order := s.order
	s.mu.Unlock()
	nonsense := plausible(&o.Report.Counts, s.most)
	if nonsense == "" && o.Unreadable {
		nonsense = anomalyUnreadable
	}
	s.metrics.anomalies(o.Report, nonsense)
	made, unbilled := s.made(ctx, o, order), int64(0)
	explained := made
	if !chargeable(o.Reason) {
		made, unbilled = 0, made
	}
	st := ledger.Settlement{
		LeaseID: s.facts.LeaseID, Status: o.Status, EndedAt: s.now(), Reason: o.Reason, Engine: o.Engine,
	}
	if o.Lasted > 0 {
		st.EndedAt = s.facts.Started.Add(o.Lasted)
	}
	if first := s.firstByteAfter(o); first > 0 {
		st.FirstByteAt = s.facts.Started.Add(first)
	}
	st.Counts, st.Quality = s.account(o, order, made, nonsense != "")
	if explained == 0 {
		explained = known(st.Counts, st.Quality)
	}
	s.attribution.leave(&s.tally, explained, s.endOf(o))
	if unbilled > 0 {
		// They are charged only where the client ended the request: the lease stays until
		// the proxy's log says so.
		_, _ = s.next(request.OnChargeOpen, func() { s.unbilled = unbilled })
	}
	return st
}

// endOf is when the answer ended, by the clock of this process.
func (s *Session) endOf(o Outcome) time.Time {
	now := time.Now()
	if end := s.issued.Add(o.Lasted); o.Lasted > 0 && end.Before(now) {
		return end
	}
	return now
}

// firstByteAfter is the time from the start to the first byte of the answer; 0 when
// there was none.
func (s *Session) firstByteAfter(o Outcome) time.Duration {
	if o.FirstByte > 0 {
		return o.FirstByte
	}
	return time.Duration(s.firstByte.Load())
}

// account finds the counts of an end and how well they are known, by the table of
// ends in docs/metering.md. made is the output that the engine made by its own
// account, where no usage was seen; doubtful: the report has nonsense in it.
func (s *Session) account(o Outcome, order Order, made int64, doubtful bool) (usage.Counts, ledger.Quality) {
	zero := usage.Counts{Cached: usage.Unsaid, Reasoning: usage.Unsaid}
	r := o.Report
	switch {
	case o.Reason == ledger.Refused, order.Format == usage.Free:
		return zero, ledger.Exact
	case exact(r, order) && !doubtful:
		c, quality := r.Counts, ledger.Exact
		c.Prompt, c.Completion = max(0, c.Prompt), max(0, c.Completion)
		if o.partial {
			quality = ledger.Partial
		}
		return c, quality
	}
	// Nothing exact was said: the prompt from what was said or from its size,
	// the output from the text that was delivered.
	c := zero
	if c.Prompt = r.Counts.Prompt; c.Prompt < 0 {
		c.Prompt = s.estimate.Estimate(order.sample(s.key.ID, 0)).Prompt
	}
	c.Completion = max(0, r.Counts.Completion, s.completion.Load())
	if r.TextBytes > 0 || r.Deltas > 0 {
		c.Completion = max(1, r.Deltas, c.Completion, s.estimate.Text(order.sample(s.key.ID, 0), r.TextBytes))
	}
	if order.Format != usage.Pooling {
		c.Completion = max(c.Completion, (o.Unread+bytesPerToken-1)/bytesPerToken, made)
	}
	return c, ledger.Estimated
}

// exact tells whether what was said is an account: the final usage, or the
// running one of a stream. A usage whose output count is missing or nonsense
// is none, except where there is no output.
func exact(r usage.Report, o Order) bool {
	said := r.Counts.Completion != usage.Unsaid || o.Format == usage.Pooling
	return said && (r.Final || r.Seen && o.running())
}

// made is how many tokens the engine made for an answer that ended early and of
// which no usage was seen; 0 where that is no question.
func (s *Session) made(ctx context.Context, o Outcome, order Order) int64 {
	early := o.Reason == ledger.Aborted || chargeable(o.Reason)
	if !early || !order.generates() || order.running() || o.Report.Final {
		return 0
	}
	most := s.bound * order.choices()
	if most == 0 {
		maxLen, _ := s.catalog.Model(order.Model)
		each, _ := order.mostPerChoice(maxLen)
		most = min(each, endless) * order.choices()
	}
	guess := s.estimate.Estimate(order.sample(s.key.ID, 0)).Output
	return s.attribution.tokens(ctx, &s.tally, s.endOf(o), most, guess)
}

// chargeable reports whether the client pays for the tokens that the engine made. It
// does not cause a timeout, a cut by the engine or a crash of tollgate.
func chargeable(r ledger.EndReason) bool {
	switch r {
	case ledger.ClientAbort, ledger.Cancelled, ledger.Revoked, ledger.Drained, ledger.Quota:
		return true
	case ledger.Complete, ledger.Refused, ledger.UpstreamAbort, ledger.Timeout, ledger.Aborted, ledger.UpstreamError,
		ledger.EngineAbort, ledger.GatewayCrash, ledger.EnvoyCrash:
	}
	return false
}

// known is what an account tells of the output, below 0 where it is a guess.
func known(c usage.Counts, q ledger.Quality) int64 {
	if q != ledger.Exact {
		return -1
	}
	return max(0, c.Completion)
}

func total(c usage.Counts) int64 { return max(0, c.Prompt) + max(0, c.Completion) }

// named is a settlement with the name that its end has by now: the one that the
// proxy's account or the proxy's death gives to an end that has none. REQUIRES: mu
// held.
func (s *Session) named(st ledger.Settlement) ledger.Settlement {
	if st.Reason != ledger.Aborted {
		return st
	}
	switch {
	case s.witness != nil:
		if r := s.witness.Cause.EndReason(); r != "" && r != ledger.Refused {
			st.Reason = r
		}
	case s.diedWithProxy():
		st.Reason = ledger.EnvoyCrash
	}
	if st.Reason != ledger.Aborted && st.Status == 0 && s.witness != nil {
		st.Status = s.witness.Status
	}
	if chargeable(st.Reason) {
		st.Counts.Completion = max(st.Counts.Completion, s.unbilled)
	}
	return st
}

// grace is how long one witness waits for the other.
const grace = time.Second

// diedWithProxy tells whether the session ended with the proxy: within the grace of
// its death. REQUIRES: mu held.
func (s *Session) diedWithProxy() bool {
	died := s.proxy.Load()
	return died != nil && !s.closedAt.IsZero() && s.closedAt.Sub(*died).Abs() <= grace
}

// learn teaches the estimator from exact answers only; one that was cut shows
// no more than that it was wanted so long.
func (s *Session) learn(order Order, reserved int64, rec *ledger.Record, textBytes int64) {
	if rec.Quality != ledger.Exact || order.Format == usage.Free {
		return
	}
	sample := order.sample(s.key.ID, 0)
	if rec.Reason != ledger.Complete {
		s.estimate.Raise(sample, rec.Counts.Completion)
		return
	}
	s.estimate.Learn(sample, rec.Counts.Prompt, rec.Counts.Completion)
	s.estimate.LearnText(sample, textBytes, rec.Counts.Completion)
	if used := total(rec.Counts); used > 0 && reserved > 0 {
		s.metrics.estimateError.Observe(float64(reserved) / float64(used))
	}
}
