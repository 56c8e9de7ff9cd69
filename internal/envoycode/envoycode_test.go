package envoycode_test

import (
	"testing"

	"tollgate/internal/admission"
	"tollgate/internal/envoycode"
)

// The details are those that Envoy 1.40.0 gave in the situations named.
func TestCausesOfEnvoysDetails(t *testing.T) {
	for _, c := range []struct {
		details string
		gone    bool
		status  int
		want    admission.Cause
	}{
		{"via_upstream", false, 200, admission.CauseNone},
		{"via_upstream", false, 503, admission.CauseNone},
		{"via_upstream", true, 200, admission.CauseClient},
		{"downstream_remote_disconnect", true, 200, admission.CauseClient},
		{"downstream_remote_disconnect", false, 0, admission.CauseClient},
		{"http2.remote_reset", false, 200, admission.CauseClient},
		{"upstream_reset_after_response_started{protocol_error}", false, 200, admission.CauseUpstream},
		{"upstream_reset_before_response_started{connection_termination}", false, 503, admission.CauseUpstream},
		{"upstream_reset_before_response_started{remote_connection_failure|immediate_connect_error}", false, 503, admission.CauseUnreached},
		{"upstream_reset_before_response_started{connection_timeout}", false, 503, admission.CauseUnreached},
		{"upstream_reset_before_response_started{overflow}", false, 503, admission.CauseUnreached},
		{"no_healthy_upstream", false, 503, admission.CauseUnreached},
		{"stream_idle_timeout", false, 504, admission.CauseTimeout},
		{"request_overall_timeout", false, 408, admission.CauseRequest},
		{"request_payload_too_large", false, 413, admission.CauseRequest},
		{"direct_response", false, 404, admission.CauseRequest},
		{"ext_authz_denied", false, 429, admission.CauseDenied},
		{"tollgate_tokens", false, 429, admission.CauseDenied},
		{"meter_unreadable", false, 502, admission.CauseDenied},
		{"meter_full", false, 503, admission.CauseGateway},
		{"meter_cut", false, 200, admission.CauseGateway},
		{"ext_authz_error", false, 503, admission.CauseGateway},
		{"ext_proc_error_gRPC_error_14{...}", false, 503, admission.CauseGateway},
		{"", false, 0, admission.CauseClient},
	} {
		if got := envoycode.Cause(c.details, c.gone, c.status); got != c.want {
			t.Errorf("%q, client gone %v, status %d: got %d, want %d", c.details, c.gone, c.status, got, c.want)
		}
	}
}

func TestOurOwnDetailsSayWhy(t *testing.T) {
	for _, r := range admission.Reasons() {
		if got := envoycode.Reason(envoycode.Details(r)); got != r {
			t.Errorf("%s: got %q", r, got)
		}
	}
	if got := envoycode.Reason("via_upstream"); got != "" {
		t.Errorf("somebody else's details say %q", got)
	}
}
