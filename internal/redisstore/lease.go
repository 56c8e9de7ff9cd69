package redisstore

import (
	"time"

	"tollgate/internal/limit"
)

// knowledge is what Redis knows of a lease, as far as this replica can tell. It
// grows, and falls back to asked when Redis loses its data.
type knowledge uint8

const (
	// unasked: Redis never heard of it.
	unasked knowledge = iota
	// asked: Redis was asked for it or was sent it, and may hold it.
	asked
	// confirmedProvisional: Redis said that it holds it.
	confirmedProvisional
	// confirmedClaimed: Redis said that it holds it as claimed. Its request stays
	// counted, whatever happens.
	confirmedClaimed
)

// life is whether a lease is still wanted.
type life uint8

const (
	held      life = iota
	releasing      // its release is on the way
	released       // kept until Redis knows
)

// lease is a lease of this replica.
type lease struct {
	id, key       string
	slots, wide   int64 // of the key, of the gateway
	granted       int64 // by the quota; below 0: no quota
	reserved      int64 // tokens that are still open
	total         int64 // tokens used so far
	acked         int64 // tokens that Redis confirmed
	claimed       bool
	hasReserved   bool
	life          life
	known         knowledge
	born, renewed time.Time
	version       uint64 // grows with every change that Redis must be told
}

func newLease(id, key string, k knowledge) *lease {
	now := time.Now()
	return &lease{id: id, key: key, granted: limit.Unlimited, known: k, born: now, renewed: now}
}

// running reports whether a stream holds the lease: Redis must hold it then.
func (l *lease) running() bool { return l.claimed && l.life == held }

// openQuota is what is still open of a lease's part of the quota.
func (l *lease) openQuota() int64 { return max(0, l.granted-l.total) }
