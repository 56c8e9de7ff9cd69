// Package redisstore is a [limit.Store] in Redis ≥ 6.2 or Valkey, so that several
// replicas of the gateway enforce one set of limits.
//
// It is [limit.Memory] in scripts: every decision is one script, one round trip
// and one instant of the server's clock.
//
// # What the server must be
//
// One primary, found directly or through Sentinel: all keys share one hash tag
// and so one slot, and Redis Cluster does not spread them. It must not evict: with
// a maxmemory-policy other than noeviction it would forget leases. Its clock must
// not jump: windows and leases follow it. What it holds may be lost at any time;
// each replica brings back its own part.
//
// # What the caller must do
//
// Call [Store.Renew] with all live leases every few seconds. A claimed lease lives
// for 15 s after its last renewal, so the leases of a killed replica are free
// within 15 s of its death. What they had spent stays in the window. A lease that
// is not claimed within [limit.ProvisionalLife] is gone.
//
// Call [Store.Close] once at the end: the other replicas then stop counting this
// one at once, otherwise after 10 s.
//
// # Outage
//
// A call whose answer does not come within [Options.Timeout], or is not the answer
// to that very call, begins an outage. The states are those of transitions, in
// circuit.go:
//
//	state        decides          what the maintainer does              left when
//	shared       Redis            a heartbeat every 2 s                 a call fails
//	partitioned  this replica     a probe every 500 ms                  a probe is answered
//	returning    this replica     sends what was decided here           all other replicas are back, or 2 s have passed
//	handover     nobody, ≤ 1 call sends the last of it                  Redis has taken it
//	stopped      nobody           nothing                               never
//
// The first probe of an outage comes after 250 ms, and after up to 4 s where Redis
// comes and goes, so that a replica is back within 5 s of Redis. During an outage
// no call waits for Redis.
//
// A replica that decides admits up to its share of every limit, ceil(limit ÷
// replicas last seen), counting its own live leases and its own use of the last
// 60 s. So n replicas admit at most limit × (2 − 1/n) in the window that spans the
// beginning of an outage. Of a quota, the share is that of what was left when the
// outage began, as far as this replica knew. A counter that it never saw is asked
// for ([limit.ErrUnseeded]).
//
// Before the first shared decision all that was decided here is added to Redis:
// live leases with their reservations, releases, use by second, growth of quotas.
// Limits err on the strict side: use that a lease reported before or during an
// outage is not given back by a smaller final count after it. A call that was
// given up, but carried out by Redis nevertheless, is recognized and not counted
// twice.
//
// A Redis that lost its data (restarted empty, a failover to a blank server) is
// recognized in every script by its epoch. That is an outage too, after which each
// replica adds all that it knows of the last 60 s.
//
// # Files
//
// Each file uses only those above it.
//
//	options.go script.go   where Redis is; the scripts and their replies
//	conn.go                runs one script
//	circuit.go peers.go    the states of an outage; how many replicas there are
//	lease.go usage.go counters.go journal.go batch.go
//	                       what this replica did, and what of it Redis must be sent
//	local.go decision.go   decisions by share; decisions of Redis
//	maintain.go            heartbeat, probe, handover
//	store.go               opens, closes and routes each call
//	bus.go                 messages between replicas; keys that seal tickets
//	acquire.go adopt.go settle.go history.go view.go
//	                       the methods of limit.Store
package redisstore
