package redisstore_test

import (
	"testing"

	"tollgate/internal/limit"
)

// TestALocalDebtIsAShare: a debt that is brought back during an outage takes as many
// minutes to pay, at this replica's share of the limit.
func TestALocalDebtIsAShare(t *testing.T) {
	p, both := pair(t, startServer(t))
	p.set(0, false, true)
	if err := both[0].Owe(t.Context(), "k", 100_000, 250_000); err != nil {
		t.Fatal(err)
	}
	got, err := both[0].Key(t.Context(), "k", caps(func(c *limit.Caps) { c.Tokens = 100_000 }))
	if err != nil {
		t.Fatal(err)
	}
	if !both[0].Partitioned() || got.Debt > 75_000 || got.Debt < 50_000 {
		t.Errorf("partitioned: %v, with a debt of %d; want one of 1.5 minutes at a limit of 50000", both[0].Partitioned(), got.Debt)
	}
}
