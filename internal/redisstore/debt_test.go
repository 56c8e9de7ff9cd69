package redisstore_test

import (
	"testing"

	"tollgate/internal/limit"
)

// TestADebtThatIsBroughtBackAloneIsAShare: a replica that starts into an outage pays
// it back in as many minutes, at its share of the limit.
func TestADebtThatIsBroughtBackAloneIsAShare(t *testing.T) {
	p, both := pair(t, startServer(t))
	p.set(0, false, true)
	if err := both[0].Owe(t.Context(), "k", 100_000, 250_000); err != nil {
		t.Fatal(err)
	}
	got, err := both[0].Key(t.Context(), "k", caps(func(c *limit.Caps) { c.Tokens = 100_000 }))
	if err != nil {
		t.Fatal(err)
	}
	if !both[0].Apart() || got.Debt > 75_000 || got.Debt < 50_000 {
		t.Errorf("alone: %v, with a debt of %d; want one of 1.5 minutes at a limit of 50000", both[0].Apart(), got.Debt)
	}
}
