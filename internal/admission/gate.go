package admission

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/hashicorp/go-hclog"

	"tollgate/internal/apikey"
	"tollgate/internal/ledger"
	"tollgate/internal/limit"
	"tollgate/internal/trace"
	"tollgate/internal/usage"
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
	// EndUser is the person for whom the request is, as its client says, fit to be kept.
	// It counts where the key is trusted to say it ([apikey.Key]).
	EndUser string
	// Local: the client is on this machine by everything it said (loopback peer
	// and Host, no forwarding header, no foreign Origin, no trusted proxies).
	// Only then the public default key is honoured.
	Local bool
	// Trace is the identity of the request's span; none where it is not traced.
	Trace trace.Span
	// Refused is what the adapter refuses by the request's own shape. It costs the
	// rate of the address and is decided before everything else.
	Refused *DenialError
}

// Ticket is the answer to an arrival that may pass.
type Ticket struct {
	// LeaseID names the provisional lease that the stream must claim within
	// [limit.ProvisionalLife]; "" on routes that open no stream.
	LeaseID  string
	KeyID    string // "" on open routes
	Standing        // of the key, as the decision left it

	session *Session
}

// Facts are what another gateway needs to claim this ticket with
// [Gate.ClaimFacts]. The zero value where there is no lease.
func (t Ticket) Facts() Facts {
	if t.session == nil {
		return Facts{}
	}
	return t.session.facts
}

// ErrGone ends an admission whose answer nobody would use.
var ErrGone = errors.New("the client has left, or the gateway is stopping")

// ErrTicket says that the ticket is unknown, expired or used already.
var ErrTicket = errors.New("ticket is unknown or expired")

// Keys is where identities come from.
type Keys interface {
	Current() *apikey.Ring
}

// Options are what a [Gate] is made of. Keys, Limits, Ledger, Catalog,
// Estimator and Metrics must be set.
type Options struct {
	Keys      Keys
	Limits    limit.Store
	Addresses *limit.Addresses // nil: no rate per address
	Ledger    ledger.Store
	Catalog   Catalog
	// Placing says what names stand for and which engine gets a request.
	Placing   Placing
	Estimator *limit.Estimator
	Metrics   *Metrics
	Log       hclog.Logger
	// Caps are the global limits: Global and the defaults per key.
	Caps limit.Caps
	// Generated reads what the engines have generated so far; nil: nobody knows,
	// and what a client left behind unseen is charged by the usual speed.
	Generated func(ctx context.Context) (Generation, error)
	// Remember keeps what the next gate must know to charge answers that outlive this
	// one; Recalled is what the one before has kept. nil: nobody keeps anything.
	Remember func([]byte) error
	Recalled []byte
	// Wall is the wall clock of key expiry and quota periods; nil is [time.Now].
	Wall func() time.Time
	// Access receives one record per request that the proxy has logged; nil
	// drops them. It must not block.
	Access func(Access)
	// Shared: other gateways share the limits, and may claim the tickets of this one.
	// The access record of a lease that is not known here is theirs.
	Shared bool
	// Format is the shape of the answers of an endpoint, for requests that are
	// attached from the ledger; nil: all are chats.
	Format func(endpoint string) usage.Format
}

// Gate decides who passes and keeps what passes. Its zero value is not usable.
type Gate struct {
	shared
	keys      Keys
	addresses *limit.Addresses
	caps      limit.Caps
	sessions  sessions
	debts     debts
	remember  func([]byte) error
	format    func(endpoint string) usage.Format
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
	if o.Format == nil {
		o.Format = func(string) usage.Format { return usage.Chat }
	}
	g := &Gate{
		shared: shared{
			limits: o.Limits, ledger: o.Ledger, catalog: o.Catalog, placing: o.Placing, estimate: o.Estimator, metrics: o.Metrics,
			log: o.Log, attribution: newAttribution(o.Generated), wall: o.Wall, access: o.Access, replicas: o.Shared, flush: make(chan struct{}, 1),
		},
		keys: o.Keys, addresses: o.Addresses, caps: o.Caps, format: o.Format, sessions: newSessions(),
		remember: o.Remember,
	}
	g.attribution.recall(o.Recalled)
	g.forget, g.owe = g.sessions.forget, g.debts.add
	return g
}
