package admission

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"tollgate/internal/apikey"
	"tollgate/internal/ledger"
	"tollgate/internal/limit"
)

// Class says what a route consumes.
type Class uint8

// The classes of routes.
const (
	// Open routes need no key and consume the address rate only: /health.
	Open Class = iota
	// Admin routes need an admin key and consume the address rate only.
	Admin
	// Own routes need any key and consume the address rate only: what a key may know
	// of itself, also when it has nothing left.
	Own
	// Listing routes consume a request, no slot and no tokens: the model list.
	Listing
	// Counting routes consume a request and a slot, no tokens: tokenize.
	Counting
	// Inference routes consume everything.
	Inference
)

// Arrival is what is known of a request before its body.
type Arrival struct {
	Class     Class
	Method    string
	Endpoint  string // canonical path, for records
	RequestID string
	Addr      netip.Addr
	// Authorization and APIKey are the values of the two credential headers as
	// they came. They are dropped as soon as the key is known.
	Authorization, APIKey []string
	// Local: the client is on this machine by everything it said (loopback peer
	// and Host, no forwarding header, no foreign Origin, no trusted proxies).
	// Only then the public default key is honoured.
	Local bool
	// Refused is what the adapter refuses by the request's own shape. It costs the
	// rate of the address and is decided before everything else.
	Refused *DenialError
}

// Ticket is the answer to an arrival that may pass.
type Ticket struct {
	// LeaseID names the provisional lease that the stream must claim within
	// [limit.ProvisionalLife]; "" on routes that open no stream.
	LeaseID string
	KeyID   string // "" on open routes
	// Insider, on open routes: the client is on this machine ([Arrival.Local]) or
	// has an admin key, and may see what the page hides from strangers.
	Insider  bool
	Standing // of the key, as the decision left it
}

// ErrGone ends an admission whose answer nobody would use.
var ErrGone = errors.New("the client has left, or the gateway is stopping")

// ErrTicket says that the ticket is unknown, expired or used already.
var ErrTicket = errors.New("ticket is unknown or expired")

// Keys is where identities come from.
type Keys interface {
	Current() *apikey.Ring
}

// Catalog knows the models that the engines serve.
type Catalog interface {
	// Model returns the context length of a served name in tokens (0 = unknown)
	// and whether the name may be asked for.
	Model(name string) (maxLen int64, ok bool)
	// Names lists the served names, in no order. Only refusals ask for it.
	Names() []string
	// Ready reports whether at least one engine can answer.
	Ready() bool
	// Only is the address of the engine when there is exactly one, else "".
	Only() string
}

// Options are what a [Gate] is made of. Keys, Limits, Ledger, Catalog,
// Estimator and Metrics must be set.
type Options struct {
	Keys      Keys
	Limits    limit.Store
	Addresses *limit.Addresses // nil: no rate per address
	Ledger    ledger.Store
	Catalog   Catalog
	Estimator *limit.Estimator
	Metrics   *Metrics
	Log       hclog.Logger
	// Caps are the global limits: Global and the defaults per key.
	Caps limit.Caps
	// Generated reads what the engines have generated so far; nil: nobody knows,
	// and what a client left behind unseen is charged by the usual speed.
	Generated func(ctx context.Context) (Generation, error)
	// Wall is the wall clock of key expiry and quota periods; nil is [time.Now].
	Wall func() time.Time
	// Access receives one record per request that the proxy has logged; nil
	// drops them. It must not block.
	Access func(Access)
}

// Gate decides who passes and keeps what passes. Its zero value is not usable.
type Gate struct {
	keys      Keys
	limits    limit.Store
	addresses *limit.Addresses
	ledger    ledger.Store
	catalog   Catalog
	estimate  *limit.Estimator
	metrics   *Metrics
	log       hclog.Logger
	caps      limit.Caps
	wall      func() time.Time
	access    func(Access)
	unseen    *unseen

	mu        sync.Mutex
	sessions  map[string]*Session  // by lease id, until finished; guarded by mu
	tickets   tickets              // guarded by mu
	draining  bool                 // guarded by mu
	proxyGone time.Time            // when the proxy was last seen to die; guarded by mu
	alone     map[string]time.Time // leases whose record was written without a log entry, and when; guarded by mu

	flush chan struct{} // a stream has outrun its checkpoint

	pendingMu sync.Mutex
	pending   []*Session // whose settlement the ledger refused; guarded by pendingMu
}

