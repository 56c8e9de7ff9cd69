package admission_test

import (
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"tollgate/internal/admission"
	"tollgate/internal/ledger"
	"tollgate/internal/limit"
	"tollgate/internal/usage"
)

// replicas are gates with ledgers of their own that share their limits.
func replicas(t *testing.T, n int) []*bench {
	t.Helper()
	var all []*bench
	for range n {
		all = append(all, newBench(t, unlimited, func(o *admission.Options) {
			o.Shared = true
			if len(all) > 0 {
				o.Limits = all[0].limits
			}
		}))
	}
	return all
}

// travel is the way of the facts through a ticket.
func travel(t *testing.T, f admission.Facts) (out admission.Facts) {
	t.Helper()
	text, err := json.Marshal(f)
	if err == nil {
		err = json.Unmarshal(text, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestATicketIsGoodAtAnyReplica: issued by one gate, claimed at a second, logged at a
// third, which tells all.
func TestATicketIsGoodAtAnyReplica(t *testing.T) { //nolint:gocyclo // one story, told in order
	synctest.Test(t, func(t *testing.T) {
		all := replicas(t, 3)
		origin, holder, third := all[0], all[1], all[2]
		ticket, err := origin.Admit(t.Context(), arrive(keyA))
		if err != nil {
			t.Fatal(err)
		}
		s, err := holder.ClaimFacts(t.Context(), travel(t, ticket.Facts()))
		if err != nil {
			t.Fatalf("ClaimFacts: %v", err)
		}
		for name, again := range map[string]*bench{"third": third, "holder": holder} {
			if _, err := again.ClaimFacts(t.Context(), ticket.Facts()); !errors.Is(err, admission.ErrTicket) {
				t.Errorf("claimed again at the %s: got %v, want ErrTicket", name, err)
			}
		}
		if err := s.Reserve(t.Context(), order()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * limit.ProvisionalLife) // the origin gives its ticket up
		if got, _ := origin.limits.Totals(t.Context()); got.Leases != 1 {
			t.Fatalf("leases while it runs: %d", got.Leases)
		}
		if len(holder.Live()) != 1 || len(origin.Live())+len(third.Live()) != 0 {
			t.Error("the list is not that of the holder")
		}
		if !holder.Holds(ticket.LeaseID) || origin.Holds(ticket.LeaseID) {
			t.Error("it is not the holder that holds the lease")
		}
		s.Close(t.Context(), admission.Outcome{Reason: ledger.Aborted, Report: usage.Report{Counts: usage.None()}})
		entry := admission.Witness{LeaseID: ticket.LeaseID, RequestID: arrive(keyA).RequestID, Cause: admission.CauseClient, Status: 200}
		for _, gate := range all {
			gate.Witness(entry)
		}
		synctest.Wait()
		for i, want := range []int{0, 1, 0} {
			all[i].mu.Lock()
			if got := all[i].access; len(got) != want {
				t.Errorf("replica %d: %d access records, want %d: %+v", i, len(got), want, got)
			}
			all[i].mu.Unlock()
		}
		rec, err := holder.ledger.Get(t.Context(), ticket.LeaseID)
		if err != nil || rec.Reason != ledger.ClientAbort {
			t.Errorf("the row: %v, %v, want an abort of the client", rec.Reason, err)
		}
		if got, _ := origin.limits.Totals(t.Context()); got.Leases != 0 {
			t.Errorf("leases in the end: %d", got.Leases)
		}
	})
}

// TestATicketThatNobodyClaimsIsItsOriginsOwn: its log entry comes to another replica.
func TestATicketThatNobodyClaimsIsItsOriginsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := replicas(t, 2)
		ticket, err := all[0].Admit(t.Context(), arrive(keyA))
		if err != nil {
			t.Fatal(err)
		}
		entry := admission.Witness{LeaseID: ticket.LeaseID, RequestID: arrive(keyA).RequestID, Cause: admission.CauseClient}
		all[1].Witness(entry)
		all[0].Witness(entry)
		if len(all[0].access) != 1 || len(all[1].access) != 0 {
			t.Errorf("access records: %d and %d, want one of the origin", len(all[0].access), len(all[1].access))
		}
		if got, _ := all[0].limits.Totals(t.Context()); got.Leases != 0 {
			t.Errorf("leases: %d", got.Leases)
		}
	})
}

// TestAForeignTicketIsNotGoodForEver: the facts of an old ticket, of a key that is
// unknown, or of a secret that is not valid any more open nothing.
func TestAForeignTicketIsNotGoodForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := replicas(t, 2)
		ticket, err := all[0].Admit(t.Context(), arrive(keyA))
		if err != nil {
			t.Fatal(err)
		}
		for name, change := range map[string]func(f *admission.Facts){
			"old":         func(f *admission.Facts) { f.Started = f.Started.Add(-time.Hour) },
			"ahead":       func(f *admission.Facts) { f.Started = f.Started.Add(time.Hour) },
			"unknown key": func(f *admission.Facts) { f.KeyID = "nobody" },
		} {
			f := ticket.Facts()
			change(&f)
			if _, err := all[1].ClaimFacts(t.Context(), f); !errors.Is(err, admission.ErrTicket) {
				t.Errorf("%s: got %v, want ErrTicket", name, err)
			}
		}
		f := ticket.Facts()
		f.Secret[0]++
		s, err := all[1].ClaimFacts(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Reserve(t.Context(), order()); err == nil {
			t.Error("a secret that does not open the key was let through")
		}
		s.Close(t.Context(), admission.Outcome{Reason: ledger.Aborted})
	})
}
