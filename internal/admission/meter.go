package admission

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"tollgate/internal/apikey"
	"tollgate/internal/ledger"
	"tollgate/internal/limit"
	"tollgate/internal/request"
	"tollgate/internal/trace"
)

// What the meter inside an Envoy says reaches the gate by lease id. Every method
// takes any lease, also an unknown one, and may be called again.

// errUnwritten says that an end is known and not on record yet.
var errUnwritten = errors.New("the settlement waits for the ledger")

// Attach makes a live session of an open row whose answer the meter of row.Meter
// still has: after a restart, or at another gateway. The limits take the request over
// without asking for room. cut tells the meter to end it. A row that is settled is no
// error and attaches nothing; a lease that is known gets the new cut.
func (g *Gate) Attach(ctx context.Context, row ledger.Record, cut func()) error {
	s := g.sessions.get(row.LeaseID)
	if s == nil && row.Open() {
		s = g.attach(ctx, row)
	}
	if s != nil && cut != nil {
		s.OnCut(cut)
	}
	return nil
}

// attach makes the session of an open row.
func (g *Gate) attach(ctx context.Context, row ledger.Record) *Session {
	ring := g.keys.Current()
	key, ok := ring.ByID(row.KeyID)
	if !ok { // removed meanwhile; the request is revoked below
		key = &apikey.Key{ID: row.KeyID, User: row.User}
	}
	addr, _ := netip.ParseAddr(row.ClientAddr) // no address where the row has none
	now := time.Now()
	s := newSession(&g.shared, Facts{
		LeaseID: row.LeaseID, KeyID: row.KeyID, Secret: apikey.ParseSecretID(row.Secret), Class: Inference, Method: "POST",
		Endpoint: row.Endpoint, RequestID: row.RequestID, Addr: addr, Started: row.StartedAt, EndUser: row.EndUser,
		Caps: key.Caps(g.caps, row.StartedAt), Standing: noStanding, Trace: trace.Read(row.Trace),
	}, key, now.Add(-max(0, g.wall().Sub(row.StartedAt))))
	s.order = Order{
		Model: row.Model, Requested: row.RequestedModel, Format: g.format(row.Endpoint), Stream: row.Stream, N: row.N, Prompts: row.Prompts,
		MaxTokens: -1, Meter: row.Meter, Attached: true,
	}
	maxLen, _ := g.catalog.Model(row.Model)
	s.most = boundsOf(s.order, maxLen)
	s.count(row.Counts.Prompt, row.Counts.Completion)
	do, err := s.next(request.OnReattached, func() { s.claimed, s.reserved, s.instance = true, row.Reserved, row.Meter })
	if err == nil {
		err = s.perform(ctx, do)
	}
	s.rejoin(row)
	if err != nil || !g.sessions.add(s) { // another call was first; adopting a lease twice changes nothing
		s.stand()
		return g.sessions.get(row.LeaseID)
	}
	g.metrics.active.Inc()
	if s.order.generates() {
		g.attribution.join(ctx, &s.tally, row.LeaseID, s.order, s.issued)
		s.complete()
	}
	if !g.heldBy(s, ring) {
		s.cut(ctx, ledger.Revoked)
	}
	return s
}

// complete completes the order by what the process before us has told of it.
func (s *Session) complete() {
	w := s.whole
	if w == nil || !w.resumed {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.order.PromptBytes, s.order.MaxTokens, s.order.Attached = w.promptBytes, w.maxTokens, false
}

// find is the session of a lease, from the ledger where it is not live here. Without
// a session the row is returned, and nil where there is none.
func (g *Gate) find(ctx context.Context, leaseID string) (*Session, *ledger.Record, error) {
	if s := g.sessions.get(leaseID); s != nil {
		return s, nil, nil
	}
	row, err := g.ledger.Get(ctx, leaseID)
	switch {
	case errors.Is(err, ledger.ErrUnknown):
		return nil, nil, nil
	case err != nil:
		return nil, nil, fmt.Errorf("read row: %w", err)
	case !row.Open():
		return nil, &row, nil
	}
	return g.attach(ctx, row), nil, nil
}

// Progress takes over the running counts of a lease; below 0 is not said. It is false
// for a lease that is not live here: its row may have to be attached.
func (g *Gate) Progress(leaseID string, prompt, completion int64) bool {
	s := g.sessions.get(leaseID)
	if s == nil {
		return false
	}
	s.count(prompt, completion) // the beat of the meter is the one of the checkpoints
	return true
}

// Extend makes what a lease holds of its key's quota cover used tokens and more, and
// returns how many it may use in all: below used when nothing is left, below 0 when
// there is no bound. [ErrTicket] for a lease that is not live here; any other error
// says that nobody can tell now.
func (g *Gate) Extend(ctx context.Context, leaseID string, used int64) (total int64, err error) {
	s := g.sessions.get(leaseID)
	if s == nil {
		return 0, ErrTicket
	}
	return s.extend(ctx, used)
}

// Ended settles and closes a request by what its holder says of its end. After nil it
// is on record: also when it was before, or when the lease has no row. An error says
// that the ledger does not have it yet: the same must be said again.
func (g *Gate) Ended(ctx context.Context, leaseID string, o Outcome) error {
	s, row, err := g.find(ctx, leaseID)
	switch {
	case err != nil:
		return err
	case row != nil:
		return g.amend(ctx, row, o)
	case s == nil:
		return nil
	}
	if err := s.end(ctx, o); err != nil {
		return err
	}
	switch s.standsAt().Ledger {
	case request.LedgerWriting, request.LedgerOwed:
		return errUnwritten
	case request.LedgerNone, request.LedgerOpen, request.LedgerWritten, request.LedgerNaming,
		request.LedgerMissing, request.LedgerLost:
	}
	if row := s.closedWithout(); row != nil {
		if err := g.amend(ctx, row, o); err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.record = row
	}
	return nil
}

// closedWithout is the row of a session that was closed from the counts of the last
// beat; nil where it was not, or where they were exact.
func (s *Session) closedWithout() *ledger.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.record == nil || s.record.Quality != ledger.Partial {
		return nil
	}
	rec := *s.record
	return &rec
}

