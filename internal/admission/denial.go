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
	// UnsupportedMedia: the body is compressed or of a type that is not read.
	UnsupportedMedia Reason = "unsupported_media"
	// NotFound: no such path.
	NotFound Reason = "not_found"
	// WrongMethod: the path does not take this method.
	WrongMethod Reason = "method_not_allowed"
	// OtherProtocol: the client offered to speak WebSocket.
	OtherProtocol Reason = "upgrade"
	// TooLarge: the body is announced to be larger than any may be.
	TooLarge Reason = "too_large"
	// Unavailable: we cannot decide or cannot record; also too many body bytes
	// in memory.
	Unavailable Reason = "unavailable"
	// EngineUnavailable: vLLM is down or not ready.
	EngineUnavailable Reason = "engine_unavailable"
	// BadAnswer: the engine's answer is neither JSON nor an event stream, so it
	// cannot be metered and is not delivered.
	BadAnswer Reason = "bad_answer"
	// Cancelled: an administrator or a revocation ended the request before it
	// was sent to vLLM.
	Cancelled Reason = "cancelled"
)

// Reasons lists every reason once.
func Reasons() []Reason {
	return []Reason{
		MissingKey, MalformedKey, InvalidKey, NotAdmin, AddressRate, RequestRate, TokenRate,
		GlobalSlots, KeySlots, QuotaSpent, ModelUnknown, BadRequest, KeyBodies, SlowBody,
		UnsupportedMedia, Unavailable, EngineUnavailable, BadAnswer, Cancelled,
		NotFound, WrongMethod, OtherProtocol, TooLarge,
	}
}

// counts reports whether a request that is refused for that reason at its body still
// counts against its key: the client got it wrong.
func (r Reason) counts() bool {
	return r == ModelUnknown || r == BadRequest || r == SlowBody || r == UnsupportedMedia
}

// DenialError is a policy's answer, not a failure: the request is refused for
// a reason that its client may see.
type DenialError struct {
	Reason  Reason
	Message string // for the client; may be empty, then the adapter has a sentence for the reason
	Param   string // the parameter at fault, "" where there is none
	Allow   string // the methods that the path takes, for [WrongMethod]
	// RetryAfter is when the same request may pass; 0 says nothing.
	RetryAfter time.Duration
	Standing
	// Requested is how many tokens the request asked to reserve, 0 where none
	// were asked for.
	Requested int64
	// Cap is the limit that refused where no rate shows it: requests at once, or
	// requests a second of a client address. 0: not known.
	Cap int64
	// Need and Free belong to a refusal by slots: how many the request needs, and how
	// many were free.
	Need, Free int64
	// Debt is how many tokens were used beyond the limit per minute and are not
	// waited out yet.
	Debt int64
	// Model and Nearest belong to [ModelUnknown]: the name that was asked for, and the
	// most similar name that the key may use, "" where there is none.
	Model, Nearest string
	// DefaultKey belongs to [InvalidKey]: the public default key was sent.
	DefaultKey bool
}

// Standing is how a key stands with its limits in one decision. A Limit of
// [limit.Unlimited] is not shown.
type Standing struct {
	Requests, Tokens limit.Rate
	// Quota.Reset is the time until the next period, 0 for a quota of a key's
	// whole life.
	Quota limit.Rate
	// QuotaResets is when that is; zero likewise.
	QuotaResets time.Time
}

// noStanding is the standing that no header shows.
var noStanding = Standing{Requests: noRate, Tokens: noRate, Quota: noRate}

// Deny returns a refusal that shows no limits.
func Deny(r Reason) *DenialError {
	return &DenialError{Reason: r, Standing: noStanding}
}

// noRate is a limit that does not exist: no header shows it.
var noRate = limit.Rate{Limit: limit.Unlimited}

// Error names the reason; it carries nothing secret.
func (e *DenialError) Error() string { return "refused: " + string(e.Reason) }
