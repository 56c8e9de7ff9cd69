package vllmsim

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// The error types of vLLM's bodies.
const (
	kindValidation = "Bad Request" // the request did not parse
	kindBadRequest = "BadRequestError"
	kindNotFound   = "NotFoundError"
	kindInternal   = "InternalServerError"
	kindInput      = "InvalidUserInput"
	kindBusy       = "Service Unavailable"
)

const (
	messageBusy       = "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance."
	messageEngineDead = "EngineCore encountered an issue. See stack trace (above) for the root cause."
	messageDraining   = "cannot schedule new futures after shutdown"
)

// problem is an error answer.
type problem struct {
	status  int
	message string
	kind    string
	param   string // "" is null
}

// invalid is a validation error of one field.
func invalid(loc, kind, msg, input string) *problem {
	return &problem{
		status: http.StatusBadRequest, kind: kindValidation, param: loc,
		message: fmt.Sprintf("1 validation error:\n  {'type': '%s', 'loc': '%s', 'msg': '%s', 'input': '%s'}", kind, loc, msg, input),
	}
}

func badRequest(param, format string, args ...any) *problem {
	return &problem{status: http.StatusBadRequest, kind: kindBadRequest, param: param, message: fmt.Sprintf(format, args...)}
}

func internalError(message string) *problem {
	return &problem{status: http.StatusInternalServerError, kind: kindInternal, message: message}
}

// openAI is the body on the OpenAI routes.
func (p *problem) openAI() []byte {
	b := appendString([]byte(`{"error":{"message":`), p.message)
	b = appendString(append(b, `,"type":`...), p.kind)
	b = append(b, `,"param":`...)
	b = appendOptional(b, p.param)
	b = strconv.AppendInt(append(b, `,"code":`...), int64(p.status), 10)
	return append(b, "}}"...)
}

// spaced is the same as Python's json.dumps writes it, which is how vLLM
// writes errors into a stream.
func (p *problem) spaced() []byte {
	b := appendString([]byte(`{"error": {"message": `), p.message)
	b = appendString(append(b, `, "type": `...), p.kind)
	b = append(b, `, "param": `...)
	b = appendOptional(b, p.param)
	b = strconv.AppendInt(append(b, `, "code": `...), int64(p.status), 10)
	return append(b, "}}"...)
}

// anthropic is the body on /v1/messages.
func (p *problem) anthropic(kind string) []byte {
	b := appendString([]byte(`{"type":"error","error":{"type":`), kind)
	b = appendString(append(b, `,"message":`...), p.message)
	return append(b, "}}"...)
}

func appendString(b []byte, s string) []byte {
	quoted, err := jsontext.AppendQuote(b, s)
	if err != nil { // not UTF-8: replaced, as Python would
		quoted, _ = jsontext.AppendQuote(b, strings.ToValidUTF8(s, "\uFFFD"))
	}
	return quoted
}

// appendOptional appends s, or null for "".
func appendOptional(b []byte, s string) []byte {
	if s == "" {
		return append(b, "null"...)
	}
	return appendString(b, s)
}
