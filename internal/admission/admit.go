package admission

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"tollgate/internal/apikey"
	"tollgate/internal/ledger"
	"tollgate/internal/limit"
	"tollgate/internal/request"
)

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
			return Ticket{}, &DenialError{Reason: AddressRate, RetryAfter: wait, Standing: noStanding, Cap: g.addresses.Rate()}
		}
	}
	if a.Refused != nil {
		return Ticket{}, a.Refused
	}
	if a.Class == Open {
		return Ticket{}, nil
	}
	key, secret, err := g.identify(a)
	if err != nil {
		return Ticket{}, err
	}
	if err := permit(key, a.Class); err != nil {
		return Ticket{}, err
	}
	if a.Class == Admin || a.Class == Engines || a.Class == Own {
		return Ticket{KeyID: key.ID}, nil
	}
	return g.issue(ctx, a, key, secret)
}

// Authorize returns the key of a request that may use routes of its class. It takes
// nothing of any limit and remembers nothing: for pages that make sure themselves of who
// asks. A refusal is a [*DenialError].
func (g *Gate) Authorize(a Arrival) (*apikey.Key, error) {
	key, _, err := g.identify(a)
	if err != nil {
		return nil, err
	}
	return key, permit(key, a.Class)
}

// permit refuses a key that may not use routes of the class.
func permit(key *apikey.Key, class Class) error {
	switch {
	case class == Admin && !key.Admin(), class == Engines && !key.Admin() && !key.Launcher():
		return Deny(NotAdmin)
	case key.Launcher() && class != Engines:
		d := Deny(NotAdmin)
		d.Message = "This key is a launcher's: all that it may do is to name its engine under /admin/engines."
		return d
	}
	return nil
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
func (g *Gate) issue(ctx context.Context, a Arrival, key *apikey.Key, digest [sha256.Size]byte) (Ticket, error) {
	wall, now := g.wall(), time.Now()
	s := newSession(&g.shared, Facts{
		LeaseID: newLeaseID(now), KeyID: key.ID, Secret: apikey.SecretIDOf(digest), Class: a.Class, Method: a.Method,
		Endpoint: a.Endpoint, RequestID: a.RequestID, Addr: a.Addr, Started: wall,
		Caps: key.Caps(g.caps, wall), Standing: noStanding, Trace: a.Trace,
	}, key, now)
	if key.TrustEndUser {
		s.facts.EndUser = a.EndUser
	}
	if _, err := s.next(request.OnArrived, nil); err != nil {
		return Ticket{}, err
	}
	d, err := s.acquire(ctx)
	if err != nil {
		return Ticket{}, fmt.Errorf("acquire: %w", err)
	}
	if d.Denied != limit.Admitted {
		return Ticket{}, s.denial(d, 0)
	}
	s.facts.Standing = s.standingOf(d)
	s.standing = s.facts.Standing // nobody else has the session yet
	if _, err := s.next(request.OnTicketed, nil); err != nil {
		return Ticket{}, err
	}
	if !g.sessions.issue(s) || ctx.Err() != nil {
		s.withdraw(ctx) // the proxy will not use this answer
		return Ticket{}, ErrGone
	}
	if !g.heldBy(s, g.keys.Current()) {
		// Revoked since it was looked up: [Gate.Revoke] may have gone through
		// the sessions before this one was among them.
		s.withdraw(ctx)
		return Ticket{}, Deny(InvalidKey)
	}
	return Ticket{LeaseID: s.facts.LeaseID, KeyID: key.ID, Standing: s.facts.Standing, session: s}, nil
}

// acquire asks the limits, loading the quota counter from the ledger when they do
// not know it yet.
func (s *Session) acquire(ctx context.Context) (limit.Decision, error) {
	ask := s.ask()
	d, err := s.limits.Acquire(ctx, ask)
	if !errors.Is(err, limit.ErrUnseeded) {
		return d, err
	}
	if err := s.seed(ctx); err != nil {
		return d, err
	}
	return s.limits.Acquire(ctx, ask)
}

// ask is what the request takes at its arrival.
func (s *Session) ask() limit.Ask {
	return limit.Ask{
		LeaseID: s.facts.LeaseID, KeyID: s.key.ID, Caps: s.facts.Caps,
		Slot: s.facts.Class == Inference || s.facts.Class == Counting, Tokens: s.facts.Class == Inference,
	}
}

// withdraw gives back what a request took that turned out to be of no use. When the
// proxy's log entry was first, it has done so already.
func (s *Session) withdraw(ctx context.Context) {
	_ = s.happen(ctx, request.OnWithdrawn, func() { s.refund = true })
}

// Claim turns a ticket into the session of one stream. A ticket is good once,
// for [limit.ProvisionalLife]; otherwise [ErrTicket].
func (g *Gate) Claim(ctx context.Context, leaseID string) (*Session, error) {
	s := g.sessions.get(leaseID)
	if s == nil || time.Since(s.issued) > limit.ProvisionalLife {
		return nil, ErrTicket
	}
	return g.claim(ctx, s, func() error { return g.limits.Claim(ctx, leaseID) })
}

// foreignLife is how old the ticket of another gateway may be, and how far its clock
// may be ahead.
const foreignLife = time.Minute

// ClaimFacts is [Gate.Claim] for the ticket of another gateway that shares the
// limits. A ticket of this gateway may be claimed with it too.
func (g *Gate) ClaimFacts(ctx context.Context, f Facts) (*Session, error) {
	if s := g.sessions.get(f.LeaseID); s != nil {
		return g.Claim(ctx, f.LeaseID)
	}
	ring := g.keys.Current()
	key, ok := ring.ByID(f.KeyID)
	if !ok {
		return nil, ErrTicket
	}
	// The clocks of two machines differ by a little: a ticket is not from the future,
	// and the limits know whether it has expired.
	age := g.wall().Sub(f.Started)
	if age > foreignLife || age < -foreignLife {
		return nil, ErrTicket
	}
	age = min(max(0, age), limit.ProvisionalLife)
	s := newSession(&g.shared, f, key, time.Now().Add(-age))
	if !g.sessions.add(s) {
		return nil, ErrTicket
	}
	s, err := g.claim(ctx, s, func() error { return g.limits.ClaimForeign(ctx, s.ask()) })
	if err == nil && !g.heldBy(s, ring) {
		s.cut(ctx, ledger.Revoked)
	}
	return s, err
}

// claim makes a stream the holder of a session; take claims its lease.
func (g *Gate) claim(ctx context.Context, s *Session, take func() error) (*Session, error) {
	if _, err := s.next(request.OnClaimed, func() { s.claimed = true }); err != nil {
		return nil, ErrTicket
	}
	g.metrics.active.Inc() // until the lease goes back, also where the claim fails
	g.sessions.claimed(s)
	err := take()
	if err == nil {
		return s, nil
	}
	unknown := errors.Is(err, limit.ErrLease)
	if unknown && g.replicas { // claimed at another gateway, which has the request
		g.metrics.active.Dec()
		_ = s.happen(ctx, request.OnElsewhere, nil) // nobody else ends a claim
		return nil, ErrTicket
	}
	s.withdraw(ctx)
	if unknown {
		return nil, ErrTicket
	}
	return nil, fmt.Errorf("claim lease: %w", err)
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
