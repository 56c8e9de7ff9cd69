package admission

import (
	"time"

	"tollgate/internal/limit"
)

// Reason says why a request was refused. The values are the labels of
// tollgate_admission_decisions_total and never reach a client as they are.
type Reason string

// The reasons.
const (
	// MissingKey: no credential at all.
	MissingKey Reason = "missing_key"
	// MalformedKey: two sources, a comma, a space or a non-token byte.
	MalformedKey Reason = "malformed_key"
	// InvalidKey: unknown, disabled, expired, not yet valid, or the default key
	// from afar. Clients cannot tell which.
	InvalidKey Reason = "invalid_key"
	// NotAdmin: the route needs an admin key.
	NotAdmin Reason = "not_admin"
	// AddressRate: too many requests from one client address.
	AddressRate Reason = "qps"
	// RequestRate: requests per minute of the key.
	RequestRate Reason = "requests"
	// TokenRate: tokens per minute of the key.
	TokenRate Reason = "tokens"
	// GlobalSlots: all slots of the gateway are taken.
	GlobalSlots Reason = "concurrent"
	// KeySlots: all slots of the key are taken.
	KeySlots Reason = "concurrent_key"
	// QuotaSpent: the key's quota of this period is used up.
	QuotaSpent Reason = "quota"
	// ModelUnknown: no such model, or not for this key.
	ModelUnknown Reason = "model"
	// BadRequest: the body or a parameter is wrong.
	BadRequest Reason = "bad_request"
	// KeyBodies: the bodies of this key's requests fill its share of memory.
	KeyBodies Reason = "key_bodies"
	// SlowBody: the request's body came too slowly.
	SlowBody Reason = "slow_body"
	// Unavailable: we cannot decide or cannot record; also too many body bytes
	// in memory.
	Unavailable Reason = "unavailable"
	// EngineUnavailable: vLLM is down or not ready.
	EngineUnavailable Reason = "engine_unavailable"
	// Cancelled: an administrator or a revocation ended the request before it
	// was sent to vLLM.
	Cancelled Reason = "cancelled"
)

// Reasons lists every reason once.
func Reasons() []Reason {
	return []Reason{
		MissingKey, MalformedKey, InvalidKey, NotAdmin, AddressRate, RequestRate, TokenRate,
		GlobalSlots, KeySlots, QuotaSpent, ModelUnknown, BadRequest, KeyBodies, SlowBody, Unavailable, EngineUnavailable, Cancelled,
	}
}

// DenialError is a policy's answer, not a failure: the request is refused for
// a reason that its client may see.
type DenialError struct {
	Reason  Reason
	Message string // for the client; may be empty, then the adapter has a sentence for the reason
	Param   string // the parameter at fault, "" where there is none
	// RetryAfter is when the same request may pass; 0 says nothing.
	RetryAfter time.Duration
	// Requests and Tokens are the limits of the key as they stood in the
	// decision; a Limit of [limit.Unlimited] is not shown.
	Requests, Tokens limit.Rate
}

// Deny returns a refusal that shows no limits.
func Deny(r Reason) *DenialError {
	return &DenialError{Reason: r, Requests: none, Tokens: none}
}

// none is a limit that does not exist: no header shows it.
var none = limit.Rate{Limit: limit.Unlimited}

// Error names the reason; it carries nothing secret.
func (e *DenialError) Error() string { return "refused: " + string(e.Reason) }
