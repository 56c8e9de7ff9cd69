package admission

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"tollgate/internal/apikey"
	"tollgate/internal/ledger"
	"tollgate/internal/limit"
	"tollgate/internal/usage"
)

// Order is what a request asks for, known from its body.
type Order struct {
	Model       string
	Format      usage.Format
	Stream      bool
	N, Prompts  int   // choices per prompt, prompts; both at least 1
	PromptBytes int64 // bytes of the text that will be tokenized
	MaxTokens   int64 // bound per choice, or -1
	MinTokens   int64 // least per choice
}

// stage is where a session stands. It only grows.
type stage uint8

const (
	provisional stage = iota // a ticket that nobody has claimed
	live                     // a stream holds it
	closed                   // the stream has ended; the proxy's log entry is awaited
)

// Session is one admitted request, from its ticket to its last witness. One
// stream drives it (Reserve, FirstByte, Progress, Settle, Close, in this
// order); the gate may cut it from outside at any time.
type Session struct {
	gate      *Gate
	leaseID   string
	arrival   Arrival // without credentials
	key       *apikey.Key
	secret    [sha256.Size]byte // digest of the secret that opened it
	caps      limit.Caps        // its quota period is the one of the start, to the end
	issued    time.Time         // monotonic
	wallStart time.Time

	// prompt and completion are the running counts, written for each chunk by
	// the stream and read by the gate's flusher.
	prompt, completion atomic.Int64
	flushed            atomic.Int64 // completion at the last checkpoint
	written            atomic.Int64 // prompt + completion at the last checkpoint
	firstByte          atomic.Int64 // monotonic ns after issued; 0 = none yet

	granted atomic.Int64 // tokens that the quota lets it use in all; below 0: no quota
	bound   int64        // output per choice to be sent with, 0: the client's own; of the stream alone
	lowered bool         // the client had asked for more
	// prompted is what was held for the prompt; of the stream alone.
	prompted int64

	maker *maker // of an answer whose tokens show at its end; set before the answer begins

	most bounds // of the order: the stream writes it before the answer begins, then only reads

	mu        sync.Mutex
	stage     stage // guarded by mu, like all that follows
	claimed   bool  // a stream has held it
	order     Order
	standing  Standing // as of the last decision
	reserved  int64
	intent    bool // the ledger has the intent
	settling  bool // somebody settles or has settled
	record    *ledger.Record
	owed      *ledger.Settlement // what the ledger has refused for now
	released  bool
	giveBack  bool // the request did not count against the key
	cutReason ledger.EndReason
	until     time.Time // when the secret or its key expires; zero: never
	onCut     func()
	closedAt  time.Time
	witness   *Witness
	witnessAt time.Time
	finished  bool
	counted   bool  // metrics have the settlement
	unbilled  int64 // output that nobody saw, charged where the client ended the request
}

// LeaseID is the id of the lease: the ledger's primary key.
func (s *Session) LeaseID() string { return s.leaseID }

// Key is the identity of the request.
func (s *Session) Key() *apikey.Key { return s.key }

// Endpoint is the canonical path.
func (s *Session) Endpoint() string { return s.arrival.Endpoint }

// Standing is how the key stood with its limits in the last decision.
func (s *Session) Standing() Standing {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.standing
}

func (s *Session) claim() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stage != provisional || time.Since(s.issued) > limit.ProvisionalLife {
		return false
	}
	s.stage, s.claimed = live, true
	return true
}

// OnCut names what ends the stream when the request is cut from outside. It is
// called at most once, from another goroutine, at once if the cut came first.
func (s *Session) OnCut(fn func()) {
	s.mu.Lock()
	cut := s.cutReason != ""
	if !cut {
		s.onCut = fn
	}
	s.mu.Unlock()
	if cut {
		fn()
	}
}

