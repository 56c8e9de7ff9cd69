package gateway

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"tollgate/internal/admin"
	"tollgate/internal/admission"
	"tollgate/internal/apikey"
	"tollgate/internal/redisstore"
	"tollgate/internal/replica"
	"tollgate/internal/ticket"
)

const (
	// ticketKeysEvery is how often the keys of tickets are asked for.
	ticketKeysEvery = time.Minute
	// foreignWord is between two log lines about tickets of others.
	foreignWord = time.Minute
)

// replicas are the other gateways that share the limits: what they issue is claimed
// here, and what they hold is found there.
type replicas struct {
	name   string
	store  *redisstore.Store // nil: this is the only one
	group  *replica.Group    // nil likewise
	gate   *admission.Gate
	sealer ticket.Sealer
	log    hclog.Logger

	mu    sync.Mutex
	asked time.Time // when the keys were asked for last; guarded by mu
	said  time.Time // when the log was told of a ticket that opens nothing; guarded by mu
}

// newReplicas joins a gate to the others.
func newReplicas(gate *admission.Gate, limits any, keys *apikey.Keyring, log hclog.Logger) *replicas {
	r := &replicas{name: rand.Text(), gate: gate, log: log}
	store, shared := limits.(*redisstore.Store)
	if !shared {
		return r
	}
	r.store, r.name = store, store.Name()
	r.group = replica.New(replica.Options{
		Bus: store, Gate: gate, Log: log,
		KeysChanged: func() {
			if _, err := keys.Reload(false); err != nil {
				log.Warn("another replica has changed keys, and they cannot be read here", "error", err)
			}
		},
	})
	return r
}

// witnesser is what hears the proxy's log.
type witnesser interface {
	Witness(w admission.Witness)
	ProxyGone()
}

// witness is what hears the proxy's log.
func (r *replicas) witness() witnesser {
	if r.group == nil {
		return r.gate
	}
	return r.group
}

// others are what the admin API asks; nil where there is none.
func (r *replicas) others() admin.Replicas {
	if r.group == nil {
		return nil
	}
	return r.group
}

// seal is what another replica needs to claim a ticket; nil where there is none.
func (r *replicas) seal() func(admission.Facts) string {
	if r.store == nil {
		return nil
	}
	return func(f admission.Facts) string {
		text, err := json.Marshal(f) //nolint:gosec // digits of a digest, and it is sealed
		if err != nil {
			r.log.Error("cannot seal a ticket", "error", err)
			return ""
		}
		return r.sealer.Seal(text)
	}
}

// Run listens to the others and keeps the keys of tickets until ctx ends.
func (r *replicas) Run(ctx context.Context) error {
	if r.group == nil {
		<-ctx.Done()
		return nil
	}
	var others sync.WaitGroup
	others.Go(func() { _ = r.group.Run(ctx) })
	defer others.Wait()
	lost := uint64(0)
	every := time.NewTicker(ticketKeysEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
		if err := r.readKeys(ctx); err != nil {
			r.log.Debug("tickets are sealed with the keys of before", "error", err)
		}
		if now := r.group.Lost(); now > lost {
			r.log.Warn("too much came at once to tell the other replicas all of it", "messages", now-lost)
			lost = now
		}
	}
}

// keysChanged tells the others, which look by themselves too, but later.
func (r *replicas) keysChanged() {
	if r.group != nil {
		go r.group.KeysChanged(context.Background())
	}
}

// start gets the keys of tickets: without them nobody could claim what this replica
// issues.
func (r *replicas) start(ctx context.Context) error {
	if r.store == nil {
		return nil
	}
	var err error
	for range 5 {
		if err = r.readKeys(ctx); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ErrStopped
		case <-time.After(time.Second):
		}
	}
	return err
}

// readKeys takes the keys of tickets from Redis.
func (r *replicas) readKeys(ctx context.Context) error {
	keys, err := r.store.TicketKeys(ctx, r.sealer.Current(), ticket.NewKey())
	if err != nil {
		return fmt.Errorf("read ticket keys: %w", err)
	}
	return r.sealer.Use(keys)
}

// readKeysAgain is readKeys for a ticket that no key opens, once a second at most.
func (r *replicas) readKeysAgain(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.asked) < time.Second {
		return nil // somebody has just asked
	}
	r.asked = time.Now()
	return r.readKeys(ctx)
}

// claim turns the ticket of another gateway into a session.
func (r *replicas) claim(ctx context.Context, t *ticket.Ticket) (*admission.Session, error) {
	if t.LeaseID == "" || t.Issuer == "" || t.Issuer == r.name {
		return nil, admission.ErrTicket
	}
	if r.store == nil {
		r.say("refused a ticket of another tollgate, or of this one before it was started again: with store.kind: memory " +
			"each Envoy needs one tollgate of its own; for several write store.kind: redis in all of them")
		return nil, admission.ErrTicket
	}
	text, err := r.sealer.Open(t.Facts)
	if errors.Is(err, ticket.ErrForeign) && r.readKeysAgain(ctx) == nil {
		text, err = r.sealer.Open(t.Facts)
	}
	var f admission.Facts
	if err == nil {
		err = json.Unmarshal(text, &f)
	}
	if err != nil || f.LeaseID != t.LeaseID {
		r.say("refused a ticket of another tollgate: it does not share this one's redis, or its facts are damaged")
		return nil, admission.ErrTicket
	}
	return r.gate.ClaimFacts(ctx, f)
}

// say warns once a minute at most.
func (r *replicas) say(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.said) >= foreignWord {
		r.said = time.Now()
		r.log.Warn(what)
	}
}
