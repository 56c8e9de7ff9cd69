package redisstore

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// state says who decides and what the maintainer does.
type state uint32

const (
	// shared: Redis decides.
	shared state = iota
	// partitioned: Redis does not answer. This replica decides by its own share.
	partitioned
	// returning: Redis answers again and is sent what was decided here. This
	// replica goes on deciding until the other replicas have done the same.
	returning
	// handover: decisions wait while Redis is sent the last of it.
	handover
	// stopped: the store is closed and decides nothing.
	stopped
	states
)

// event is what moves a circuit from one state to another.
type event uint8

const (
	// callFailed: a call got no answer that can be believed.
	callFailed event = iota
	// probeFailed: Redis did not answer a probe.
	probeFailed
	// probeAnswered: Redis answered a probe.
	probeAnswered
	// sendFailed: Redis did not take what was decided here.
	sendFailed
	// peersBack: the other replicas are back, or have had the time to be.
	peersBack
	// sentAll: Redis knows all that was decided here.
	sentAll
	// closing: the store is being closed.
	closing
	events
)

var (
	stateNames = [states]string{"shared", "partitioned", "returning", "handover", "stopped"}
	eventNames = [events]string{"call failed", "probe failed", "probe answered", "send failed", "peers back", "sent all", "closing"}
)

func (s state) String() string { return stateNames[s] }

func (e event) String() string { return eventNames[e] }

// transitions is the whole life of an outage. An event that a state does not
// list is an error there. Calls that were sent before the outage fail during it,
// hence "call failed" in every state.
var transitions = [states]map[event]state{
	shared:      {callFailed: partitioned, closing: stopped},
	partitioned: {callFailed: partitioned, probeFailed: partitioned, probeAnswered: returning, closing: stopped},
	returning: {
		callFailed: returning, probeFailed: partitioned, probeAnswered: returning, sendFailed: returning,
		peersBack: handover, closing: stopped,
	},
	handover: {callFailed: handover, sendFailed: returning, sentAll: shared, closing: stopped},
	// What was under way when the store was closed comes to its end.
	stopped: {
		callFailed: stopped, probeFailed: stopped, probeAnswered: stopped, sendFailed: stopped,
		peersBack: stopped, sentAll: stopped, closing: stopped,
	},
}

// errEvent says that an event came in a state that does not know it: a mistake in
// this package.
var errEvent = errors.New("event does not belong to this state")

const (
	// probeInterval is how often Redis is probed during an outage.
	probeInterval = 500 * time.Millisecond
	// longestPause is how long Redis is left alone when it comes and goes. With
	// it a replica is back within 5 s of Redis.
	longestPause = 4 * time.Second
	// steady is how long Redis must have answered to be trusted as before.
	steady = 10 * time.Second
)

// circuit is the state of the way to Redis, with its times. Its methods are safe
// for concurrent use.
type circuit struct {
	current atomic.Uint32 // a state; written under mu

	firstPause time.Duration // before the first probe of an outage
	begins     func()        // is called before an outage shows

	mu     sync.Mutex
	began  time.Time     // of the running or the last outage; guarded by mu, like what follows
	joined time.Time     // when the last outage ended
	pause  time.Duration // before the first probe of the running outage
	found  time.Time     // since when Redis answers in the running outage; zero: it does not
}

func newCircuit(timeout time.Duration, begins func()) *circuit {
	// By then calls that were sent before the outage are over.
	return &circuit{firstPause: max(timeout, probeInterval/2), begins: begins}
}

// state returns where the circuit stands.
func (c *circuit) state() state { return state(c.current.Load()) }

// decidesHere reports whether this replica decides by its own share.
func (c *circuit) decidesHere() bool {
	switch c.state() {
	case partitioned, returning, handover:
		return true
	case shared, stopped, states:
	}
	return false
}

// on takes an event at an instant and reports whether the state changed. Error:
// [errEvent].
func (c *circuit) on(e event, now time.Time) (changed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	from := c.state()
	to, known := transitions[from][e]
	switch {
	case !known:
		return false, fmt.Errorf("%w: %s while %s", errEvent, e, from)
	case to == from:
		return false, nil
	}
	switch {
	case from == shared && to == partitioned:
		if now.Sub(c.joined) < steady {
			c.pause = min(2*c.pause, longestPause)
		} else {
			c.pause = c.firstPause
		}
		c.began = now
		c.begins()
	case from == partitioned && to == returning:
		c.found = now
	case to == partitioned:
		c.found = time.Time{}
	case to == shared:
		c.joined, c.found = now, time.Time{}
	}
	c.current.Store(uint32(to))
	return true, nil
}

// outage returns how long the running or the last outage has lasted, and how long
// Redis has been answering in it.
func (c *circuit) outage(now time.Time) (lasted, answering time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.found.IsZero() {
		answering = now.Sub(c.found)
	}
	return now.Sub(c.began), answering
}

// beforeProbe returns how long to wait before the first probe of an outage; 0
// outside of one.
func (c *circuit) beforeProbe() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.decidesHere() {
		return 0
	}
	return c.pause
}
