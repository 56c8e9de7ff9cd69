// Package limit holds what may be used at once and per minute: concurrency
// leases, request and token windows, reservations and quotas.
//
// One [Store] keeps all of it, because a decision is one: everything that a
// request takes is taken in one atomic step, or nothing is (decision 0006).
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
	Global     int64 // slots taken, whole gateway
	Concurrent int64 // slots taken, this key
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

// Reservation is what Reserve shall take for one request beside what its lease
// has taken at Acquire.
type Reservation struct {
	// Tokens are reserved in the token window in full; below 0 counts as 0.
	Tokens int64
	// Slots is how many sequences the request runs at once. A lease has one slot
	// from Acquire; here it takes the rest: of the key's limit at most all of it,
	// of the gateway's at most a quarter, so that a large request is not kept out
	// for ever by many small ones. A lease without a slot takes none.
	Slots int64
	// Hold is held of the quota.
	Hold Hold
}

// Hold is what a request may need of its key's quota. What is not held is not
// delivered: that makes a quota hard.
type Hold struct {
	Prompt int64 // tokens, estimated
	// Spare is held beside Prompt, which shows its true size only when the engine
	// has read it. Where the rest has no room for it, one request at a time passes.
	Spare  int64
	Output int64 // expected, over all choices
	Most   int64 // more output than that cannot come
	Least  int64 // with less output than that the request is refused
	// Extended: [Store.Extend] will ask for more while the answer runs. Then
	// Output is held at first, or a share of a large rest, see [AheadShare]. Without
	// it the request is sent with what it holds as its bound, so that is generous:
	// twice Output, all of a small rest or a sixteenth of a large one.
	Extended bool
}

// ExtendStep is how many tokens beyond its use an extension takes ahead, at least.
const ExtendStep = 256

// An answer that runs holds this share of a large rest, at most MostAhead tokens, so
// that most answers never have to ask for more: that costs as much as a third
// of a request. The rest shrinks with each answer that holds some of it, and with
// it the share, so many at once do not take it from each other.
const (
	AheadShare = 256
	MostAhead  = 4096
)

// ahead is what an answer that runs may hold unasked of such a rest, in tokens.
func ahead(left int64) int64 { return min(left/AheadShare, MostAhead) }

// SmallRest is the rest of a quota that one request may hold alone.
const SmallRest = 4096

// need is the least that must be left.
func (h Hold) need() int64 { return max(1, h.Prompt+h.Least) }

// of is what a request is granted when so much is left, prompt included, and what
// is held beside that.
func (h Hold) of(left int64) (granted, spare int64) {
	left = max(0, left-h.Prompt)
	output := max(h.Output, h.Least)
	if h.Extended {
		output = max(output, ahead(left))
	} else {
		output = max(2*output, min(SmallRest, left), left/16)
	}
	output = min(h.Most, output, left)
	return h.Prompt + output, min(h.Spare, left-output)
}

// All is how many tokens a request that is adopted may use in all: it was sent to
// the engine with them already.
func (h Hold) All() int64 { return h.Prompt + min(h.Most, max(h.Output, h.Least)) }

// Bounded returns r with every number in the range that stores count in.
func (r Reservation) Bounded() Reservation {
	r.Tokens, r.Slots = bounded(r.Tokens), min(max(r.Slots, 1), maxSlots)
	h := &r.Hold
	h.Prompt, h.Spare, h.Output, h.Most, h.Least = bounded(h.Prompt), bounded(h.Spare), bounded(h.Output), bounded(h.Most), bounded(h.Least)
	return r
}

// maxSlots bounds the slots of one request.
const maxSlots = 1 << 20

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
	// Debt is what the key must wait out before anything else, see [Store.Owe]:
	// RetryAfter and Tokens.Reset have it in them.
	Debt int64
	// Need and Free are of a refusal by slots: how many the request takes of that
	// limit beyond what its lease has, and how many there were.
	Need, Free int64
	// Granted is of an admission by Reserve: how many tokens the lease may use in
	// all by its quota; [Unlimited] without one.
	Granted int64
	// Quota is what is left of the quota's running period, reservations off as
	// well. A store does not know when the period ends: Reset is 0. Where the
	// store was not asked for tokens and does not know the counter, the Limit is
	// [Unlimited]: there is nothing to show.
	Quota Rate
}

// slots is what a request of so many sequences takes of the key's and of the
// gateway's slots.
func (c *Caps) slots(sequences int64) (own, wide int64) {
	own, wide = sequences, sequences
	if c.Concurrent >= 0 {
		own = min(own, max(1, c.Concurrent))
	}
	if c.Global >= 0 {
		wide = min(wide, max(1, c.Global/4))
	}
	return own, wide
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
	// GiveBackRequest returns the request to the request window: a limit refused the
	// request at the body stage, or tollgate failed before the request reached the
	// engine.
	GiveBackRequest bool
}

