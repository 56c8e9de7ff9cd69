// Package limit holds what may be used at once and per minute: concurrency
// leases, request and token windows, reservations and quotas.
//
// One [Store] keeps all of it, because a decision is one: everything that a
// request takes is taken in one atomic step, or nothing is (design §5, F4).
// The rate per client address is apart ([Addresses]): it is charged on
// arrival, always, and never leaves this process.
//
// All times inside a store are monotonic; only the quota period is named by
// the caller, because it follows the wall clock.
package limit

import (
	"context"
	"errors"
	"time"
)

// Unlimited is the limit that nothing reaches. Zero is a real limit: nothing
// passes.
const Unlimited int64 = -1

const (
	// Window is the length of the sliding windows for requests and tokens.
	Window = 60 * time.Second
	// ProvisionalLife is how long a lease lives before it is claimed.
	ProvisionalLife = 5 * time.Second
)

var (
	// ErrLease: the lease is unknown, expired or released.
	ErrLease = errors.New("lease is unknown or expired")
	// ErrUnavailable: the store cannot decide now.
	ErrUnavailable = errors.New("limits cannot be checked")
	// ErrUnseeded: the quota counter of this key and period is not known to
	// the store yet: call [Store.Seed] with the ledger's sum and ask again.
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
	// RetryAfter is when the same request may pass: exact for windows (plus at
	// most 1 s of bucket), 1 s for slots and while reservations stand in the
	// way, 0 for a spent quota and an admission.
	RetryAfter time.Duration
	Requests   Rate
	Tokens     Rate
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
	// below an earlier Spend (an estimate replaced): the difference goes back.
	Total       int64
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
	// The order of checks is requests, slots (global, key), tokens, quota.
	// Errors: [ErrUnavailable], [ErrUnseeded].
	Acquire(ctx context.Context, ask Ask) (Decision, error)
	// Claim makes a provisional lease live until its Release. Claiming a live
	// lease again is [ErrLease]: one lease, one stream.
	Claim(ctx context.Context, leaseID string) error
	// Reserve adds a reservation of tokens to a live lease by the rule
	// used + reserved + min(tokens, limit) ≤ limit for the window and
	// used + reserved < quota for the quota. When denied, nothing was reserved
	// and the lease stands. A lease reserves once.
	Reserve(ctx context.Context, leaseID string, caps Caps, tokens int64) (Decision, error)
	// Spend moves used tokens from reservations into the current second, in
	// one batch. Unknown leases are skipped. What exceeds a reservation is debt
	// in the window.
	Spend(ctx context.Context, batch []Spend) error
	// Release ends a lease: the rest of the reservation vanishes, the final use
	// stays in the window. It is idempotent: false when there was nothing to
	// release (unknown, expired or released before).
	Release(ctx context.Context, leaseID string, f Final) (bool, error)
	// Renew keeps live leases alive; the memory store needs none.
	Renew(ctx context.Context, leaseIDs []string) error
	// Seed sets the quota counter of a key and period if it is not known yet.
	Seed(ctx context.Context, keyID, period string, used int64) error
	// Restore adds settled use of the last 60 s after a restart: tokens and
	// requests of a key that happened ago (≥ 0) before now.
	Restore(ctx context.Context, keyID string, ago time.Duration, tokens, requests int64) error
	// Key shows one key.
	Key(ctx context.Context, keyID string, caps Caps) (View, error)
	// Totals shows the gauges.
	Totals(ctx context.Context) (Totals, error)
	// Close stops what the store started.
	Close() error
}
