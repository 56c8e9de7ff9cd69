package limit

import (
	"fmt"
	"math"
	"net/netip"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// DefaultAddresses is how many client addresses [Addresses] remembers unless
// told otherwise.
const DefaultAddresses = 1 << 16

// ipv6Prefix is how much of an IPv6 address names a client: a subscriber is
// given a /64 at least and can use any address in it.
const ipv6Prefix = 64

// Addresses limits the rate per client address by GCRA (a leaky bucket without
// a timer): a burst of requests at once, then qps a second, evenly. In any time t
// at most burst + qps·t requests of one address pass. A request is charged
// when it passes here, whatever becomes of it afterwards; one that is refused
// here is not charged.
//
// The table is bounded: the address that was heard of longest ago is forgotten
// first, refused requests count as heard. To make us forget a client that is
// being limited, size other addresses must come between two of its requests,
// and what it gains is one fresh burst. IPv4-mapped addresses count as IPv4,
// IPv6 counts by /64, and all invalid addresses are one client.
//
// It is safe for concurrent use and runs on monotonic time. Nothing allocates
// for an address that is known.
type Addresses struct {
	start    time.Time
	rate     int64         // requests a second, rounded up; for messages
	interval time.Duration // between two requests at the steady rate; 0: nothing passes
	slack    time.Duration // how far ahead of the steady rate a burst may run
	// table holds, per address, when its next request would be due at the
	// steady rate (nanoseconds since start).
	table *lru.Cache[netip.Addr, *atomic.Int64]
}

// NewAddresses returns a limit of qps requests a second and address, with room
// for burst at once; a burst below 1 is max(1, ⌈qps⌉). A qps of 0 or less lets
// nothing pass. It remembers size addresses, [DefaultAddresses] when size is
// below 1.
func NewAddresses(qps float64, burst, size int) *Addresses {
	if size < 1 {
		size = DefaultAddresses
	}
	table, err := lru.New[netip.Addr, *atomic.Int64](size)
	if err != nil {
		panic(fmt.Errorf("make address table: %w", err)) // only a size below 1 is refused
	}
	a := &Addresses{start: time.Now(), table: table}
	if !(qps > 0) { // NaN too
		return a
	}
	if burst < 1 {
		burst = int(max(1, min(math.Ceil(qps), math.MaxInt32)))
	}
	// Rounded up, so that the rate is never above qps; bounded, so that sums
	// of it do not overflow.
	interval := math.Ceil(float64(time.Second) / qps)
	a.rate = int64(min(math.Ceil(qps), math.MaxInt32))
	a.interval = time.Duration(max(1, min(interval, math.MaxInt64/8)))
	a.slack = time.Duration(min(float64(burst-1)*float64(a.interval), math.MaxInt64/8))
	return a
}

// Allow charges one request to addr. When it may not pass, retryAfter is how
// long until one may.
func (a *Addresses) Allow(addr netip.Addr) (ok bool, retryAfter time.Duration) {
	if a.interval == 0 {
		return false, Window
	}
	due := a.due(client(addr))
	for {
		now := time.Since(a.start)
		was := due.Load()
		wait := time.Duration(was) - a.slack - now
		if wait > 0 {
			return false, wait
		}
		next := max(time.Duration(was), now) + a.interval
		if due.CompareAndSwap(was, int64(next)) {
			return true, 0
		}
	}
}

// Rate is the limit in requests a second, rounded up.
func (a *Addresses) Rate() int64 { return a.rate }

// Len is the number of addresses that are remembered.
func (a *Addresses) Len() int { return a.table.Len() }

// due returns the entry of a client, and makes it the last to be forgotten.
func (a *Addresses) due(addr netip.Addr) *atomic.Int64 {
	if due, ok := a.table.Get(addr); ok {
		return due
	}
	due := new(atomic.Int64)
	if other, ok, _ := a.table.PeekOrAdd(addr, due); ok {
		return other // somebody else met the address at the same time
	}
	return due
}

// client folds addresses that one client can choose between.
func client(addr netip.Addr) netip.Addr {
	addr = addr.Unmap()
	if !addr.Is6() {
		return addr
	}
	prefix, err := addr.Prefix(ipv6Prefix)
	if err != nil {
		return netip.Addr{}
	}
	return prefix.Addr()
}
