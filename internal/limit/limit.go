// Package limit holds what may be used at once and per minute: concurrency
// leases, request and token windows, reservations and quotas.
//
// One [Store] keeps all of it, because a decision is one: everything that a
// request takes is taken in one atomic step, or nothing is (design §5, F4).
// The rate per client address is apart ([Addresses]): it is charged on
// arrival, always, and never leaves this process.
//
// All times inside a store are monotonic (or the time of the server behind it):
// setting the wall clock changes no decision. Only the quota period is named by
// the caller, because it follows the wall clock.
//
// [Memory] is the store of one process, [Addresses] the rate per client
// address, [Estimator] guesses what a request will use before it is sent.
package limit

import (
	"context"
	"errors"
	"time"
)

// Unlimited is the limit that nothing reaches; every value below 0 reads as it.
// Zero is a real limit: nothing passes.
const Unlimited int64 = -1

const (
	// Window is the length of the sliding windows for requests and tokens. A
	// store counts in one-second buckets: what happened counts for Window at
	// least and for less than a second more.
	Window = 60 * time.Second
	// ProvisionalLife is how long a lease lives unless it is claimed.
	ProvisionalLife = 5 * time.Second
)

var (
	// ErrLease says that the lease is unknown, expired or released, or is not in
	// the state that the call needs.
	ErrLease = errors.New("lease is unknown or expired")
	// ErrUnavailable says that the store cannot decide now. Nothing was taken.
	ErrUnavailable = errors.New("limits cannot be checked")
	// ErrUnseeded says that the quota counter of this key and period is not
	// known to the store, never yet or no longer: call [Store.Seed] with the ledger's sum and ask again.
	// Nothing was taken.
	ErrUnseeded = errors.New("quota counter is not loaded")
)

// Denial names the limit that refused. The empty denial is an admission.
type Denial string

// The limits that a store can refuse by. Values are metric labels.
const (
	Admitted     Denial = ""
	Requests     Denial = "requests"       // requests per minute of the key
	GlobalSlots  Denial = "concurrent"     // slots of the whole gateway
	KeySlots     Denial = "concurrent_key" // slots of the key
	TokensWindow Denial = "tokens"         // tokens per minute of the key
	Quota        Denial = "quota"          // tokens of the key per period
)

// Caps are the limits that hold for one request. Each is [Unlimited] or a
// count.
type Caps struct {
	Global     int64 // live leases with a slot, whole gateway
	Concurrent int64 // live leases with a slot, this key
	Requests   int64 // requests per 60 s window, this key
	Tokens     int64 // tokens per 60 s window, this key
	Quota      int64 // tokens per quota period, this key
	// QuotaPeriod names the running period of the quota ("total", "2026-11",
	// "2026-11-24"); a counter belongs to one period.
	QuotaPeriod string
}

// Ask is what Acquire shall take for one request.
type Ask struct {
	LeaseID string
	KeyID   string
	Caps    Caps
	// Slot: takes a slot of the gateway and one of the key.
	Slot bool
	// Tokens: the token window and the quota must not be spent already.
	Tokens bool
}

// Rate is one limit as its client should see it (x-ratelimit-*).
type Rate struct {
	Limit     int64         // [Unlimited]: no such limit, the others mean nothing
	Remaining int64         // never below 0
	Reset     time.Duration // until the window is empty again if nothing more is used
}

// Decision is the answer of a store, with the numbers of the same instant.
type Decision struct {
	Denied Denial
	// RetryAfter is when the same request may pass. For windows it is when
	// enough will have slid out (at most 1 s of bucket too late): after it the
	// same ask passes that limit if nothing else was used and nothing is
	// reserved. It is 1 s for slots and where nothing but reservations stands
	// in the way, [Window] for a window whose limit is 0, and 0 for a spent
	// quota and an admission.
	RetryAfter time.Duration
	// Requests is the request window after this decision: what an admission
	// took is off Remaining. Tokens likewise, with reservations off as well.
	// Reset looks at what is used only: a reservation is not in the window yet.
	Requests Rate
	Tokens   Rate
	// Quota is what is left of the quota's running period, reservations off as
	// well. A store does not know when the period ends: Reset is 0. Where the
	// store was not asked for tokens and does not know the counter, the Limit is
	// [Unlimited]: there is nothing to show.
	Quota Rate
}

// Spend reports the running use of one live lease.
type Spend struct {
	LeaseID     string
	Total       int64  // tokens used so far by this lease, cumulative
	QuotaPeriod string // period that the growth belongs to
}

