package redisstore

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"tollgate/internal/limit"
)

const (
	// keyPrefix begins every key; the braces keep all keys in one slot.
	keyPrefix = "{tollgate}:"
	// renewInterval: a claimed lease of 15 s is renewed when this has passed,
	// so it survives two attempts that fail.
	renewInterval = 4 * time.Second
)

// Store is a [limit.Store] in Redis. See the package comment for what it does
// when Redis is away. Start it with [Open]; one goroutine, which Close ends,
// maintains the connection.
type Store struct {
	timeout time.Duration // of one call
	replica string
	renew   time.Duration // between two renewals of a lease

	conn       *conn
	circuit    *circuit
	journal    *journal
	local      *local
	maintainer *maintainer
	stop       context.CancelFunc // ends the maintainer
}

var _ limit.Store = (*Store)(nil)

// ErrOptions says that options are wrong: trying again does not help.
var ErrOptions = errors.New("options of redis are wrong")

// Open connects to Redis and joins the other replicas. It tries once, for 5 s, and
// fails when Redis cannot be used: a replica that never saw its peers does not know
// its share. Errors: also [ErrOptions].
func Open(ctx context.Context, opts Options) (*Store, error) {
	scripts, err := opts.scripts()
	if err != nil {
		return nil, err
	}
	option, err := opts.client()
	if err != nil {
		return nil, fmt.Errorf("open redis store: %w: %w", ErrOptions, err)
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	client, err := connect(ctx, &option)
	if err != nil {
		return nil, fmt.Errorf("connect to redis: %w", err)
	}
	s := newStore(newConn(client, scripts, cmp.Or(opts.prefix, keyPrefix)), &opts)
	if err := s.maintainer.probe(ctx); err != nil {
		client.Close()
		return nil, fmt.Errorf("join the other replicas: %w", err)
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	go s.maintainer.run(running)
	return s, nil
}

func newStore(c *conn, opts *Options) *Store {
	j, p := newJournal(), &peers{}
	s := &Store{
		timeout: cmp.Or(opts.Timeout, DefaultTimeout),
		replica: cmp.Or(opts.Replica, rand.Text()),
		renew:   cmp.Or(opts.renewEvery, renewInterval),
		conn:    c, journal: j,
	}
	s.circuit = newCircuit(s.timeout, j.outageBegins)
	expired := func(leaseID string) { j.expired(leaseID, s.circuit.state() == shared) }
	s.local = &local{memory: limit.NewMemory(limit.OnExpire(expired)), journal: j, peers: p}
	s.maintainer = &maintainer{
		conn: c, journal: j, circuit: s.circuit, peers: p,
		metrics: opts.Metrics, log: opts.Log, replica: s.replica, timeout: s.timeout, renew: s.renew,
		wake: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	if opts.Log == nil {
		s.maintainer.log = hclog.NewNullLogger()
	}
	if opts.Metrics == nil {
		s.maintainer.metrics = NewMetrics(nil)
	}
	return s
}

// Close ends the connection and takes this replica off the list, so that the
// others see it go. Leases that are not released stay
// until they expire. Afterwards every method answers [limit.ErrUnavailable].
func (s *Store) Close() error {
	was := s.circuit.state()
	if !s.maintainer.on(closing) {
		return nil
	}
	s.stop()
	<-s.maintainer.ended
	if was == shared {
		ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
		s.conn.leave(ctx, s.replica)
		cancel()
	}
	s.conn.client.Close()
	return s.local.memory.Close()
}

// attempts is how often a call that met an outage may find that it is over.
const attempts = 3

// do runs a call: shared with Redis, and here when Redis is away. Both report
// the answer of the call through variables of their own. A caller that leaves
// does not end a call, whose budget is short: what Redis did must be known.
func (s *Store) do(ctx context.Context, what string, inRedis func(ctx context.Context) error, here func() error) error {
	for range attempts {
		switch s.circuit.state() {
		case shared:
			within, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.timeout)
			err := inRedis(within)
			cancel()
			if !errors.Is(err, errOutage) {
				return wrap(what, err)
			}
			s.maintainer.failed(err)
		case stopped:
			return fmt.Errorf("%s: %w", what, limit.ErrUnavailable)
		case partitioned, returning, handover, states:
		}
		if done, err := s.decideHere(here); done {
			return wrap(what, err)
		}
	}
	return fmt.Errorf("%s: %w", what, limit.ErrUnavailable)
}

// decideHere reports false when there is no outage any more.
func (s *Store) decideHere(here func() error) (bool, error) {
	s.maintainer.deciding.RLock()
	defer s.maintainer.deciding.RUnlock()
	if !s.circuit.decidesHere() {
		return false, nil
	}
	return true, here()
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