// NewGate returns a gate; [Gate.Run] must run beside it.
func NewGate(o Options) *Gate {
	if o.Wall == nil {
		o.Wall = time.Now
	}
	if o.Access == nil {
		o.Access = func(Access) {}
	}
	if o.Log == nil {
		o.Log = hclog.NewNullLogger()
	}
	return &Gate{
		keys: o.Keys, limits: o.Limits, addresses: o.Addresses, ledger: o.Ledger,
		catalog: o.Catalog, estimate: o.Estimator, metrics: o.Metrics, log: o.Log,
		caps: o.Caps, wall: o.Wall, access: o.Access,
		sessions: make(map[string]*Session),
		tickets:  newTickets(),
		alone:    make(map[string]time.Time),
		flush:    make(chan struct{}, 1),
		unseen:   newUnseen(o.Generated),
	}
}

// Admit decides over an arrival in this order: address rate,
// credential, key state, route permission, then everything the request takes,
// at once. A refusal is a [*DenialError]; any other error means that the gate
// could not decide.
func (g *Gate) Admit(ctx context.Context, a Arrival) (Ticket, error) {
	t, err := g.admit(ctx, a)
	var denied *DenialError
	switch {
	case err == nil:
		g.metrics.decided("admitted")
	case errors.As(err, &denied):
		g.metrics.decided(denied.Reason)
	default:
		g.metrics.decided(Unavailable)
	}
	return t, err
}

func (g *Gate) admit(ctx context.Context, a Arrival) (Ticket, error) {
	if g.addresses != nil {
		if ok, wait := g.addresses.Allow(a.Addr); !ok {
			return Ticket{}, &DenialError{Reason: AddressRate, RetryAfter: wait, Standing: nothing, Cap: g.addresses.Rate()}
		}
	}
	if a.Refused != nil {
		return Ticket{}, a.Refused
	}
	if a.Class == Open {
		return Ticket{Insider: g.insider(a)}, nil
	}
	key, secret, err := g.identify(a)
	if err != nil {
		return Ticket{}, err
	}
	a.Authorization, a.APIKey = nil, nil
	if a.Class == Admin {
		if !key.Admin() {
			return Ticket{}, Deny(NotAdmin)
		}
		return Ticket{KeyID: key.ID}, nil
	}
	if a.Class == Own {
		return Ticket{KeyID: key.ID}, nil
	}
	return g.issue(ctx, a, key, secret)
}

// insider reports whether an open route may tell the client all it knows. No
// credential is needed there, so a bad one is only no reason.
func (g *Gate) insider(a Arrival) bool {
	if a.Local {
		return true
	}
	key, _, err := g.identify(a)
	return err == nil && key.Admin()
}

// identify turns the credential into a key and the digest of the secret that
// opened it. Unknown, disabled and expired keys are one refusal.
func (g *Gate) identify(a Arrival) (key *apikey.Key, digest [sha256.Size]byte, err error) {
	secret, err := apikey.ParseCredential(a.Authorization, a.APIKey)
	switch {
	case errors.Is(err, apikey.ErrMissing):
		return nil, digest, Deny(MissingKey)
	case err != nil:
		return nil, digest, Deny(MalformedKey)
	}
	digest = apikey.Digest(secret)
	key, ok := g.keys.Current().LookupDigest(digest, g.wall())
	if !ok || (key.Default && !a.Local) {
		d := Deny(InvalidKey)
		// Of what was sent, not of what the key file holds: nobody learns whether
		// the key exists.
		d.DefaultKey = secret == apikey.DefaultSecret
		return nil, digest, d
	}
	return key, digest, nil
}

