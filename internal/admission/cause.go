package admission

import (
	"time"

	"tollgate/internal/ledger"
	"tollgate/internal/trace"
	"tollgate/internal/usage"
)

// Cause says how a request ended by the proxy's account.
type Cause uint8

// The causes. The adapters translate the proxy's own words.
const (
	// CauseNone: the engine's answer went through whole.
	CauseNone Cause = iota
	// CauseDenied: our own refusal.
	CauseDenied
	// CauseRequest: the proxy refused the request itself (unknown path, body
	// too large, malformed).
	CauseRequest
	// CauseClient: the client went away.
	CauseClient
	// CauseUpstream: the engine cut its answer.
	CauseUpstream
	// CauseUnreached: the engine was never reached.
	CauseUnreached
	// CauseTimeout: silence for too long.
	CauseTimeout
	// CauseGateway: this service failed or cut the stream.
	CauseGateway
)

// EndReason is the ledger's name of the cause; "" where the cause alone names
// no early end.
func (c Cause) EndReason() ledger.EndReason {
	switch c {
	case CauseClient:
		return ledger.ClientAbort
	case CauseUpstream:
		return ledger.UpstreamAbort
	case CauseTimeout:
		return ledger.Timeout
	case CauseUnreached:
		return ledger.Refused
	case CauseNone, CauseDenied, CauseRequest, CauseGateway:
	}
	return ""
}

// Witness is the proxy's account of one finished request: its access log entry.
type Witness struct {
	LeaseID   string // "" where no ticket was issued
	RequestID string
	KeyID     string // as far as the proxy knows it
	Method    string
	Endpoint  string // canonical path, "other" where unknown
	Status    int    // what the client got; 0 = nothing
	Cause     Cause
	// Denied is the reason of our own refusal, "" otherwise.
	Denied     Reason
	ClientAddr string
	Started    time.Time
	Duration   time.Duration // whole request
	FirstByte  time.Duration // to the first byte sent to the client; 0 = none
	BytesIn    uint64
	BytesOut   uint64
	Details    string // the proxy's own words, for the record
	// Trace is the identity of the request's span; none where it is not traced.
	Trace trace.Span
}

// Access is the record of one request, written once when both witnesses have
// spoken or the second has been waited for long enough.
type Access struct {
	Witness
	// Alone: of the log entry alone. A row of the lease, where there is one, was ended
	// without its session.
	Alone bool
	User  string
	Model string // that served
	// RequestedModel is the name that the client asked for.
	RequestedModel string
	Reason         ledger.EndReason // "" where nothing was recorded in the ledger
	Quality        ledger.Quality
	Counts         usage.Counts // [usage.Unsaid] where nothing was recorded
	// ModelLabel and RequestedLabel are the same two names as metrics have them: of a
	// closed set.
	ModelLabel, RequestedLabel string
	// Stream, Engine and Ended are as the ledger has them; zero where nothing was recorded.
	Stream bool
	Engine string
	Ended  time.Time
}