// amend gives a row that was closed without its meter the meter's own account, where
// that is the better one, and corrects limits and metrics by the difference. row is the
// new one then.
func (g *Gate) amend(ctx context.Context, row *ledger.Record, o Outcome) error {
	if row.Quality == ledger.Exact {
		return nil
	}
	order := Order{Model: row.Model, Format: g.format(row.Endpoint), Stream: row.Stream, N: row.N, Prompts: row.Prompts}
	if !exact(o.Report, order) || plausible(&o.Report.Counts, boundsOf(order, 0)) != "" {
		return nil
	}
	st := ledger.Settlement{
		LeaseID: row.LeaseID, Status: o.Status, EndedAt: row.EndedAt, Reason: o.Reason, Quality: ledger.Exact,
		Counts: o.Report.Counts, Engine: o.Engine,
	}
	if o.Lasted > 0 {
		st.EndedAt = row.StartedAt.Add(o.Lasted)
	}
	rec, moved, err := g.ledger.Settle(ctx, st)
	switch {
	case errors.Is(err, ledger.ErrUnknown):
		return nil
	case err != nil:
		return fmt.Errorf("settle: %w", err)
	}
	counted := total(row.Counts)
	*row = rec
	g.metrics.amended(row, moved)
	g.correct(ctx, row, counted)
	return nil
}

// correct makes the limits count what a row says that was counted as counted before:
// its request is taken over, and ends again.
func (g *Gate) correct(ctx context.Context, rec *ledger.Record, counted int64) {
	key, ok := g.keys.Current().ByID(rec.KeyID)
	if now := total(rec.Counts); !ok || now == counted {
		return
	}
	caps := key.Caps(g.caps, rec.StartedAt)
	err := g.limits.Adopt(ctx, rec.LeaseID, rec.KeyID, caps, limit.Reservation{}, counted)
	if err == nil {
		_, err = g.limits.Release(ctx, rec.LeaseID, limit.Final{Total: total(rec.Counts), QuotaPeriod: caps.QuotaPeriod})
	}
	if err != nil {
		g.log.Warn("the limits do not know the better account of a request", "lease_id", rec.LeaseID, "error", err)
	}
}

// MeterGone takes the meter's word that the stream of a lease ended before its plan
// was seen. It may come before the answer is handed over. The error is that of
// [Gate.Ended].
func (g *Gate) MeterGone(ctx context.Context, leaseID string) error {
	s, _, err := g.find(ctx, leaseID)
	if s == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	return legal(s.happen(ctx, request.OnMeterGone, nil))
}

// InstanceGone settles the requests whose answers the meter of that instance had from
// the counts that it told last: its Envoy is dead. It returns how many there were.
func (g *Gate) InstanceGone(ctx context.Context, instance string) int {
	const atOnce = 64 // the ledger commits what comes together in one step
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	var group sync.WaitGroup
	room := make(chan struct{}, atOnce)
	n := 0
	for _, s := range g.sessions.all() {
		if !s.handedTo(instance) {
			continue
		}
		n++
		room <- struct{}{}
		group.Go(func() {
			defer func() { <-room }()
			_ = s.happen(ctx, request.OnMeterLost, s.noteCrash) // what is owed is retried
		})
	}
	group.Wait()
	return n
}

// noteCrash makes the outcome of a request whose Envoy died: what was last heard of
// it, and the best name that there is. REQUIRES: mu held.
func (s *Session) noteCrash() {
	o := s.lastOutcome()
	if st := s.named(ledger.Settlement{Reason: o.Reason}); st.Reason != ledger.Aborted {
		o.Reason = st.Reason
	} else {
		o.Reason = ledger.EnvoyCrash
	}
	s.outcome, s.ended = o, true
}

// handedTo reports whether the meter of that instance has the answer.
func (s *Session) handedTo(instance string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.instance == instance && s.state.Stage == request.Handed
}