// issue takes all that the request needs and remembers the ticket.
func (g *Gate) issue(ctx context.Context, a Arrival, key *apikey.Key, secret [sha256.Size]byte) (Ticket, error) {
	wall := g.wall()
	s := &Session{
		gate: g, leaseID: newLeaseID(time.Now()), arrival: a, key: key, secret: secret,
		caps: key.Caps(g.caps, wall), issued: time.Now(), wallStart: wall,
		standing: nothing,
	}
	ask := limit.Ask{
		LeaseID: s.leaseID, KeyID: key.ID, Caps: s.caps,
		Slot: a.Class == Inference || a.Class == Counting, Tokens: a.Class == Inference,
	}
	s.granted.Store(limit.Unlimited)
	d, err := g.acquire(ctx, ask, s)
	if err != nil {
		return Ticket{}, fmt.Errorf("acquire: %w", err)
	}
	if d.Denied != limit.Admitted {
		return Ticket{}, s.denial(d, 0)
	}
	s.standing = s.standingOf(d)
	if !g.remember(s) || ctx.Err() != nil {
		// The proxy will not use this answer: give everything back now.
		g.forget(s)
		s.release(ctx, limit.Final{GiveBackRequest: true})
		return Ticket{}, ErrGone
	}
	if !s.heldBy(g.keys.Current()) {
		// Revoked since it was looked up: [Gate.Revoke] may have gone through
		// the sessions before this one was among them.
		g.forget(s)
		s.release(ctx, limit.Final{GiveBackRequest: true})
		return Ticket{}, Deny(InvalidKey)
	}
	return Ticket{LeaseID: s.leaseID, KeyID: key.ID, Standing: s.standing}, nil
}

// acquire asks the store, loading the quota counter from the ledger when the
// store does not know it yet.
func (g *Gate) acquire(ctx context.Context, ask limit.Ask, s *Session) (limit.Decision, error) {
	d, err := g.limits.Acquire(ctx, ask)
	if !errors.Is(err, limit.ErrUnseeded) {
		return d, err
	}
	if err := g.seed(ctx, s.key, s.wallStart); err != nil {
		return d, err
	}
	return g.limits.Acquire(ctx, ask)
}

// seed loads the quota counter of the period in which a request started. Its
// end matters where the wall clock was set back: later rows are not of it.
func (g *Gate) seed(ctx context.Context, key *apikey.Key, started time.Time) error {
	used, err := g.ledger.Used(ctx, key.ID, key.QuotaPeriod.Start(started), key.QuotaPeriod.End(started))
	if err != nil {
		return fmt.Errorf("read used quota: %w", err)
	}
	return g.limits.Seed(ctx, key.ID, key.QuotaPeriod.Name(started), used)
}

// remember keeps a session; false when the gate is closing or the client has
// left.
func (g *Gate) remember(s *Session) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.draining || !g.tickets.issue(s) {
		return false
	}
	g.sessions[s.leaseID] = s
	return true
}

func (g *Gate) forget(s *Session) {
	g.mu.Lock()
	delete(g.sessions, s.leaseID)
	g.tickets.void(s)
	g.mu.Unlock()
}

// witnessed finds the session of a log entry; nil when there is none.
func (g *Gate) witnessed(w Witness) *Session {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w.LeaseID != "" {
		return g.sessions[w.LeaseID]
	}
	return g.tickets.leave(w)
}

func (g *Gate) session(leaseID string) *Session {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sessions[leaseID]
}

// Claim turns a ticket into the session of one stream. A ticket is good once,
// for [limit.ProvisionalLife]; otherwise [ErrTicket].
func (g *Gate) Claim(ctx context.Context, leaseID string) (*Session, error) {
	s := g.session(leaseID)
	if s == nil || !s.claim() {
		return nil, ErrTicket
	}
	g.metrics.active.Inc() // until its release, also where the claim fails
	g.mu.Lock()
	g.tickets.void(s)
	g.mu.Unlock()
	if err := g.limits.Claim(ctx, leaseID); err != nil {
		g.forget(s)
		s.release(ctx, limit.Final{GiveBackRequest: true})
		if errors.Is(err, limit.ErrLease) {
			return nil, ErrTicket
		}
		return nil, fmt.Errorf("claim lease: %w", err)
	}
	return s, nil
}

// newLeaseID is the time in milliseconds (48 bits) and 80 random bits, in hex:
// unforgeable, and in the order of arrival, so that the ledger writes its newest
// rows side by side.
func newLeaseID(now time.Time) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(now.UnixMilli())<<16)
	_, _ = rand.Read(b[6:]) // never fails (crypto/rand aborts the program instead)
	return hex.EncodeToString(b[:])
}
