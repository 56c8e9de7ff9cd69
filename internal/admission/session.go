package admission

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"tollgate/internal/alias"
	"tollgate/internal/apikey"
	"tollgate/internal/ledger"
	"tollgate/internal/limit"
	"tollgate/internal/placement"
	"tollgate/internal/request"
	"tollgate/internal/trace"
	"tollgate/internal/usage"
)

// Facts are all that a session must know of its request before the body: what a
// gateway needs to claim the ticket of another one.
type Facts struct {
	LeaseID   string
	KeyID     string
	Secret    apikey.SecretID // of the secret that opened the key
	Class     Class
	Method    string
	Endpoint  string // canonical path
	RequestID string
	Addr      netip.Addr // of the client
	EndUser   string     // the person behind the key; "" where the key is not trusted to say it
	// Started is the wall clock of the gateway that issued the ticket.
	Started time.Time
	// Caps are the limits of the key at the start; the quota period is the one of the
	// start to the end.
	Caps limit.Caps
	// Standing is how the key stood when the ticket was issued.
	Standing Standing
	// Trace is the identity of the request's span; none where it is not traced.
	Trace trace.Span
}

// Session is one admitted request, from its ticket to its access record. Its life
// is a [request.State]; the session performs the effects and holds the facts that
// the state does not know. One holder drives it at a time: the stream that claimed
// it ([Session.Reserve], [Session.FirstByte], [Session.Progress], [Session.Settle],
// [Session.Close], in this order), then the meter inside Envoy to which the stream
// has handed it over. The gate may cut it from outside at any time.
type Session struct {
	*shared
	facts  Facts
	key    *apikey.Key
	issued time.Time // start of the session's own clock, monotonic

	tally // the running counts

	granted  atomic.Int64 // tokens that the quota lets it use in all; below 0: no quota
	bound    int64        // output per choice to be sent with, 0: the client's own; of the stream alone
	lowered  bool         // the client had asked for more
	prompted int64        // held for the prompt; of the stream alone
	asked    string       // the name that was resolved last; of the stream alone
	choice   alias.Choice // what it was resolved to; of the stream alone
	expected atomic.Int64 // tokens of output that were reserved

	mu        sync.Mutex
	state     request.State // guarded by mu, like all that follows
	waiting   time.Time     // when the state began to wait for what it awaits
	claimed   bool          // a stream or a meter has held it
	order     Order
	standing  Standing // as of the last decision
	reserved  int64
	seat      *placement.Seat // what it holds of an engine's load; nil when not placed, or given back
	instance  string          // of the meter inside Envoy that has the answer, "" before
	onCut     func()          // ends the holder's stream; nil when nobody can, or when it was called
	cutReason ledger.EndReason
	until     time.Time // when the secret or its key expires; zero: never
	refund    bool      // the request did not count against the key
	closedAt  time.Time
	witness   *Witness
	outcome   Outcome           // what the holder said of the end
	ended     bool              // it has
	owed      ledger.Settlement // what the ledger is to write
	owing     bool              // owed is set
	unbilled  int64             // output that nobody saw, charged where the client ended the request
	record    *ledger.Record    // the row as it was settled last
}

// shared is what sessions use of their gate.
type shared struct {
	limits      limit.Store
	ledger      ledger.Store
	catalog     Catalog
	placing     Placing
	estimate    *limit.Estimator
	metrics     *Metrics
	log         hclog.Logger
	attribution *attribution
	wall        func() time.Time
	access      func(Access)
	replicas    bool // [Options.Shared]

	flush chan struct{}             // a stream has outrun its checkpoint
	proxy atomic.Pointer[time.Time] // when the proxy was last seen to die

	// forget drops a session that is done. unlogged: its access record is written
	// without its log entry.
	forget func(s *Session, unlogged bool)
	// owe keeps a session whose settlement the ledger has refused.
	owe func(*Session)
}

// newSession is a session of which nothing has happened yet.
func newSession(g *shared, f Facts, key *apikey.Key, issued time.Time) *Session {
	s := &Session{shared: g, facts: f, key: key, issued: issued, standing: f.Standing}
	s.granted.Store(limit.Unlimited)
	return s
}

// LeaseID is the id of the lease: the ledger's primary key.
func (s *Session) LeaseID() string { return s.facts.LeaseID }

