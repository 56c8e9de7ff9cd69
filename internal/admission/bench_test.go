package admission_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate/internal/admission"
	"tollgate/internal/ledger"
	"tollgate/internal/limit"
)

// BenchmarkDecision is the whole decision in memory, as a Check makes it: address
// rate, credential, key, route, requests, slots, token window and quota; and
// giving everything back.
func BenchmarkDecision(b *testing.B) {
	ring, err := parseRing(keyFile)
	if err != nil {
		b.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	limits := limit.NewMemory()
	b.Cleanup(func() { _ = limits.Close() })
	g := admission.NewGate(admission.Options{
		Keys: fixedKeys{ring}, Limits: limits, Ledger: ledger.NewBook(), Catalog: &oneModel{},
		Addresses: limit.NewAddresses(1e9, 0, 1024), Estimator: limit.NewEstimator(16),
		Metrics: admission.NewMetrics(reg, reg),
		Caps:    limit.Caps{Global: 1 << 30, Concurrent: 1 << 30, Requests: 1 << 40, Tokens: 1 << 40, Quota: limit.Unlimited},
	})
	a := arrive(keyA)
	b.ReportAllocs()
	for b.Loop() {
		t, err := g.Admit(b.Context(), a)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		g.Witness(admission.Witness{LeaseID: t.LeaseID}) // gives it back
		b.StartTimer()
	}
}
