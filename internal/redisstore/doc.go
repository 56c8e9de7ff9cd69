// Package redisstore keeps admission state in Redis ≥ 6.2 or Valkey, so that
// several replicas hold one set of limits.
//
// It is [limit.Memory] in scripts: every decision is one script, one round trip
// and one instant of the server's clock. All keys share one hash tag and so one
// slot of a single primary, found directly or through Sentinel; Redis Cluster
// does not spread it. The server must not evict: with a maxmemory-policy other
// than noeviction it would forget who is in. Its clock must not jump: windows and
// leases follow it.
//
// # Leases
//
// A lease lives in a sorted set by its expiry: 5 s until it is claimed, then
// 15 s that [Store.Renew] prolongs. The leases of a killed replica are back 15 s
// after their last renewal, and so within 15 s of its death. What they had
// spent stays in the window.
//
// # Outage
//
// Each call has a hard budget. The first that Redis does not answer in time, or
// answers with anything but a reply of the right shape to this very call, opens
// the circuit: from then on the replica decides alone, at once, from its own
// share of every limit, ceil(limit ÷ replicas last seen), counting its own live
// leases and its own use of the last 60 s. So n replicas admit at most
// limit × (2 − 1/n) in the window that spans the beginning of an outage. Of a
// quota the share is that of what was left when the outage began, as far as this
// replica knew. A counter that it never saw is asked for ([limit.ErrUnseeded]).
//
// A probe looks for Redis every 500 ms, first after 4 s at most where it comes and
// goes, so that a replica rejoins within 5 s of its return. Before the first
// shared decision all that was decided alone is added to Redis: live leases with their
// reservations, releases, use by second, quota growth. Use that a lease reported
// before or during an outage is not given back by a smaller final count after
// it: limits err on the strict side. A replica that finds Redis while others that
// it saw before have not, waits for them, 2 s at most: until they have brought back
// their leases, Redis knows of too few. A call that was given up on but carried out
// by Redis nevertheless is recognized and not counted twice.
//
// A Redis that lost its data (restarted empty, a failover to a blank server) is
// recognized in every script by its epoch: that is an outage too, after which
// each replica adds all that it knows of the last 60 s.
package redisstore
