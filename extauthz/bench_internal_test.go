package extauthz

import (
	"testing"

	"tollgate/internal/admission"
	"tollgate/internal/route"
	"tollgate/internal/ticket"
	"tollgate/internal/trace"
)

// BenchmarkAnswer is the part of a check that traces add to: the span's identity and the
// answer. Without traces it is what it was before there were any.
func BenchmarkAnswer(b *testing.B) {
	all := trace.NewSampler(1)
	for name, sampler := range map[string]*trace.Sampler{"traces off": nil, "traces on": &all} {
		b.Run(name, func(b *testing.B) {
			s := &Server{o: Options{Trace: sampler}}
			r, _ := route.Find("POST", "/v1/chat/completions")
			c := &check{route: r, headers: headers{traceparent: []string{"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}}
			b.ReportAllocs()
			for b.Loop() {
				var a admission.Arrival
				passed := s.trace(c, &a)
				out := pass(c.route, &a, admission.Ticket{}, ticket.Ticket{LeaseID: "01a216c24089031d127ea0e99970a206", KeyID: "ann", Trace: a.Trace.String()})
				out.trace = passed
				if _, err := out.Encode(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestWithoutTracesNothingIsMade(t *testing.T) {
	s := &Server{}
	r, _ := route.Find("POST", "/v1/chat/completions")
	c := &check{route: r, headers: headers{traceparent: []string{"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}}
	var a admission.Arrival
	allocated := testing.AllocsPerRun(100, func() {
		if passed := s.trace(c, &a); passed != (trace.Passed{}) || !a.Trace.None() {
			t.Fatal("there is a trace")
		}
	})
	if allocated > 0 {
		t.Errorf("%v allocations", allocated)
	}
}
