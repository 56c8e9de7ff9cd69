package redisstore

import (
	"time"

	"github.com/redis/rueidis"
)

// BeatInterval is the time between two beats of a replica.
const BeatInterval = beatInterval

// TestClock is the key that scripts take their time from under [WithClock], µs.
// The scripts of a store that is opened without it know nothing of such a key.
const TestClock = "{tollgate}:test-clock"

// WithClock gives a store of its own keys, a clock that stands still unless the
// key [TestClock] is changed, and renews every lease at every call.
func (o Options) WithClock(prefix string) Options {
	o.prefix, o.renewEvery = prefix, time.Nanosecond
	o.clock = "local function clock() return tonumber(redis.call('GET', '" + TestClock + "')) end\n"
	return o
}

// WithPrefix gives a store keys of its own.
func (o Options) WithPrefix(prefix string) Options {
	o.prefix = prefix
	return o
}

// WithWire changes the options of the client.
func (o Options) WithWire(change func(*rueidis.ClientOption)) Options {
	o.wire = change
	return o
}

// Abandon ends a store as the death of its process would: nothing is said to
// Redis any more.
func (s *Store) Abandon() {
	s.closed.Store(true)
	s.stop()
	<-s.stopped
	s.client.Close()
	_ = s.shadow.Close()
}

// Apart reports whether the store decides alone.
func (s *Store) Apart() bool { return s.apart.Load() }

// Replicas is how many replicas were seen last.
func (s *Store) Replicas() int64 { return s.replicas.Load() }

// Untold is how many leases Redis is still to be told of.
func (s *Store) Untold() int {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	return len(s.journal.dirty)
}
