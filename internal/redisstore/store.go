package redisstore

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/redis/rueidis"

	"tollgate/internal/limit"
)

const (
	// keyPrefix begins every key; the braces keep all keys in one slot.
	keyPrefix = "{tollgate}:"
	// renewInterval: a claimed lease of 15 s is renewed when this has passed,
	// so it survives two attempts that fail.
	renewInterval = 4 * time.Second
	// beatInterval is how often a replica says that it is there; one that is
	// silent for replicaLife is not counted (beat.lua).
	beatInterval = 2 * time.Second
	replicaLife  = 10 * time.Second
)

// Store is a [limit.Store] in Redis. See the package comment for what it does
// when Redis is away. Start it with [Open]; one goroutine, which Close ends,
// minds the connection.
type Store struct {
	client  rueidis.Client
	scripts *scripts
	base    string
	timeout time.Duration
	replica string
	renew   time.Duration
	log     hclog.Logger
	metrics *Metrics

	run      string // random
	marks    atomic.Uint64
	epoch    atomic.Pointer[string]
	replicas atomic.Int64 // last seen, this one included; at least 1
	fewer    time.Time    // owned by mind, like what follows: since when there seem to be fewer
	heard    int64        // replicas that Redis named last
	found    time.Time    // when Redis was found again in this outage

	// apart: this replica decides alone. gate is held for reading by every
	// decision made alone and for writing by the hand-over to Redis, so that
	// nothing is decided alone that Redis is not told. turn guards changes of
	// apart.
	apart atomic.Bool
	gate  sync.RWMutex
	turn  sync.Mutex
	since time.Time // guarded by turn, like what follows: when apart began
	// joined is when it last ended. pause is how long to wait before looking for
	// Redis: longer each time that it fails again soon.
	joined time.Time
	pause  time.Duration

	journal *journal
	shadow  *limit.Memory // this replica's own leases and use, always
	unsure  *batch        // owned by mind: sent, and no answer seen

	wake    chan struct{} // tells mind that the circuit opened or that leases were lost
	stop    context.CancelFunc
	stopped chan struct{} // closed when mind has ended
	closed  atomic.Bool
}

var _ limit.Store = (*Store)(nil)

// Open connects to Redis and joins the other replicas. It fails when Redis
// cannot be used: a replica that never saw its peers does not know its share,
// and a wrong address should be noticed at the start.
func Open(ctx context.Context, opts Options) (*Store, error) {
	clock := opts.clock
	if clock == "" {
		text, err := lua.ReadFile("lua/clock.lua")
		if err != nil {
			return nil, fmt.Errorf("read script: %w", err)
		}
		clock = string(text)
	}
	scripts, err := newScripts(clock)
	if err != nil {
		return nil, err
	}
	option, err := opts.client()
	if err != nil {
		return nil, fmt.Errorf("open redis store: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	client, err := connect(ctx, &option)
	if err != nil {
		return nil, fmt.Errorf("connect to redis: %w", err)
	}
	s := &Store{
		client: client, scripts: scripts,
		base:    cmp.Or(opts.prefix, keyPrefix),
		timeout: cmp.Or(opts.Timeout, DefaultTimeout),
		replica: cmp.Or(opts.Replica, rand.Text()),
		renew:   cmp.Or(opts.renewEvery, renewInterval),
		run:     rand.Text(),
		log:     opts.Log, metrics: opts.Metrics,
		journal: newJournal(), wake: make(chan struct{}, 1), stopped: make(chan struct{}),
	}
	if s.log == nil {
		s.log = hclog.NewNullLogger()
	}
	if s.metrics == nil {
		s.metrics = NewMetrics(nil)
	}
	s.shadow = limit.NewMemory(limit.OnExpire(func(id string) { s.journal.expired(id, !s.apart.Load()) }))
	if err := s.enter(ctx); err != nil {
		client.Close()
		return nil, fmt.Errorf("join the other replicas: %w", err)
	}
	mindCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	go s.mind(mindCtx)
	return s, nil
}

// Close ends the connection and takes this replica off the list, so that the
// others see it go. Leases that are not released stay
// until they expire. Afterwards every method answers [limit.ErrUnavailable].
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.stop()
	<-s.stopped
	if !s.apart.Load() {
		ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
		// One that is not removed goes by itself after 10 s.
		_ = s.client.Do(ctx, s.client.B().Zrem().Key(s.base+"replicas").Member(s.replica).Build()).Error()
		cancel()
	}
	s.client.Close()
	return s.shadow.Close()
}

// handOvers is how often a call that met an outage may find that it is over.
const handOvers = 3

// do runs a call: shared with Redis, and alone when Redis is away. Both report
// the answer of the call through variables of their own. A caller that leaves
// does not end a call, whose budget is short: what Redis did must be known.
func (s *Store) do(ctx context.Context, what string, shared func(ctx context.Context) error, alone func() error) error {
	for range handOvers {
		if s.closed.Load() {
			break
		}
		if !s.apart.Load() {
			within, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.timeout)
			err := shared(within)
			cancel()
			if !errors.Is(err, errOutage) {
				return wrap(what, err)
			}
			s.trip(err)
		}
		if done, err := s.decideAlone(alone); done {
			return wrap(what, err)
		}
	}
	return fmt.Errorf("%s: %w", what, limit.ErrUnavailable)
}

// decideAlone reports false when the outage is over.
func (s *Store) decideAlone(alone func() error) (bool, error) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	if !s.apart.Load() {
		return false, nil
	}
	return true, alone()
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
