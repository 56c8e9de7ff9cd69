package redisstore

import (
	"sync/atomic"
	"time"
)

const (
	// heartbeatInterval is how often a replica says that it is there; one that is
	// silent for replicaLife is not counted (heartbeat.lua).
	heartbeatInterval = 2 * time.Second
	replicaLife       = 10 * time.Second
	// peerPatience is how long a replica that found Redis waits for those that it
	// saw before the outage. They probe every probeInterval.
	peerPatience = 2 * time.Second
)

// peers is how many replicas there are. Only the maintainer calls what changes it.
type peers struct {
	believed   atomic.Int64 // this one included, at least 1
	reported   int64        // by Redis, last
	fewerSince time.Time    // since when Redis reports fewer than are believed
}

// count returns how many replicas there are.
func (p *peers) count() int64 { return p.believed.Load() }

// report takes in what Redis says. Fewer are believed only after replicaLife, and
// not during an outage: after one, replicas come back one by one, and a share that
// is too large admits too much.
func (p *peers) report(replicas int64, outage bool, now time.Time) {
	p.reported = replicas
	switch {
	case replicas >= p.believed.Load():
		p.believe(replicas)
	case outage:
		p.fewerSince = time.Time{}
	case p.fewerSince.IsZero():
		p.fewerSince = now
	case now.Sub(p.fewerSince) >= replicaLife:
		p.believe(replicas)
	}
}

func (p *peers) believe(replicas int64) {
	p.believed.Store(max(replicas, 1))
	p.fewerSince = time.Time{}
}

// back reports whether the replicas that were seen before an outage are there
// again, or have had the time to be. Leases that Redis lost, or that expired in it
// meanwhile, are there again only when their replica has brought them: a replica
// that decides earlier admits too much.
func (p *peers) back(answering time.Duration) bool {
	return p.reported >= p.believed.Load() || answering >= peerPatience
}
