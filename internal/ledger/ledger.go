package ledger

import (
	"context"
	"errors"
	"time"

	"tollgate/internal/usage"
)

var (
	// ErrUnavailable means that the record cannot be written now (disk full, I/O error,
	// closed). Nothing was recorded.
	ErrUnavailable = errors.New("ledger is unavailable")
	// ErrUnknown means that there is no intent for that lease.
	ErrUnknown = errors.New("no such request in the ledger")
	// ErrDuplicate means that an intent with that lease id exists already.
	ErrDuplicate = errors.New("lease id is in the ledger already")
	// ErrInvalid means that the intent or settlement breaks this package's contract (no
	// lease id, a reason or quality that is none). Nothing was recorded and
	// trying again will not help.
	ErrInvalid = errors.New("invalid ledger entry")
)

// EndReason says why a request ended. The empty reason is an open request.
type EndReason string

// The ends, as docs/metering.md explains them.
const (
	Complete      EndReason = "complete"
	Refused       EndReason = "refused"
	ClientAbort   EndReason = "client_abort"
	UpstreamAbort EndReason = "upstream_abort"
	Timeout       EndReason = "timeout"
	Aborted       EndReason = "aborted"
	UpstreamError EndReason = "upstream_error"
	EngineAbort   EndReason = "engine_abort"
	Cancelled     EndReason = "cancelled"
	Revoked       EndReason = "revoked"
	Drained       EndReason = "drained"
	Quota         EndReason = "quota"
	GatewayCrash  EndReason = "gateway_crash"
	EnvoyCrash    EndReason = "envoy_crash"
)

// EndReasons lists every reason once, in the order of docs/metering.md.
func EndReasons() []EndReason {
	return []EndReason{
		Complete, Refused, ClientAbort, UpstreamAbort, Timeout, Aborted, UpstreamError,
		EngineAbort, Cancelled, Revoked, Drained, Quota, GatewayCrash, EnvoyCrash,
	}
}

// Failed reports whether a request ended without a whole answer for another reason
// than that its client left. An open request has not failed.
func (e EndReason) Failed() bool { return e != "" && e != Complete && e != ClientAbort }

// Quality ranks how well a count is known: Exact > Partial > Estimated.
type Quality string

// The qualities.
const (
	Exact     Quality = "exact"
	Partial   Quality = "partial"
	Estimated Quality = "estimated"
)

// Rank orders qualities: 3 exact, 2 partial, 1 estimated, 0 none.
func (q Quality) Rank() int {
	switch q {
	case Exact:
		return 3
	case Partial:
		return 2
	case Estimated:
		return 1
	}
	return 0
}

// Intent is written before vLLM is called. It holds no key, prompt or answer.
type Intent struct {
	LeaseID    string // ours, unforgeable; primary key
	RequestID  string // x-request-id as the client sees it
	KeyID      string
	User       string
	Model      string
	Endpoint   string // canonical path, aliases folded: /v1/chat/completions
	Engine     string // upstream address where known, else ""
	Stream     bool
	N          int // choices per prompt
	Prompts    int
	StartedAt  time.Time
	Reserved   int64 // tokens reserved at admission
	ClientAddr string

	// RequestedModel is the model that the client named, Model the one that
	// answers; they differ where a model has aliases. "" in rows of an older
	// program.
	RequestedModel string
	// Meter is the instance of the meter in Envoy that counts this request; ""
	// is this process.
	Meter string
	// Gateway is the name of the gateway that wrote the row.
	Gateway string
	// EndUser is the person behind a key that several people share, as a client
	// says whose key is trusted to say it. "" otherwise.
	EndUser string
	// Secret is the beginning of the digest of the secret that opened the
	// request, in hex: it tells the two secrets of a rotated key apart.
	Secret string
	// Trace is the identity of the request's span, as [trace.Span] writes it: the
	// trace, the span, and its parent where there is one. "" where it is not traced.
	Trace string
}

// Checkpoint is the running count of a live request. Fields may be
// [usage.Unsaid].
type Checkpoint struct {
	LeaseID string
	Counts  usage.Counts
}

// Settlement ends a request. Prompt and Completion are never [usage.Unsaid].
type Settlement struct {
	LeaseID     string
	Status      int       // HTTP status the client got; 0 when it got none
	FirstByteAt time.Time // zero when there was none
	EndedAt     time.Time
	Reason      EndReason
	Quality     Quality
	Counts      usage.Counts
	Engine      string // "" keeps what the intent said
}

// Record is one row as it stands.
type Record struct {
	Intent
	Status      int
	FirstByteAt time.Time
	EndedAt     time.Time
	Reason      EndReason // "" while open
	Quality     Quality   // "" while open
	Counts      usage.Counts
	// Change is the number of the last settlement or correction that changed
	// the row. One counter serves the whole ledger, so a later change of any row
	// has a higher number. 0 while open, and in rows that an older program
	// settled.
	Change int64
}

// Open reports whether the request has not been settled.
func (r *Record) Open() bool { return r.Reason == "" }

// Store keeps the records. All methods are safe for concurrent use; a method
// returns only when what it promises is written to the level of ledger.sync.
type Store interface {
	// Begin writes an intent. [ErrDuplicate], [ErrUnavailable].
	Begin(ctx context.Context, in Intent) error
	// Checkpoint writes running counts of many live requests in one batch.
	// Unknown and settled leases are skipped; counts never go down.
	Checkpoint(ctx context.Context, batch []Checkpoint) error
	// Settle ends a request and returns the row as it now stands and how far
	// its counts moved beyond what had been settled before (all of them at the
	// first settle, often 0 at a second). Settling twice is a no-op unless the second is of a
	// better quality, or of the same quality with higher counts; a same-quality
	// settle may replace the reason [Aborted] by a named one, and sets a status
	// that was 0. [ErrUnknown], [ErrUnavailable].
	Settle(ctx context.Context, s Settlement) (Record, usage.Counts, error)
	// Get returns one record. [ErrUnknown].
	Get(ctx context.Context, leaseID string) (Record, error)
	// Open lists the rows that are not settled, by start and lease id.
	Open(ctx context.Context) ([]Record, error)
	// Recover ends those of the leases that are open as reason with quality
	// [Partial] (the last checkpoint; [Estimated] with 0 completion tokens where
	// there was none) and returns how many. Unknown and settled leases are
	// skipped. The caller must know that nothing counts for these leases any
	// more: after a start that is every open row without a meter.
	Recover(ctx context.Context, leases []string, reason EndReason, at time.Time) (int, error)
	// Used sums prompt and completion tokens of a key whose requests started
	// in [since, until); zero until means no end. Open requests count with
	// their checkpoint.
	Used(ctx context.Context, keyID string, since, until time.Time) (int64, error)
	// Minute returns the tokens and started requests per key and second since
	// the given time, to rebuild the 60 s windows, by time and key.
	Minute(ctx context.Context, since time.Time) ([]Second, error)
	Close() error
}

// Second is one key's use in one second.
type Second struct {
	KeyID    string
	At       time.Time // start of the second
	Tokens   int64     // of requests that ended in this second, or began in it and are open
	Requests int64     // requests that started in this second
}

// MostBacklog bounds the rows that a [Backlog] counts.
const MostBacklog = 1_000_000

// Backlog is what a reader of changes has not delivered yet.
type Backlog struct {
	Rows   int64     // at most [MostBacklog]
	Oldest time.Time // when the oldest of them ended; zero where there are none
}
