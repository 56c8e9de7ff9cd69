package admission_test

import (
	"testing"
	"testing/synctest"
	"time"

	"tollgate/internal/admission"
	"tollgate/internal/ledger"
)

const keyShared = "sk-shared000000000000000000"

// The person behind a request is named by keys that are trusted to do so, and the name
// stays with the request: at another gateway, and after a restart.
func TestOnlyATrustedKeyNamesThePersonBehindIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := fixedKeys{ring(t, `[{"key":"`+keyA+`","id":"a","user":"ann"},
			{"key":"`+keyShared+`","id":"webui","user":"webui","trust_end_user":true},
			{"key":"sk-admin0000000000000000000","id":"root","user":"admin"}]`)}
		with := func(o *admission.Options) { o.Keys = keys }
		origin := newBench(t, unlimited, with)
		b := newBench(t, unlimited, with, func(o *admission.Options) { o.Limits, o.Ledger = origin.limits, origin.ledger })
		b.limits, b.ledger = origin.limits, origin.ledger
		for secret, want := range map[string]string{keyA: "", keyShared: "eve@example.org"} {
			a := arrive(secret)
			a.EndUser = "eve@example.org"
			ticket, err := origin.Admit(t.Context(), a)
			if err != nil {
				t.Fatal(err)
			}
			s, err := b.ClaimFacts(t.Context(), ticket.Facts())
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Reserve(t.Context(), order()); err != nil {
				t.Fatal(err)
			}
			rec := b.record(s)
			if rec.EndUser != want || len(rec.Secret) != 8 || rec.RequestedModel != "tiny" {
				t.Errorf("the intent has end user %q, secret %q, requested model %q; want %q, eight digits, tiny", rec.EndUser, rec.Secret, rec.RequestedModel, want)
			}
			after := newBench(t, unlimited, with)
			after.ledger = b.ledger
			if err := after.Attach(t.Context(), rec, nil); err != nil {
				t.Fatal(err)
			}
			if live := after.Live(); len(live) != 1 || live[0].EndUser != want {
				t.Errorf("after a restart: %+v", live)
			}
			s.Close(t.Context(), admission.Outcome{Reason: ledger.Complete, Status: 200, Report: said(12, 4, true)})
			origin.Witness(admission.Witness{LeaseID: s.LeaseID(), Status: 200})
			b.Witness(admission.Witness{LeaseID: s.LeaseID(), Status: 200})
			time.Sleep(2 * time.Second)
		}
	})
}
