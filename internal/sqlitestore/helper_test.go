package sqlitestore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"tollgate/internal/ledger"
	"tollgate/internal/sqlitestore"
	"tollgate/internal/usage"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func intent(lease string) ledger.Intent {
	return ledger.Intent{
		LeaseID: lease, RequestID: "018f3c1e-7b2a-7c4d-9e1f-" + lease, KeyID: "key-1", User: "ann", Model: "m",
		Endpoint: "/v1/chat/completions", Engine: "127.0.0.1:8000", Stream: true, N: 1, Prompts: 1,
		StartedAt: noon, Reserved: 500, ClientAddr: "192.0.2.7",
	}
}

func complete(lease string, prompt, completion int64) ledger.Settlement {
	return ledger.Settlement{
		LeaseID: lease, Status: 200, FirstByteAt: noon.Add(time.Second), EndedAt: noon.Add(2 * time.Second),
		Reason: ledger.Complete, Quality: ledger.Exact,
		Counts: usage.Counts{Prompt: prompt, Completion: completion, Cached: usage.Unsaid, Reasoning: usage.Unsaid},
	}
}

// fill writes n settled rows of 10 + 5 tokens, one an hour from noon on, over
// two keys and two models.
func fill(t *testing.T, s *sqlitestore.Store, n int) {
	t.Helper()
	for i := range n {
		in := intent(fmt.Sprintf("lease-%04d", i))
		in.StartedAt = noon.Add(time.Duration(i) * time.Hour)
		in.KeyID, in.Model = fmt.Sprint("key-", i%2), fmt.Sprint("model-", i%3)
		if err := s.Begin(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		st := complete(in.LeaseID, 10, 5)
		st.FirstByteAt, st.EndedAt = in.StartedAt.Add(time.Second), in.StartedAt.Add(2*time.Second)
		if _, _, err := s.Settle(t.Context(), st); err != nil {
			t.Fatal(err)
		}
	}
}

// wantSound fails the test with every invariant that does not hold.
func wantSound(t *testing.T, path string) {
	t.Helper()
	r, err := sqlitestore.OpenReadOnly(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	found, err := r.Verify(context.Background())
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	for _, v := range found {
		t.Errorf("invariant broken: %+v", v)
	}
}

func rows(t *testing.T, r *sqlitestore.Reader, f ledger.Filter) []ledger.Record {
	t.Helper()
	var all []ledger.Record
	if err := r.Each(t.Context(), f, func(rec ledger.Record) error {
		all = append(all, rec)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// checkpoints begins n requests and returns a checkpoint of each.
func checkpoints(tb testing.TB, s *sqlitestore.Store, n int) []ledger.Checkpoint {
	tb.Helper()
	batch := make([]ledger.Checkpoint, n)
	for i := range batch {
		lease := fmt.Sprintf("live-%06d", i)
		if err := s.Begin(context.Background(), intent(lease)); err != nil {
			tb.Fatal(err)
		}
		batch[i] = ledger.Checkpoint{LeaseID: lease, Counts: usage.Counts{Prompt: 10, Completion: 0, Cached: usage.Unsaid, Reasoning: usage.Unsaid}}
	}
	return batch
}

// leasesOf are the open rows of a ledger.
func leasesOf(tb testing.TB, s *sqlitestore.Store) []string {
	tb.Helper()
	open, err := s.Open(context.Background())
	if err != nil {
		tb.Fatal(err)
	}
	leases := make([]string, len(open))
	for i := range open {
		leases[i] = open[i].LeaseID
	}
	return leases
}