// Reserve checks the model, reserves the estimated tokens and writes the
// intent: after it the request may be sent to vLLM. A refusal is a
// [*DenialError] and has given back what docs/limits.md says; any other error means
// that the request could not be recorded. Either way nothing may be sent.
func (s *Session) Reserve(ctx context.Context, o Order) error {
	err := s.reserve(ctx, o)
	var denied *DenialError
	switch {
	case err == nil:
	case errors.As(err, &denied):
		s.gate.metrics.decided(denied.Reason)
		// The client's own mistakes keep their request.
		s.refund(!denied.Reason.clientsOwn())
	default:
		s.gate.metrics.decided(Unavailable)
		s.refund(true)
	}
	return err
}

// Refused records that the stream refuses the request by itself (a body that
// does not parse) before anything was reserved. Like every mistake of the
// client it keeps its request.
func (s *Session) Refused(r Reason) {
	s.gate.metrics.decided(r)
	s.refund(!r.clientsOwn())
}

func (s *Session) refund(giveBack bool) {
	s.mu.Lock()
	s.giveBack = giveBack
	s.mu.Unlock()
}

func (s *Session) reserve(ctx context.Context, o Order) error {
	g := s.gate
	if !g.catalog.Ready() {
		return s.deny(EngineUnavailable)
	}
	maxLen, known := g.catalog.Model(o.Model)
	if !known || !s.key.Allows(o.Model) {
		d := s.deny(ModelUnknown)
		d.Param, d.Model, d.Nearest = "model", o.Model, nearest(o.Model, g.catalog.Names(), s.key)
		return d
	}
	var tokens int64
	if o.Format != usage.Free {
		estimate := g.estimate.Estimate(s.sample(o, maxLen))
		tokens = estimate.Total()
		hold := holdOf(o, estimate, maxLen)
		granted, err := s.take(ctx, reservationOf(o, estimate, hold))
		if err != nil {
			return err
		}
		s.grant(o, hold, granted, maxLen)
	}
	s.mu.Lock()
	s.order, s.reserved, s.most = o, tokens, boundsOf(o, maxLen)
	cut := s.cutReason != ""
	s.mu.Unlock()
	if cut {
		return s.deny(Cancelled)
	}
	if err := g.ledger.Begin(ctx, s.intentOf(o, tokens)); err != nil {
		if !errors.Is(err, ledger.ErrUnavailable) {
			s.withdraw(ctx)
		}
		return fmt.Errorf("write intent: %w", err)
	}
	if o.generates() {
		g.unseen.join(ctx, s, o)
	}
	s.mu.Lock()
	s.intent = true
	s.mu.Unlock()
	return nil
}

// withdraw ends an intent that may have been written although its caller did
// not wait for it (the client left meanwhile): nothing was sent to vLLM.
func (s *Session) withdraw(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	st := ledger.Settlement{
		LeaseID: s.leaseID, EndedAt: s.now(), Reason: ledger.Refused, Quality: ledger.Exact,
		Counts: usage.Counts{Cached: usage.Unsaid, Reasoning: usage.Unsaid},
	}
	if _, _, err := s.gate.ledger.Settle(ctx, st); err != nil && !errors.Is(err, ledger.ErrUnknown) {
		s.owe(st)
	}
}

// reservationOf is what a request takes beside its lease: a slot for each
// sequence that it generates, and its tokens.
func reservationOf(o Order, e limit.Estimate, hold limit.Hold) limit.Reservation {
	r := limit.Reservation{Tokens: e.Total(), Slots: 1, Hold: hold}
	if o.generates() {
		r.Slots = o.choices()
	}
	return r
}

// generates: the answer is made token by token. Embeddings and scores are not.
func (o Order) generates() bool {
	switch o.Format {
	case usage.Chat, usage.Completions, usage.Responses, usage.Messages:
		return true
	case usage.Pooling, usage.Free:
	}
	return false
}

