package extauthz_test

import (
	"net/http"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"

	"tollgate/internal/admission"
	"tollgate/internal/trace"
)

const (
	clientTrace = "0af7651916cd43dd8448eb211c80319c"
	clientSpan  = "b7ad6b7169203331"
	traceparent = "00-" + clientTrace + "-" + clientSpan + "-01"
)

// told is what an answer makes the engine hear of a trace.
func told(out *authv3.CheckResponse) (traceparent string, stateless bool) {
	for _, h := range out.GetOkResponse().GetHeaders() {
		if h.GetHeader().GetKey() == trace.Header && h.GetAppendAction() == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD {
			traceparent = h.GetHeader().GetValue()
		}
	}
	return traceparent, strings.Contains(strings.Join(out.GetOkResponse().GetHeadersToRemove(), ","), trace.StateHeader)
}

func TestTheEngineHearsOfTheSpanOfThisGateway(t *testing.T) {
	all := trace.NewSampler(1)
	for name, c := range map[string]struct {
		sampler   *trace.Sampler
		headers   []string
		inTrace   bool // the client's
		traced    bool
		stateless bool
	}{
		"a child":            {&all, []string{"traceparent", traceparent, "tracestate", "a=b"}, true, true, false},
		"a root":             {&all, nil, false, true, true},
		"two parents":        {&all, []string{"traceparent", traceparent, "traceparent", traceparent}, false, true, true},
		"garbage":            {&all, []string{"traceparent", "00-x"}, false, true, true},
		"the client says no": {&all, []string{"traceparent", traceparent[:len(traceparent)-1] + "0"}, true, false, false},
		"nobody is sampled":  {new(trace.Sampler), nil, false, false, true},
	} {
		in := local()
		in.headers = append(in.headers, c.headers...)
		g := &gate{ticket: admission.Ticket{LeaseID: "l1", KeyID: "k1"}}
		out, err := askTraced(t, g, c.sampler, in)
		if err != nil || codes.Code(out.GetStatus().GetCode()) != codes.OK {
			t.Fatalf("%s: got %v, %v", name, out, err)
		}
		header, stateless := told(out)
		carried := out.GetDynamicMetadata().GetFields()["trace"].GetStringValue()
		if strings.HasPrefix(header, "00-"+clientTrace) != c.inTrace || strings.Contains(header, clientSpan) || stateless != c.stateless {
			t.Errorf("%s: the engine is told %q, without tracestate %v", name, header, stateless)
		}
		if g.asked.Trace.None() == c.traced || carried != g.asked.Trace.String() {
			t.Errorf("%s: the gate gets %q, the ticket has %q", name, g.asked.Trace, carried)
		}
		if c.traced && !strings.HasPrefix(header, "00-"+carried[:len(clientTrace)+1+len(clientSpan)]) {
			t.Errorf("%s: the engine is told %q, the ticket has %q", name, header, carried)
		}
	}
}

func TestARefusalCarriesItsTraceToTheLog(t *testing.T) {
	all := trace.NewSampler(1)
	in := local()
	in.headers = append(in.headers, "traceparent", traceparent)
	out, err := askTraced(t, &gate{err: admission.Deny(admission.MissingKey)}, &all, in)
	if err != nil {
		t.Fatal(err)
	}
	if got := out.GetDynamicMetadata().GetFields()["trace"].GetStringValue(); !strings.HasPrefix(got, clientTrace+"-") || !strings.HasSuffix(got, "-"+clientSpan) {
		t.Errorf("the refusal carries %q", got)
	}
}

func TestPagesAndAGatewayWithoutTracesLeaveTheHeaderAlone(t *testing.T) {
	all := trace.NewSampler(1)
	page := local()
	page.method, page.path = http.MethodGet, "/health"
	for name, c := range map[string]struct {
		sampler *trace.Sampler
		in      check
	}{"a page": {&all, page}, "no traces": {nil, local()}} {
		c.in.headers = append(c.in.headers, "traceparent", traceparent)
		out, err := askTraced(t, &gate{}, c.sampler, c.in)
		if err != nil {
			t.Fatal(err)
		}
		if header, stateless := told(out); header != "" || stateless || out.GetDynamicMetadata().GetFields()["trace"] != nil {
			t.Errorf("%s: got %v", name, out)
		}
	}
}
