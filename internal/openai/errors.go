package openai

import (
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"tollgate/internal/admission"
)

// BadRequestError says what is wrong with a request body. Message is a bounded sentence
// for the client; it quotes only names of known fields.
type BadRequestError struct {
	Message string
	Param   string // the field at fault, "" where there is none
}

// Error is the message.
func (e *BadRequestError) Error() string { return e.Message }

// Refusal is a reason in terms of HTTP.
type Refusal struct {
	Status     int
	Type, Code string
	// Param is the parameter at fault if the denial names none, "" for null.
	Param string
	// Message is the sentence for a denial that brings none.
	Message string
	// RetryAfterSeconds adds retry-after and retry-after-ms, with one second where the
	// denial names no time.
	RetryAfterSeconds bool
	// NoRetry adds x-should-retry: false, so that SDKs do not try again.
	NoRetry bool
}

// Header is one response header; the name is in lower case.
type Header struct{ Name, Value string }

// The error types and codes of OpenAI bodies.
const (
	typeInvalid = "invalid_request_error"
	typeRate    = "rate_limit_error"
	typeServer  = "server_error"
	typeQuota   = "insufficient_quota"

	codeInvalidKey  = "invalid_api_key"
	codePermissions = "insufficient_permissions"
	codeModel       = "model_not_found"
	codeRate        = "rate_limit_exceeded"
	codeConcurrency = "concurrency_limit_exceeded"
	codeQuota       = "insufficient_quota"
	codeInvalid     = "invalid_request"
	codeService     = "service_unavailable"
	codeEngine      = "engine_unavailable"
	codeNotFound    = "not_found"
	codeMethod      = "method_not_allowed"
	codeUpgrade     = "upgrade_required"
	codeTimeout     = "request_timeout"
	codeTooLarge    = "request_too_large"
	codeMedia       = "unsupported_media_type"
	codeAnswer      = "bad_engine_answer"
)

// maxMessage bounds the message of an error body, in bytes.
const maxMessage = 1024

// Denied is the one place where a reason turns into HTTP.
func Denied(r admission.Reason) Refusal {
	switch r {
	case admission.MissingKey, admission.InvalidKey, admission.MalformedKey, admission.NotAdmin:
		return keyRefusal(r)
	case admission.AddressRate:
		return rateRefusal("Too many requests from this client address; slow down and try again.")
	case admission.RequestRate:
		return rateRefusal("The requests per minute of this key are used up; try again after the time in retry-after.")
	case admission.TokenRate:
		return rateRefusal("The tokens per minute of this key are used up; try again after the time in retry-after.")
	case admission.GlobalSlots:
		return slotsRefusal("The gateway is running as many requests as it may; try again shortly.")
	case admission.KeySlots:
		return slotsRefusal("This key is running as many requests at once as it may; wait for one to end and try again.")
	case admission.QuotaSpent:
		return Refusal{
			Status: http.StatusTooManyRequests, Type: typeQuota, Code: codeQuota, NoRetry: true,
			Message: "The token quota of this key is used up; ask your administrator to raise it.",
		}
	case admission.ModelUnknown:
		return Refusal{
			Status: http.StatusNotFound, Type: typeInvalid, Code: codeModel, Param: "model",
			Message: "The model does not exist or this key may not use it; GET /v1/models lists the names.",
		}
	case admission.BadRequest:
		return Refusal{
			Status: http.StatusBadRequest, Type: typeInvalid, Code: codeInvalid,
			Message: "The request is malformed; correct it before you send it again.",
		}
	case admission.UnsupportedMedia, admission.BadAnswer:
		return unreadable(r)
	case admission.NotFound, admission.WrongMethod, admission.OtherProtocol, admission.TooLarge:
		return shapeRefusal(r)
	case admission.KeyBodies, admission.SlowBody:
		return bodyRefusal(r)
	case admission.Unavailable, admission.EngineUnavailable, admission.Cancelled:
	}
	return serverRefusal(r)
}