// View is the state of one key.
type View struct {
	KeyID          string `json:"key_id"`
	Slots          int64  `json:"concurrent"`         // slots taken
	Leases         int64  `json:"leases"`             // all live leases
	RequestsWindow int64  `json:"requests_in_window"` // last 60 s
	TokensWindow   int64  `json:"tokens_in_window"`   // last 60 s, without reservations
	Reserved       int64  `json:"tokens_reserved"`    // open reservations
	Debt           int64  `json:"tokens_debt"`        // use beyond the limit that is not waited out yet
	QuotaUsed      int64  `json:"quota_used"`         // in QuotaPeriod; -1 when not loaded
	QuotaHeld      int64  `json:"quota_reserved"`     // held by running requests
	QuotaPeriod    string `json:"quota_period"`
}

// Totals are the gauges over all keys.
type Totals struct {
	Leases   int64  // live leases, provisional ones included
	Slots    int64  // slots taken of the gateway's
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
	// used + reserved < limit for the window, and no debt; used + held < limit for
	// the quota.
	// Errors: [ErrUnavailable]; [ErrUnseeded] when all else would pass;
	// [ErrLease] when the id is that of a live lease.
	Acquire(ctx context.Context, ask Ask) (Decision, error)
	// Claim makes a provisional lease live until its Release. Claiming a claimed
	// lease again is [ErrLease]: one lease, one stream. A provisional lease that
	// is [ProvisionalLife] old is gone and has given back everything, its request
	// too; it counts in [Totals.Expired].
	Claim(ctx context.Context, leaseID string) error
	// ClaimForeign is Claim for a ticket that another process has issued after it
	// acquired ask. A lease that the store does not know is made, whatever the limits
	// are: the other process has asked and counted its request, and could not tell.
	// The caller must know that the ticket is genuine and not older than
	// [ProvisionalLife]. [ErrLease] when the lease is claimed; [ErrUnavailable].
	ClaimForeign(ctx context.Context, ask Ask) error
	// Lapse ends a lease that nobody has claimed, in whatever process, as Release
	// would. False: it is claimed, or there is none; then nothing has changed.
	Lapse(ctx context.Context, leaseID string, f Final) (bool, error)
	// Reserve adds a reservation to a live lease, all of it or nothing: its slots,
	// its tokens by the rule used + reserved + min(tokens, limit) ≤ limit for the
	// window, and what it holds of the quota, which is never more than is left of
	// it. The order of checks is slots (global, key), tokens, quota. When denied,
	// nothing was taken, the lease stands and may try again. A lease reserves once:
	// after an admission it is [ErrLease], as for an unknown lease. Errors: also
	// [ErrUnavailable], [ErrUnseeded].
	Reserve(ctx context.Context, leaseID string, caps Caps, r Reservation) (Decision, error)
	// Adopt makes the store hold what a live request has already been given, for a
	// process that takes the request over from another one or from a record. It
	// refuses nothing: limits may be exceeded by what is adopted. Afterwards the
	// lease is claimed, as if Acquire, Claim and Reserve had admitted it with
	// reserved and Spend had reported spent tokens.
	//
	// Of an unknown lease, spent was counted before (see Restore and Seed) and is
	// not counted again, and neither is its request; reserved.Slots, at least one,
	// and what spent leaves of reserved.Tokens are taken. Of the quota it holds
	// Prompt and Output of reserved.Hold, less spent. A live lease keeps the
	// reservation that it has, and of spent only the growth is counted, so calling
	// Adopt again changes nothing. [ErrLease] when the lease is another key's;
	// [ErrUnavailable].
	Adopt(ctx context.Context, leaseID, keyID string, caps Caps, reserved Reservation, spent int64) error
	// Extend makes what a lease holds of the quota cover total tokens used in all
	// and [ExtendStep] more, of a large rest its share (see [AheadShare]), as far as
	// there is a rest, and returns how many tokens the lease may use in all: below
	// total when there is not enough. Without a quota it is [Unlimited]. Errors as
	// for Reserve.
	Extend(ctx context.Context, leaseID string, caps Caps, total int64) (granted int64, err error)
	// Spend moves used tokens from reservations into the current second, in
	// one batch. Unknown leases are skipped, a total below an earlier one is
	// ignored. Use beyond what the limit of the key's last decision pays is
	// debt (see Owe). Growth in a period whose counter is not known is
	// not counted in the quota: the seed will hold it.
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
	// Owe sets what a key has used and not paid yet to so many tokens at least, as
	// after a restart.
	//
	// A limit pays limit ÷ 60 tokens of a key's use a second. What is unpaid
	// beyond one whole limit is debt, and while there is any the key is not
	// admitted: n limits used at once block it for n - 1 minutes. A debt is never
	// above 60 × limit. A decision under another limit cuts it to that, one without
	// a limit forgives it.
	Owe(ctx context.Context, keyID string, limit, unpaid int64) error
	// Key shows one key; of caps it reads QuotaPeriod only. A key that is not
	// known shows zeros.
	Key(ctx context.Context, keyID string, caps Caps) (View, error)
	// Totals shows the gauges.
	Totals(ctx context.Context) (Totals, error)
	// Close stops what the store started. Closing again is no error.
	Close() error
}
