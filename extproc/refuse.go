package extproc

import (
	"strings"

	"tollgate/internal/admission"
	"tollgate/internal/limit"
)

// refuseSelf refuses before the gate was asked to reserve.
func (x *exchange) refuseSelf(d *admission.DenialError) *outbound {
	x.session.Refused(d.Reason)
	return x.refuse(d)
}

// refuse answers the client instead of vLLM. The rate headers are those of the
// decision that refused, or of the admission where the refusal was no decision
// over a limit.
func (x *exchange) refuse(d *admission.DenialError) *outbound {
	answer := *d
	if x.session != nil && d.Requests.Limit == limit.Unlimited && d.Tokens.Limit == limit.Unlimited && d.Quota.Limit == limit.Unlimited {
		answer.Standing = x.session.Standing()
	}
	x.freeBody()
	x.refused = true
	return immediate(x.endpoint, &answer)
}

// noBody refuses a request that has to have a body.
const noBody = "The request has no body; send a JSON object."

// compressed refuses a body in a content coding: what cannot be read cannot be
// checked.
func compressed(coding string) *admission.DenialError {
	d := admission.Deny(admission.UnsupportedMedia)
	d.Message = "The request body is encoded as '" + printable(coding) + "'; send it without a 'content-encoding'."
	return d
}

// printable is a client's word as it may stand in an answer.
func printable(word string) string {
	const longest = 64 // bytes
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\'' || r == '\\' {
			return '?'
		}
		return r
	}, word[:min(len(word), longest)])
}

func badBody(message, param string) *admission.DenialError {
	d := admission.Deny(admission.BadRequest)
	d.Message, d.Param = message, param
	return d
}
