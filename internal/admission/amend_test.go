package admission_test

import (
	"testing"
	"testing/synctest"
	"time"

	"tollgate/internal/admission"
	"tollgate/internal/ledger"
	"tollgate/internal/limit"
)

// TestABetterAccountCorrectsWhatWasCounted: the proxy's log spoke, or its death was
// seen, and then the meter comes with what it knows.
func TestABetterAccountCorrectsWhatWasCounted(t *testing.T) {
	for name, closed := range map[string]func(*bench, *admission.Session){
		"the log spoke": func(b *bench, s *admission.Session) {
			b.Witness(admission.Witness{LeaseID: s.LeaseID(), Cause: admission.CauseClient})
			time.Sleep(3 * time.Second)
		},
		"its Envoy seemed dead": func(b *bench, s *admission.Session) { b.InstanceGone(b.t.Context(), envoy1) },
		"and that is long ago": func(b *bench, s *admission.Session) {
			b.InstanceGone(b.t.Context(), envoy1)
			time.Sleep(5 * time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, limit.Caps{
					Global: limit.Unlimited, Concurrent: limit.Unlimited, Requests: limit.Unlimited, Tokens: 1000, Quota: limit.Unlimited,
				})
				s := b.handedOver(nil)
				b.Progress(s.LeaseID(), 12, 40)
				closed(b, s)
				if rec := b.record(s); rec.Quality != ledger.Partial {
					t.Fatalf("the row says %+v", rec)
				}
				for range 2 {
					if err := b.Ended(t.Context(), s.LeaseID(), done(99)); err != nil {
						t.Fatal(err)
					}
				}
				rec := b.record(s)
				if rec.Quality != ledger.Exact || rec.Counts.Completion != 99 || rec.Reason != ledger.Complete {
					t.Errorf("the row says %+v", rec)
				}
				if in, out := b.metric("token_usage_total", "type", "input"), b.metric("token_usage_total", "type", "output"); in != 12 || out != 99 {
					t.Errorf("counted %v + %v tokens, want 12 + 99", in, out)
				}
				if v := b.view("a"); v.TokensWindow != 12+99 {
					t.Errorf("the window has %d tokens, want 111", v.TokensWindow)
				}
				if left := b.totals(); left.Leases != 0 || left.Reserved != 0 || left.Slots != 0 {
					t.Errorf("left over: %+v", left)
				}
			})
		})
	}
}
