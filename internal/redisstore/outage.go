package redisstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/rueidis"
)

const (
	// probeInterval is how often Redis is looked for during an outage.
	probeInterval = 500 * time.Millisecond
	// longestPause is how long Redis is left alone when it comes and goes. With
	// it a replica is back within 5 s of Redis.
	longestPause = 4 * time.Second
	// steady is how long Redis must have been there to be trusted as before.
	steady = 10 * time.Second
	// probeTimeout bounds one look, connecting included.
	probeTimeout = 2 * time.Second
	// peerPatience is how long a replica that found Redis waits for those that it
	// saw before the outage. They look every probeInterval.
	peerPatience = 2 * time.Second
	// sweepInterval is how often what is too old is dropped from the journal.
	sweepInterval = 30 * time.Second
)

// trip opens the circuit: from now on this replica decides alone.
func (s *Store) trip(err error) {
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.apart.Load() || s.closed.Load() {
		return
	}
	s.since = time.Now()
	if s.since.Sub(s.joined) < steady {
		s.pause = min(2*s.pause, longestPause)
	} else {
		s.pause = max(s.timeout, probeInterval/2) // calls that were sent before are over by then
	}
	s.journal.alone()
	s.apart.Store(true)
	s.metrics.partitioned.Set(1)
	s.log.Warn("store is out of reach, limits are kept by own share", "replicas", s.replicas.Load(), "error", err)
	s.rouse()
}

// firstPause is how long to wait before Redis is looked for; 0 when it is there.
func (s *Store) firstPause() time.Duration {
	s.turn.Lock()
	defer s.turn.Unlock()
	if !s.apart.Load() {
		return 0
	}
	return s.pause
}

// rouse makes mind look at once what there is to do.
func (s *Store) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// mind says that this replica is there, notices when Redis is not, and looks
// for it then. It ends with ctx.
func (s *Store) mind(ctx context.Context) {
	defer close(s.stopped)
	timer := time.NewTimer(beatInterval)
	defer timer.Stop()
	swept := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
			if pause := s.firstPause(); pause > 0 {
				timer.Reset(pause)
				continue
			}
		case <-timer.C:
		}
		if time.Since(swept) >= sweepInterval {
			swept = time.Now()
			s.journal.sweep()
		}
		if s.apart.Load() && s.rejoin(ctx) != nil {
			timer.Reset(probeInterval)
			continue
		}
		if err := s.beat(ctx); err != nil && ctx.Err() == nil {
			s.trip(err)
		}
		timer.Reset(beatInterval)
	}
}

// beat says that this replica is there and sends what is pending.
func (s *Store) beat(ctx context.Context) error {
	for {
		within, cancel := context.WithTimeout(ctx, s.timeout)
		more, err := s.register(within, *s.epoch.Load(), "")
		cancel()
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	within, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return s.push(within)
}

// register runs beat.lua and reports whether dead leases are left to remove.
// An empty epoch takes the one that Redis has, or gives it the proposed one.
func (s *Store) register(ctx context.Context, epoch, proposed string) (more bool, err error) {
	r, err := s.callIn(ctx, epoch, s.scripts.beat, s.replica, proposed)
	if err != nil {
		return false, err
	}
	if r.verdict != "ok" || len(r.values) != 3 {
		return false, unexpected(r.verdict)
	}
	found, err := r.values[0].ToString()
	if err != nil || found == "" {
		return false, unexpected(r.verdict)
	}
	replicas, err := r.integer(1)
	if err != nil {
		return false, err
	}
	left, err := r.integer(2)
	if err != nil {
		return false, err
	}
	s.heard = replicas
	s.count(replicas)
	if known := s.epoch.Load(); known == nil || *known != found {
		if known != nil {
			s.unsure = nil
			s.journal.forget()
		}
		s.epoch.Store(&found)
	}
	return left != 0, nil
}

// count notes how many replicas there are. Fewer are believed only when they
// were fewer for a while: after an outage they come back one by one, and a share
// that is too large admits too much.
func (s *Store) count(replicas int64) {
	now := time.Now()
	switch {
	case replicas >= s.replicas.Load():
		s.replicas.Store(max(replicas, 1))
		s.fewer = time.Time{}
	case s.apart.Load():
		s.fewer = time.Time{}
	case s.fewer.IsZero():
		s.fewer = now
	case now.Sub(s.fewer) >= replicaLife:
		s.replicas.Store(max(replicas, 1))
		s.fewer = time.Time{}
	}
}

// enter finds Redis in working order: it takes the scripts, so that every
// decision is one round trip, and answers a first script within the budget.
func (s *Store) enter(ctx context.Context) error {
	load := make(rueidis.Commands, 0, len(s.scripts.sources))
	for _, source := range s.scripts.sources {
		load = append(load, s.client.B().ScriptLoad().Script(source).Build())
	}
	loaded := make(chan error, 1)
	go func() { // see callIn
		var failed error
		for _, r := range s.client.DoMulti(ctx, load...) {
			failed = errors.Join(failed, r.Error())
		}
		loaded <- failed
	}()
	select {
	case err := <-loaded:
		if err != nil {
			return fmt.Errorf("load scripts: %w", err)
		}
	case <-ctx.Done():
		return fmt.Errorf("load scripts: %w", ctx.Err())
	}
	within, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	_, err := s.register(within, "", fmt.Sprintf("%s-%d", s.replica, time.Now().UnixNano()))
	return err
}

// errPeers says that Redis is there, but not all who were.
var errPeers = errors.New("other replicas have not come back yet")

// complete reports whether the replicas that were seen before the outage are
// there again, or had the time to be. Leases that Redis lost, or that expired in
// it meanwhile, are there again only when their replica has brought them: who
// decides earlier admits too much.
func (s *Store) complete() bool {
	if s.found.IsZero() {
		s.found = time.Now()
	}
	return s.heard >= s.replicas.Load() || time.Since(s.found) >= peerPatience
}

// rejoin ends an outage if Redis is there again. What was decided alone is sent
// while more is decided alone; then decisions wait, for one call's budget at
// most, until the rest is sent. So the first shared decision knows all of it.
func (s *Store) rejoin(ctx context.Context) error {
	within, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if err := s.enter(within); err != nil {
		s.found = time.Time{}
		return err
	}
	s.journal.recall(s.renew)
	if err := s.push(within); err != nil {
		return err
	}
	if !s.complete() {
		return errPeers
	}
	s.gate.Lock()
	defer s.gate.Unlock()
	last, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if err := s.push(last); err != nil {
		return err
	}
	s.turn.Lock()
	defer s.turn.Unlock()
	s.apart.Store(false)
	s.joined, s.found = time.Now(), time.Time{}
	s.metrics.partitioned.Set(0)
	s.log.Info("store is back, limits are shared again", "duration", time.Since(s.since).Round(time.Millisecond))
	return nil
}
