// Package envoycode explains how a request ended, from Envoy's response code details
// (RESPONSE_CODE_DETAILS) and response flags. ext_proc and the access log both receive
// them and must read them in the same way.
//
// The strings are Envoy 1.40's (StreamInfo::ResponseCodeDetails), as seen on
// the real program.
package envoycode

import (
	"strings"

	"tollgate/internal/admission"
)

// ViaUpstream is the detail of an answer that came from the engine.
const ViaUpstream = "via_upstream"

// Details prefixes that say who wrote an answer.
const (
	authzDenied = "ext_authz_denied"
	// ours is the prefix of the details of every ImmediateResponse of ext_proc.
	ours = "tollgate_"
	// meters is the prefix of the details where the meter inside Envoy refuses or cuts.
	meters = "meter_"
	// meterUnreadable follows where the meter refuses an answer that cannot be counted.
	meterUnreadable = meters + "unreadable"
)

// Details is the response code detail of our own refusal.
func Details(r admission.Reason) string { return ours + string(r) }

// Reason is the reason in the details of our own refusal by ext_proc, or by the
// meter inside Envoy in its place; "" for anything else.
func Reason(details string) admission.Reason {
	if r, ok := strings.CutPrefix(details, ours); ok {
		return admission.Reason(r)
	}
	if details == meterUnreadable {
		return admission.BadAnswer
	}
	return ""
}

// Cause reads the details of a finished request. clientGone and status come from the
// log entry: whether Envoy's flags say that the client left, and the status that was
// sent (0 = none).
func Cause(details string, clientGone bool, status int) admission.Cause {
	switch {
	case strings.HasPrefix(details, ours), details == authzDenied, details == meterUnreadable:
		return admission.CauseDenied
	case clientGone, strings.HasPrefix(details, "downstream_"), strings.Contains(details, "remote_reset") && !strings.HasPrefix(details, "upstream_"):
		return admission.CauseClient
	case details == ViaUpstream:
		return admission.CauseNone
	case strings.HasPrefix(details, "ext_authz_"), strings.HasPrefix(details, "ext_proc_"), strings.HasPrefix(details, meters):
		return admission.CauseGateway
	case unreached(details):
		return admission.CauseUnreached
	case strings.HasPrefix(details, "upstream_reset_"):
		return admission.CauseUpstream
	case timedOut(details):
		return admission.CauseTimeout
	case status == 0:
		return admission.CauseClient
	case status >= 400 && status < 500:
		return admission.CauseRequest
	case status >= 500:
		return admission.CauseUpstream
	}
	return admission.CauseNone
}

// unreached reports that no engine has seen the request.
func unreached(details string) bool {
	if details == "no_healthy_upstream" || details == "cluster_not_found" || details == "maintenance_mode" {
		return true
	}
	if !strings.HasPrefix(details, "upstream_reset_before_response_started{") {
		return false
	}
	for _, why := range []string{"connection_failure", "connection_timeout", "overflow", "remote_refused_stream_reset"} {
		if strings.Contains(details, why) {
			return true
		}
	}
	return false
}

// timedOut reports that the engine was silent for too long. A client that takes too
// long to send its request (request_overall_timeout) is not meant.
func timedOut(details string) bool {
	switch details {
	case "stream_idle_timeout", "upstream_response_timeout", "upstream_per_try_timeout",
		"upstream_per_try_idle_timeout", "max_duration_timeout", "upstream_max_stream_duration_reached":
		return true
	}
	return false
}
