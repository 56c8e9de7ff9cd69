package redisstore

import (
	"time"

	"github.com/redis/rueidis"
)

// HeartbeatInterval is the time between two heartbeats of a replica.
const HeartbeatInterval = heartbeatInterval

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
	s.maintainer.on(closing)
	s.stop()
	<-s.maintainer.ended
	s.conn.client.Close()
	_ = s.local.memory.Close()
}

// Partitioned reports whether the store decides by its own share.
func (s *Store) Partitioned() bool { return s.circuit.decidesHere() }

// Replicas is how many replicas were seen last.
func (s *Store) Replicas() int64 { return s.local.peers.count() }

// Pending is how many leases Redis is still to be told of.
func (s *Store) Pending() int {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	return len(s.journal.unsynced)
}