// shapeRefusal refuses a request for its method, path or headers. Sent again it would
// be refused again.
func shapeRefusal(r admission.Reason) Refusal {
	d := Refusal{Type: typeInvalid, NoRetry: true}
	switch r { //nolint:exhaustive // the others are not for here
	case admission.WrongMethod:
		d.Status, d.Code = http.StatusMethodNotAllowed, codeMethod
		d.Message = "Method not allowed on this path; see the allow header."
	case admission.OtherProtocol:
		d.Status, d.Code = http.StatusUpgradeRequired, codeUpgrade
		d.Message = "WebSocket is not spoken here; send POST requests, with 'stream': true for an event stream."
	case admission.TooLarge:
		d.Status, d.Code = http.StatusRequestEntityTooLarge, codeTooLarge
		d.Message = "The request body is larger than request.max_body_mb allows; send a smaller one."
	default:
		d.Status, d.Code = http.StatusNotFound, codeNotFound
		d.Message = "Unknown path. The base URL of OpenAI clients is http://HOST/v1, that of Anthropic clients http://HOST; a path does not end in a slash."
	}
	return d
}

// serverRefusal refuses a request for a reason on our side.
func serverRefusal(r admission.Reason) Refusal {
	switch r { //nolint:exhaustive // the others are not for here
	case admission.EngineUnavailable:
		return unavailable(codeEngine, "The model server is not ready; try again shortly.")
	case admission.Cancelled:
		return Refusal{
			Status: http.StatusServiceUnavailable, Type: typeServer, Code: codeService, NoRetry: true,
			Message: "The request was cancelled by an administrator before it was run.",
		}
	}
	return unavailable(codeService, "The gateway cannot take this request now; try again shortly.")
}

// bodyRefusal refuses a request while its body arrives.
func bodyRefusal(r admission.Reason) Refusal {
	if r == admission.KeyBodies {
		return rateRefusal("The request bodies of this key that are being read fill its share of memory; send fewer large ones at once, and try again shortly.")
	}
	return Refusal{
		Status: http.StatusRequestTimeout, Type: typeInvalid, Code: codeTimeout, NoRetry: true,
		Message: "The request's body came too slowly: send at least 10 KiB in 10 seconds.",
	}
}

// keyRefusal distinguishes a missing key from a wrong one. An unknown, a disabled and
// an expired key get the same body, so that an answer does not tell which keys exist.
func keyRefusal(r admission.Reason) Refusal {
	switch r { //nolint:exhaustive // the others are not for here
	case admission.MalformedKey:
		return Refusal{
			Status: http.StatusBadRequest, Type: typeInvalid, Code: codeInvalid,
			Message: "The API key is malformed: send one key, in 'Authorization: Bearer sk-...' or in 'x-api-key', without spaces or commas, and no other key beside it.",
		}
	case admission.NotAdmin:
		return Refusal{
			Status: http.StatusForbidden, Type: typeInvalid, Code: codePermissions,
			Message: "This route needs an admin key.",
		}
	case admission.MissingKey:
		return Refusal{
			Status: http.StatusUnauthorized, Type: typeInvalid, Code: codeInvalidKey,
			Message: "No API key was sent: send it in 'Authorization: Bearer sk-...' or in 'x-api-key'. Ask your administrator for a key.",
		}
	}
	return Refusal{
		Status: http.StatusUnauthorized, Type: typeInvalid, Code: codeInvalidKey,
		Message: "The API key that was sent is wrong: it is unknown, disabled or expired. Check it, or ask your administrator for a new one.",
	}
}

// unreadable refuses a request or an answer in a form that we cannot read.
func unreadable(r admission.Reason) Refusal {
	if r == admission.UnsupportedMedia {
		return Refusal{
			Status: http.StatusUnsupportedMediaType, Type: typeInvalid, Code: codeMedia,
			Message: "The request body is not read in this form; send plain JSON with 'content-type: application/json'.",
		}
	}
	return Refusal{
		// The engine would run a second attempt too, and it would end here again.
		Status: http.StatusBadGateway, Type: typeServer, Code: codeAnswer, NoRetry: true,
		Message: "The model server answered with neither JSON nor an event stream; its answer was not passed on. Tell your administrator: something between the gateway and the model server may have changed it.",
	}
}

