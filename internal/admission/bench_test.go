package admission_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate/internal/admission"
	"tollgate/internal/ledger"
	"tollgate/internal/limit"
	"tollgate/internal/usage"
)

// BenchmarkDecision is the whole decision in memory, as a Check makes it: address
// rate, credential, key, route, requests, slots, token window and quota; and
// giving everything back.
func BenchmarkDecision(b *testing.B) {
	g := benchGate(b)
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

// BenchmarkLife is a whole request in memory: decision, claim, reservation, intent, a
// chunk, settlement, end, log entry and access record.
func BenchmarkLife(b *testing.B) {
	g := benchGate(b)
	a := arrive(keyA)
	end := admission.Outcome{Reason: ledger.Complete, Status: 200, Report: said(12, 8, true)}
	b.ReportAllocs()
	for b.Loop() {
		t, err := g.Admit(b.Context(), a)
		if err != nil {
			b.Fatal(err)
		}
		s, err := g.Claim(b.Context(), t.LeaseID)
		if err == nil {
			err = s.Reserve(b.Context(), order())
		}
		if err != nil {
			b.Fatal(err)
		}
		s.Progress(usage.Counts{Prompt: 12, Completion: 8})
		if err := s.Settle(b.Context(), end); err != nil {
			b.Fatal(err)
		}
		s.Close(b.Context(), end)
		g.Witness(admission.Witness{LeaseID: t.LeaseID, Status: 200})
	}
}

// BenchmarkProgress is what admission does for each chunk.
func BenchmarkProgress(b *testing.B) {
	g := benchGate(b)
	t, err := g.Admit(b.Context(), arrive(keyA))
	if err != nil {
		b.Fatal(err)
	}
	s, err := g.Claim(b.Context(), t.LeaseID)
	if err == nil {
		err = s.Reserve(b.Context(), order())
	}
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		s.FirstByte()
		s.Progress(usage.Counts{Prompt: 12, Completion: 8})
	}
}

// benchGate is a gate with everything in memory and limits that refuse nothing.
func benchGate(b *testing.B) *admission.Gate {
	b.Helper()
	ring, err := parseRing(keyFile)
	if err != nil {
		b.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	limits := limit.NewMemory()
	b.Cleanup(func() { _ = limits.Close() })
	return admission.NewGate(admission.Options{
		Keys: fixedKeys{ring}, Limits: limits, Ledger: ledger.NewBook(), Catalog: &oneModel{},
		Addresses: limit.NewAddresses(1e9, 0, 1024), Estimator: limit.NewEstimator(16),
		Metrics: admission.NewMetrics(reg, reg),
		Caps:    limit.Caps{Global: 1 << 30, Concurrent: 1 << 30, Requests: 1 << 40, Tokens: 1 << 40, Quota: limit.Unlimited},
	})
}
