package admission_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"tollgate/internal/admission"
	"tollgate/internal/apikey"
	"tollgate/internal/ledger"
)

func TestAClientThatLeavesDuringTheCheckHoldsNoSlot(t *testing.T) {
	for name, c := range map[string]struct {
		cause    admission.Cause
		logFirst bool
	}{
		"the log comes after the check":       {admission.CauseClient, false},
		"the log overtakes the check":         {admission.CauseClient, true},
		"the proxy has waited for too long":   {admission.CauseGateway, false},
		"and its log has overtaken the check": {admission.CauseGateway, true},
	} {
		t.Run(name, func(t *testing.T) {
			logFirst := c.logFirst
			gone := admission.Witness{RequestID: "req-1", Cause: c.cause} // no lease: the proxy never read the answer
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, unlimited)
				if logFirst {
					b.Witness(gone)
				}
				ticket, err := b.Admit(t.Context(), arrive(keyA))
				if logFirst != errors.Is(err, admission.ErrGone) {
					t.Errorf("admit: %v", err)
				}
				if !logFirst {
					b.Witness(gone)
				}
				if got := b.totals(); got.Leases != 0 || got.Expired != 0 {
					t.Errorf("left over: %+v", got)
				}
				if got := b.view("a").RequestsWindow; got != 0 {
					t.Errorf("requests: got %d, want 0", got)
				}
				if _, err := b.Claim(t.Context(), ticket.LeaseID); !errors.Is(err, admission.ErrTicket) {
					t.Errorf("the ticket is still good: %v", err)
				}
			})
		})
	}
}

func TestALogEntryWithoutALeaseLeavesOtherRequestsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, unlimited)
		s := b.live(keyA)
		for i := range 3000 { // more than are remembered
			b.Witness(admission.Witness{RequestID: fmt.Sprint("other-", i), Cause: admission.CauseClient})
		}
		b.Witness(admission.Witness{RequestID: "req-1", Cause: admission.CauseDenied}) // a claimed request is found by its lease only
		if got := b.totals(); got.Leases != 1 {
			t.Errorf("leases: got %d, want 1", got.Leases)
		}
		s.Close(t.Context(), admission.Outcome{Reason: ledger.Complete, Status: 200, Report: said(12, 3, true)})
	})
}

// turning is a key file that changes between two looks at it.
type turning struct{ rings []*apikey.Ring }

func (k *turning) Current() *apikey.Ring {
	r := k.rings[0]
	if len(k.rings) > 1 {
		k.rings = k.rings[1:]
	}
	return r
}

func TestARevocationMissesNoRequestBetweenCheckAndStream(t *testing.T) {
	disabled := strings.Replace(keyFile, `"user": "ann"`, `"user": "ann", "enabled": false`, 1)
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, unlimited)
		ticket, err := b.Admit(t.Context(), arrive(keyA))
		if err != nil {
			t.Fatal(err)
		}
		b.Revoke(ring(t, disabled))
		s, err := b.Claim(t.Context(), ticket.LeaseID)
		if err != nil {
			t.Fatal(err)
		}
		cut := false
		s.OnCut(func() { cut = true })
		if err := s.Reserve(t.Context(), order()); !cut || reason(err) != admission.Cancelled {
			t.Errorf("a ticket from before the revocation: cut %v, %v", cut, err)
		}
		s.Close(t.Context(), admission.Outcome{Reason: ledger.Aborted})
	})
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, unlimited, func(o *admission.Options) {
			o.Keys = &turning{[]*apikey.Ring{ring(t, keyFile), ring(t, disabled)}}
		})
		if _, err := b.Admit(t.Context(), arrive(keyA)); reason(err) != admission.InvalidKey {
			t.Errorf("a key that was disabled during the check: %v", err)
		}
		if got := b.totals(); got.Leases != 0 {
			t.Errorf("leases: got %d, want 0", got.Leases)
		}
	})
}