// Final ends a lease.
type Final struct {
	// Total is the tokens used by this lease in the end, cumulative. It may be
	// below an earlier Spend (an estimate replaced): the difference goes back
	// to the seconds and the quota periods that this lease was counted in, the
	// newest first. What has slid out of the window by then stays out. The zero
	// value says that nothing was used at all.
	Total int64
	// QuotaPeriod is the period that growth since the last Spend belongs to.
	QuotaPeriod string
	// GiveBackRequest returns the request to the request window: the request
	// was refused by a limit at the body stage, or never reached the engine by
	// a fault of ours.
	GiveBackRequest bool
}

// View is the state of one key.
type View struct {
	KeyID          string `json:"key_id"`
	Slots          int64  `json:"concurrent"`         // live leases with a slot
	Leases         int64  `json:"leases"`             // all live leases
	RequestsWindow int64  `json:"requests_in_window"` // last 60 s
	TokensWindow   int64  `json:"tokens_in_window"`   // last 60 s, without reservations
	Reserved       int64  `json:"tokens_reserved"`    // open reservations
	QuotaUsed      int64  `json:"quota_used"`         // in QuotaPeriod; -1 when not loaded
	QuotaPeriod    string `json:"quota_period"`
}

// Totals are the gauges over all keys.
type Totals struct {
	Leases   int64  // live leases, provisional ones included
	Slots    int64  // live leases that hold a slot
	Reserved int64  // tokens in open reservations
	Expired  uint64 // leases that expired unclaimed or unrenewed, ever
}

// Store decides. Every method is safe for concurrent use and answers within a
// bounded time.
type Store interface {
	// Acquire takes a provisional lease with all that ask names, or nothing.
	// The order of checks is requests, slots (global, key), tokens, quota; the
	// first that refuses is named. It always counts one request, limited or
	// not. With ask.Tokens there must be room for one token at least:
	// used + reserved < limit, for the window and for the quota.
	// Errors: [ErrUnavailable]; [ErrUnseeded] when all else would pass;
	// [ErrLease] when the id is that of a live lease.
	Acquire(ctx context.Context, ask Ask) (Decision, error)
	// Claim makes a provisional lease live until its Release. Claiming a claimed
	// lease again is [ErrLease]: one lease, one stream. A provisional lease that
	// is [ProvisionalLife] old is gone and has given back everything, its request
	// too; it counts in [Totals.Expired].
	Claim(ctx context.Context, leaseID string) error
	// Reserve adds a reservation of tokens to a live lease by the rule
	// used + reserved + min(tokens, limit) ≤ limit for the window and
	// used + reserved < quota for the quota; the tokens are reserved in full
	// (below 0 counts as 0). When denied, nothing was reserved, the lease stands
	// and may try again. A lease reserves once: after an admission it is
	// [ErrLease], as for an unknown lease. Errors: also [ErrUnavailable],
	// [ErrUnseeded].
	Reserve(ctx context.Context, leaseID string, caps Caps, tokens int64) (Decision, error)
	// Spend moves used tokens from reservations into the current second, in
	// one batch. Unknown leases are skipped, a total below an earlier one is
	// ignored. What exceeds a reservation is debt in the window. Growth in a
	// period whose counter is not known is not counted in the quota: the seed
	// will hold it.
	Spend(ctx context.Context, batch []Spend) error
	// Release ends a lease: the rest of the reservation vanishes, the final use
	// stays in the window. It is idempotent: false when there was nothing to
	// release (unknown, expired or released before).
	Release(ctx context.Context, leaseID string, f Final) (bool, error)
	// Renew keeps live leases alive; the memory store needs none. Unknown leases
	// are skipped.
	Renew(ctx context.Context, leaseIDs []string) error
	// Seed sets the quota counter of a key and period if it is not known yet;
	// otherwise it does nothing. A store may forget the counter of an idle key.
	Seed(ctx context.Context, keyID, period string, used int64) error
	// Restore adds settled use of the last 60 s after a restart: tokens and
	// requests of a key that happened ago (≥ 0) before now. What is older than
	// [Window] is ignored. Quotas are not touched.
	Restore(ctx context.Context, keyID string, ago time.Duration, tokens, requests int64) error
	// Key shows one key; of caps it reads QuotaPeriod only. A key that is not
	// known shows zeros.
	Key(ctx context.Context, keyID string, caps Caps) (View, error)
	// Totals shows the gauges.
	Totals(ctx context.Context) (Totals, error)
	// Close stops what the store started. Closing again is no error.
	Close() error
}