func rateRefusal(message string) Refusal {
	return Refusal{
		Status: http.StatusTooManyRequests, Type: typeRate, Code: codeRate,
		Message: message, RetryAfterSeconds: true,
	}
}

func slotsRefusal(message string) Refusal {
	return Refusal{
		Status: http.StatusTooManyRequests, Type: typeRate, Code: codeConcurrency,
		Message: message, RetryAfterSeconds: true,
	}
}

func unavailable(code, message string) Refusal {
	return Refusal{
		Status: http.StatusServiceUnavailable, Type: typeServer, Code: code,
		Message: message, RetryAfterSeconds: true,
	}
}

// Answer is the whole response to a denial on one route; an unknown route ("")
// gets OpenAI's shape. The message of a 401 is never the denial's own.
func Answer(ep Endpoint, d *admission.DenialError) (status int, headers []Header, body []byte) {
	r := Denied(d.Reason)
	switch {
	case d.Message != "" && r.Status != http.StatusUnauthorized:
		r.Message = d.Message
	default:
		if s := sentence(d); s != "" {
			r.Message = s
		}
	}
	if d.Param != "" {
		r.Param = d.Param
	}
	headers = append(headers, Header{"content-type", "application/json"})
	if r.Status == http.StatusUnauthorized {
		headers = append(headers, Header{"www-authenticate", "Bearer"})
	}
	if r.RetryAfterSeconds {
		wait := d.RetryAfter
		if wait <= 0 {
			wait = time.Second
		}
		headers = append(headers,
			Header{"retry-after", strconv.FormatInt(ceil(wait, time.Second), 10)},
			Header{"retry-after-ms", strconv.FormatInt(ceil(wait, time.Millisecond), 10)})
	}
	if r.NoRetry {
		headers = append(headers, Header{"x-should-retry", "false"})
	}
	if d.Allow != "" {
		headers = append(headers, Header{"allow", d.Allow})
	}
	headers = append(headers, LimitHeaders(said(d))...)
	return r.Status, headers, Body(ep, r.Message, r.Type, r.Param, r.Code)
}

// Body is an error body: OpenAI's shape, or Anthropic's on its routes. An empty
// param or code is null. The message is cut at 1 KiB.
func Body(ep Endpoint, message, typ, param, code string) []byte {
	message = clip(message)
	if ep.Anthropic() {
		b := appendQuoted([]byte(`{"type":"error","error":{"type":`), anthropicType(typ, code))
		b = appendQuoted(append(b, `,"message":`...), message)
		return append(b, "}}"...)
	}
	b := appendQuoted([]byte(`{"error":{"message":`), message)
	b = appendQuoted(append(b, `,"type":`...), typ)
	b = appendNullable(append(b, `,"param":`...), param)
	b = appendNullable(append(b, `,"code":`...), code)
	return append(b, "}}"...)
}

func appendNullable(b []byte, s string) []byte {
	if s == "" {
		return append(b, "null"...)
	}
	return appendQuoted(b, s)
}

func anthropicType(typ, code string) string {
	switch code {
	case codeInvalidKey:
		return "authentication_error"
	case codePermissions:
		return "permission_error"
	case codeModel, codeNotFound:
		return "not_found_error"
	case codeTooLarge:
		return "request_too_large"
	case codeTimeout:
		return "timeout_error"
	case codeService, codeEngine:
		return "overloaded_error"
	}
	switch typ {
	case typeRate, typeQuota:
		return "rate_limit_error"
	case typeServer:
		return "api_error"
	}
	return "invalid_request_error"
}

func clip(s string) string {
	if len(s) <= maxMessage {
		return s
	}
	n := maxMessage
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
