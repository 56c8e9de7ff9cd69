package admission_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate/internal/admission"
	"tollgate/internal/apikey"
	"tollgate/internal/ledger"
	"tollgate/internal/limit"
	"tollgate/internal/usage"
)

// fixedKeys is a key file that never changes.
type fixedKeys struct{ ring *apikey.Ring }

func (k fixedKeys) Current() *apikey.Ring { return k.ring }

// oneModel is a catalog of one ready engine with the model "tiny".
type oneModel struct{ down bool }

func (c *oneModel) Model(name string) (int64, bool) { return 1024, name == "tiny" }
func (c *oneModel) Names() []string                 { return []string{"tiny", "org/Tiny-7B", "secret"} }
func (c *oneModel) Ready() bool                     { return !c.down }
func (c *oneModel) Only() string                    { return "127.0.0.1:8000" }

// brittle is a ledger that fails when told to.
type brittle struct {
	ledger.Store
	mu          sync.Mutex
	begin, done error
}

func (b *brittle) fail(begin, settle error) {
	b.mu.Lock()
	b.begin, b.done = begin, settle
	b.mu.Unlock()
}

func (b *brittle) Begin(ctx context.Context, in ledger.Intent) error {
	b.mu.Lock()
	err := b.begin
	b.mu.Unlock()
	if err != nil {
		return err
	}
	return b.Store.Begin(ctx, in)
}

func (b *brittle) Settle(ctx context.Context, s ledger.Settlement) (ledger.Record, usage.Counts, error) {
	b.mu.Lock()
	err := b.done
	b.mu.Unlock()
	if err != nil {
		return ledger.Record{}, usage.Counts{}, err
	}
	return b.Store.Settle(ctx, s)
}

// bench is a gate with everything in memory.
type bench struct {
	*admission.Gate
	t       *testing.T
	limits  *limit.Memory
	ledger  *brittle
	catalog *oneModel
	reg     *prometheus.Registry
	mu      sync.Mutex
	access  []admission.Access
	stop    func()        // ends the gate's own work, as the service does at its end
	ahead   time.Duration // of the wall clock; guarded by mu
}

const (
	keyA = "sk-aaaaaaaaaaaaaaaaaaaaaaaa"
	keyB = "sk-bbbbbbbbbbbbbbbbbbbbbbbb"
)

const keyFile = `[
 {"key": "` + keyA + `", "id": "a", "user": "ann"},
 {"key": "` + keyB + `", "id": "b", "user": "bob", "quota": 100, "models": ["other"]},
 {"key": "sk-cccccccccccccccccccccccc", "id": "off", "user": "cy", "enabled": false},
 {"key": "sk-admin0000000000000000000", "id": "root", "user": "admin"},
 {"key": "sk-default-key-change-me", "id": "default", "user": "default"}
]`

var unlimited = limit.Caps{
	Global: limit.Unlimited, Concurrent: limit.Unlimited, Requests: limit.Unlimited,
	Tokens: limit.Unlimited, Quota: limit.Unlimited,
}

func ring(t *testing.T, file string) *apikey.Ring {
	t.Helper()
	r, err := parseRing(file)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func parseRing(file string) (*apikey.Ring, error) { return apikey.Parse("keys.json", []byte(file)) }

// newBench must run inside a synctest bubble; it stops with the test.
func newBench(t *testing.T, caps limit.Caps, change ...func(*admission.Options)) *bench {
	t.Helper()
	b := &bench{
		t: t, limits: limit.NewMemory(), ledger: &brittle{Store: ledger.NewBook()},
		catalog: &oneModel{}, reg: prometheus.NewRegistry(),
	}
	o := admission.Options{
		Keys: fixedKeys{ring(t, keyFile)}, Limits: b.limits, Ledger: b.ledger, Catalog: b.catalog,
		Estimator: limit.NewEstimator(16), Metrics: admission.NewMetrics(b.reg, b.reg), Caps: caps,
		Wall: b.wall,
		Access: func(a admission.Access) {
			b.mu.Lock()
			b.access = append(b.access, a)
			b.mu.Unlock()
		},
	}
	for _, f := range change {
		f(&o)
	}
	b.Gate = admission.NewGate(o)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = b.Run(ctx) })
	b.stop = func() {
		cancel()
		wg.Wait()
	}
	t.Cleanup(func() {
		b.stop()
		_ = b.limits.Close()
	})
	return b
}

// wall is the wall clock, which [bench.setWall] sets.
func (b *bench) wall() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Now().Add(b.ahead)
}

// setWall sets the wall clock; it goes on from there.
func (b *bench) setWall(at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ahead = time.Until(at)
}

func arrive(secret string) admission.Arrival {
	return admission.Arrival{
		Class: admission.Inference, Method: "POST", Endpoint: "/v1/chat/completions", RequestID: "req-1",
		Addr: netip.MustParseAddr("192.0.2.1"), Authorization: []string{"Bearer " + secret},
	}
}

func order() admission.Order {
	return admission.Order{Model: "tiny", Format: usage.Chat, Stream: true, N: 1, Prompts: 1, PromptBytes: 40, MaxTokens: 10}
}

// live admits, claims and reserves one request.
func (b *bench) live(secret string) *admission.Session {
	b.t.Helper()
	s := b.claimed(secret)
	if err := s.Reserve(b.t.Context(), order()); err != nil {
		b.t.Fatalf("reserve: %v", err)
	}
	return s
}

func (b *bench) claimed(secret string) *admission.Session {
	b.t.Helper()
	ticket, err := b.Admit(b.t.Context(), arrive(secret))
	if err != nil {
		b.t.Fatalf("admit: %v", err)
	}
	s, err := b.Claim(b.t.Context(), ticket.LeaseID)
	if err != nil {
		b.t.Fatalf("claim: %v", err)
	}
	return s
}

func (b *bench) totals() limit.Totals {
	b.t.Helper()
	totals, err := b.limits.Totals(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return totals
}

func (b *bench) view(key string) limit.View {
	b.t.Helper()
	v, err := b.limits.Key(b.t.Context(), key, unlimited)
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

func (b *bench) record(s *admission.Session) ledger.Record {
	b.t.Helper()
	return b.row(s.LeaseID())
}

// row is what the ledger has of a lease.
func (b *bench) row(lease string) ledger.Record {
	b.t.Helper()
	rec, err := b.ledger.Get(b.t.Context(), lease)
	if err != nil {
		b.t.Fatalf("get record: %v", err)
	}
	return rec
}

func (b *bench) records() []admission.Access {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]admission.Access(nil), b.access...)
}

func (b *bench) metric(name string, labels ...string) float64 {
	b.t.Helper()
	families, err := b.reg.Gather()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	series:
		for _, m := range f.GetMetric() {
			for i := 0; i < len(labels); i += 2 {
				found := false
				for _, l := range m.GetLabel() {
					found = found || (l.GetName() == labels[i] && l.GetValue() == labels[i+1])
				}
				if !found {
					continue series
				}
			}
			if g := m.GetGauge(); g != nil {
				return g.GetValue()
			}
			return m.GetCounter().GetValue()
		}
	}
	return 0
}

func said(prompt, completion int64, final bool) usage.Report {
	r := usage.Report{Counts: usage.None(), Seen: true, Final: final}
	r.Counts.Prompt, r.Counts.Completion = prompt, completion
	if final {
		r.End = usage.Done
	}
	return r
}

func reason(err error) admission.Reason {
	var d *admission.DenialError
	if errors.As(err, &d) {
		return d.Reason
	}
	return admission.Reason(fmt.Sprintf("not a denial: %v", err))
}