// take reserves slots and tokens in the key's window and quota; granted is what
// the quota lets the request use in all.
func (s *Session) take(ctx context.Context, r limit.Reservation) (granted int64, err error) {
	g := s.gate
	d, err := g.limits.Reserve(ctx, s.leaseID, s.caps, r)
	if errors.Is(err, limit.ErrUnseeded) {
		if err = g.seed(ctx, s.key, s.wallStart); err == nil {
			d, err = g.limits.Reserve(ctx, s.leaseID, s.caps, r)
		}
	}
	if err != nil {
		return 0, fmt.Errorf("reserve: %w", err)
	}
	s.mu.Lock()
	s.standing = s.standingOf(d)
	s.mu.Unlock()
	if d.Denied != limit.Admitted {
		return 0, s.denial(d, r.Tokens)
	}
	return d.Granted, nil
}

func (s *Session) deny(r Reason) *DenialError {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &DenialError{Reason: r, Standing: s.standing}
}

// sample is what the estimator may know of the request.
func (s *Session) sample(o Order, maxLen int64) limit.Sample {
	maxTokens := o.MaxTokens
	if o.Format == usage.Pooling {
		maxTokens = 0 // no output
	}
	return limit.Sample{
		KeyID: s.key.ID, Model: o.Model, PromptBytes: o.PromptBytes,
		N: o.N, Prompts: o.Prompts, MaxTokens: maxTokens, Context: maxLen,
	}
}

func (s *Session) intentOf(o Order, tokens int64) ledger.Intent {
	return ledger.Intent{
		LeaseID: s.leaseID, RequestID: s.arrival.RequestID, KeyID: s.key.ID, User: s.key.User,
		Model: o.Model, Endpoint: s.arrival.Endpoint, Engine: s.gate.catalog.Only(),
		Stream: o.Stream, N: o.N, Prompts: o.Prompts, StartedAt: s.wallStart,
		Reserved: tokens, ClientAddr: s.arrival.Addr.String(), RequestedModel: o.Model,
	}
}

// now is the time of the request's own clock, which began with the wall clock
// and does not step with it: a request never ends before its start.
func (s *Session) now() time.Time { return s.wallStart.Add(time.Since(s.issued)) }

// FirstByte notes that the first byte of the answer's body has come.
func (s *Session) FirstByte() {
	if s.firstByte.Load() == 0 {
		s.firstByte.Store(int64(time.Since(s.issued)))
	}
}

// checkpointTokens is how many tokens a stream may run ahead of its
// checkpoint before the flusher is woken (every 64 tokens or 250 ms).
const checkpointTokens = 64

// Progress reports the running counts; called for each chunk, it neither locks
// nor allocates.
func (s *Session) Progress(c usage.Counts) {
	if c.Prompt >= 0 && c.Prompt <= s.most.prompt {
		s.prompt.Store(c.Prompt)
	}
	if c.Completion < 0 || c.Completion > s.most.completion {
		return
	}
	s.completion.Store(c.Completion)
	if c.Completion-s.flushed.Load() >= checkpointTokens {
		select {
		case s.gate.flush <- struct{}{}:
		default:
		}
	}
}

// release gives the lease back; calls after the first do nothing.
func (s *Session) release(ctx context.Context, f limit.Final) {
	s.mu.Lock()
	done := s.released
	s.released = true
	claimed := s.claimed
	s.mu.Unlock()
	if done {
		return
	}
	if claimed {
		s.gate.metrics.active.Dec()
	}
	f.QuotaPeriod = s.caps.QuotaPeriod
	// The stream's context may be dead by now, and the lease must not outlive it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	if _, err := s.gate.limits.Release(ctx, s.leaseID, f); err != nil {
		s.gate.log.Warn("cannot release lease, it expires by itself", "lease_id", s.leaseID, "error", err)
	}
}

// releaseTimeout bounds a release; settleTimeout a settlement at a stream's end.
const (
	releaseTimeout = 2 * time.Second
	settleTimeout  = 5 * time.Second
)