// Key is the identity of the request.
func (s *Session) Key() *apikey.Key { return s.key }

// Endpoint is the canonical path.
func (s *Session) Endpoint() string { return s.facts.Endpoint }

// Standing is how the key stood with its limits in the last decision.
func (s *Session) Standing() Standing {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.standing
}

// next lets an event happen and returns the effects that the caller must perform.
// note, where there is one, writes what the event tells; it runs under the lock, and
// only when the event is legal. The error is a [*request.IllegalError].
func (s *Session) next(on request.Event, note func()) (request.Effects, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nextLocked(on, note)
}

// nextLocked is next. REQUIRES: mu held.
func (s *Session) nextLocked(on request.Event, note func()) (request.Effects, error) {
	old := s.state
	state, do, err := old.Next(on)
	if err != nil {
		return 0, err
	}
	s.state = state
	if note != nil {
		note()
	}
	if awaits := state.Awaits(); awaits != old.Awaits() && awaits != request.WaitNothing {
		s.waiting = time.Now()
	}
	if state.Stage == request.Closed && old.Stage != request.Closed {
		s.closedAt = time.Now()
	}
	return do, nil
}

// standsAt is the state now.
func (s *Session) standsAt() request.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// now is the time of the request's own clock, which began with the wall clock
// and does not step with it: a request never ends before its start.
func (s *Session) now() time.Time { return s.facts.Started.Add(time.Since(s.issued)) }

// FirstByte notes that the first byte of the answer's body has come.
func (s *Session) FirstByte() {
	if s.firstByte.Load() == 0 {
		s.firstByte.Store(int64(time.Since(s.issued)))
	}
}

// Progress reports the running counts; called for each chunk, it neither locks
// nor allocates.
func (s *Session) Progress(c usage.Counts) {
	if s.count(c.Prompt, c.Completion) {
		select {
		case s.flush <- struct{}{}:
		default:
		}
	}
}

// standingOf is what a decision says of the key's limits. The store knows no
// wall clock, so the end of the quota's period is filled in here.
func (s *Session) standingOf(d limit.Decision) Standing {
	st := Standing{Requests: d.Requests, Tokens: d.Tokens, Quota: d.Quota}
	if end := s.key.QuotaPeriod.End(s.facts.Started); st.Quota.Limit != limit.Unlimited && !end.IsZero() {
		st.Quota.Reset, st.QuotaResets = max(0, end.Sub(s.wall())), end
	}
	return st
}

func (s *Session) deny(r Reason) *DenialError {
	return &DenialError{Reason: r, Standing: s.Standing()}
}

// denial turns a store's refusal into the gate's; tokens is what was asked for,
// 0 at the arrival.
func (s *Session) denial(d limit.Decision, tokens int64) *DenialError {
	e := &DenialError{RetryAfter: d.RetryAfter, Standing: s.standingOf(d), Requested: tokens, Need: d.Need, Free: d.Free, Debt: d.Debt}
	switch d.Denied {
	case limit.Requests:
		e.Reason = RequestRate
	case limit.GlobalSlots:
		e.Reason, e.Cap = GlobalSlots, s.facts.Caps.Global
	case limit.KeySlots:
		e.Reason, e.Cap = KeySlots, s.facts.Caps.Concurrent
	case limit.TokensWindow:
		e.Reason = TokenRate
	case limit.Quota:
		e.Reason = QuotaSpent
		if d.RetryAfter > 0 {
			// Only reservations stand in the way: not spent yet, so worth a retry.
			e.Reason, e.Message = TokenRate, "The rest of the quota is reserved by running requests; try again when they end."
		}
	case limit.Admitted:
		e.Reason = Unavailable // unreachable: callers ask only after a refusal
	}
	return e
}

// seed loads the quota counter of the period in which the request started. Its
// end matters where the wall clock was set back: later rows are not of it.
func (s *Session) seed(ctx context.Context) error {
	period, started := s.key.QuotaPeriod, s.facts.Started
	used, err := s.ledger.Used(ctx, s.key.ID, period.Start(started), period.End(started))
	if err != nil {
		return fmt.Errorf("read used quota: %w", err)
	}
	return s.limits.Seed(ctx, s.key.ID, period.Name(started), used)
}
