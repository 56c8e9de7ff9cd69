package admission_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"tollgate/internal/admission"
	"tollgate/internal/apikey"
	"tollgate/internal/ledger"
	"tollgate/internal/limit"
	"tollgate/internal/usage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixedKeys is a key file that never changes.
type fixedKeys struct{ ring *apikey.Ring }

func (k fixedKeys) Current() *apikey.Ring { return k.ring }

// oneModel is a catalog of one ready engine with the model "tiny".
type oneModel struct{ down bool }

func (c *oneModel) Model(name string) (int64, bool) { return 1024, name == "tiny" }
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
	wall    func() time.Time
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
		catalog: &oneModel{}, reg: prometheus.NewRegistry(), wall: time.Now,
	}
	o := admission.Options{
		Keys: fixedKeys{ring(t, keyFile)}, Limits: b.limits, Ledger: b.ledger, Catalog: b.catalog,
		Estimator: limit.NewEstimator(16), Metrics: admission.NewMetrics(b.reg, b.reg), Caps: caps,
		Wall: func() time.Time { return b.wall() },
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
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		_ = b.limits.Close()
	})
	return b
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
	rec, err := b.ledger.Get(b.t.Context(), s.LeaseID())
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

func TestIdentitiesAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, unlimited)
		far, local := arrive("sk-default-key-change-me"), arrive("sk-default-key-change-me")
		local.Local = true
		admin := arrive("sk-admin0000000000000000000")
		admin.Class = admission.Admin
		notAdmin := arrive(keyA)
		notAdmin.Class = admission.Admin
		two := arrive(keyA)
		two.APIKey = []string{keyA}
		for name, c := range map[string]struct {
			arrival admission.Arrival
			want    admission.Reason
		}{
			"no key":               {admission.Arrival{Class: admission.Inference}, admission.MissingKey},
			"open route":           {admission.Arrival{Class: admission.Open}, ""},
			"two sources":          {two, admission.MalformedKey},
			"unknown key":          {arrive("sk-nobody"), admission.InvalidKey},
			"disabled key":         {arrive("sk-cccccccccccccccccccccccc"), admission.InvalidKey},
			"default key from far": {far, admission.InvalidKey},
			"default key at home":  {local, ""},
			"admin":                {admin, ""},
			"somebody at /admin":   {notAdmin, admission.NotAdmin},
			"a good key":           {arrive(keyA), ""},
		} {
			_, err := b.Admit(t.Context(), c.arrival)
			if got := reason(err); (err == nil) != (c.want == "") || (err != nil && got != c.want) {
				t.Errorf("%s: got %v, want %q", name, err, c.want)
			}
		}
	})
}

func TestUnclaimedTicketGivesEverythingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		caps := unlimited
		caps.Concurrent, caps.Requests = 1, 60
		b := newBench(t, caps)
		ticket, err := b.Admit(t.Context(), arrive(keyA))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Admit(t.Context(), arrive(keyA)); reason(err) != admission.KeySlots {
			t.Fatalf("second arrival: got %v, want the key's slots to be full", err)
		}
		time.Sleep(limit.ProvisionalLife + time.Second)
		synctest.Wait()
		if got := b.totals(); got.Leases != 0 {
			t.Errorf("leases after expiry: got %d, want 0", got.Leases)
		}
		if got := b.view("a"); got.RequestsWindow != 0 {
			t.Errorf("requests after expiry: got %d, want 0", got.RequestsWindow)
		}
		if _, err := b.Claim(t.Context(), ticket.LeaseID); !errors.Is(err, admission.ErrTicket) {
			t.Errorf("claim after expiry: got %v, want ErrTicket", err)
		}
	})
}

func TestTicketIsGoodOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, unlimited)
		s := b.claimed(keyA)
		if _, err := b.Claim(t.Context(), s.LeaseID()); !errors.Is(err, admission.ErrTicket) {
			t.Errorf("second claim: got %v, want ErrTicket", err)
		}
		s.Close(t.Context(), admission.Outcome{Reason: ledger.Aborted})
	})
}

func TestCancelledCheckLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, unlimited)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := b.Admit(ctx, arrive(keyA)); err == nil {
			t.Fatal("a cancelled check was admitted")
		}
		if got := b.totals(); got.Leases != 0 {
			t.Errorf("leases: got %d, want 0", got.Leases)
		}
		if got := b.view("a").RequestsWindow; got != 0 {
			t.Errorf("requests: got %d, want 0", got)
		}
	})
}

func TestRefusalAtTheBodyGivesBackWhatTheDesignSays(t *testing.T) {
	for name, c := range map[string]struct {
		key          string
		order        func(*admission.Order)
		caps         func(*limit.Caps)
		down         bool
		want         admission.Reason
		keepsRequest int64
	}{
		"unknown model keeps its request": {keyA, func(o *admission.Order) { o.Model = "huge" }, nil, false, admission.ModelUnknown, 1},
		"model of others":                 {keyB, nil, nil, false, admission.ModelUnknown, 1},
		"engine down":                     {keyA, nil, nil, true, admission.EngineUnavailable, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				caps := unlimited
				caps.Requests = 60
				b := newBench(t, caps)
				b.catalog.down = c.down
				s := b.claimed(c.key)
				o := order()
				if c.order != nil {
					c.order(&o)
				}
				if err := s.Reserve(t.Context(), o); reason(err) != c.want {
					t.Fatalf("reserve: got %v, want %q", err, c.want)
				}
				s.Close(t.Context(), admission.Outcome{Reason: ledger.Aborted})
				if got := b.totals(); got.Leases != 0 || got.Reserved != 0 {
					t.Errorf("left over: %+v", got)
				}
				if got := b.view(s.Key().ID).RequestsWindow; got != c.keepsRequest {
					t.Errorf("requests kept: got %d, want %d", got, c.keepsRequest)
				}
				if _, err := b.ledger.Get(t.Context(), s.LeaseID()); !errors.Is(err, ledger.ErrUnknown) {
					t.Errorf("a refused request is in the ledger: %v", err)
				}
			})
		})
	}
}

func TestTokenWindowRefusesAtTheBodyAndGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		caps := unlimited
		caps.Tokens, caps.Requests = 30, 60
		b := newBench(t, caps)
		first, second := b.live(keyA), b.claimed(keyA) // each reserves 10 + 10
		err := second.Reserve(t.Context(), order())
		if reason(err) != admission.TokenRate {
			t.Fatalf("second: got %v, want the token window", err)
		}
		second.Close(t.Context(), admission.Outcome{Reason: ledger.Aborted})
		if got := b.view("a").RequestsWindow; got != 1 {
			t.Errorf("requests: got %d, want 1", got)
		}
		first.Close(t.Context(), admission.Outcome{Reason: ledger.Aborted})
		if got := b.totals(); got.Leases != 0 || got.Reserved != 0 {
			t.Errorf("left over: %+v", got)
		}
	})
}

// settledOnce checks a complete answer in the ledger, the window, the metrics
// and the log.
func settledOnce(t *testing.T, b *bench, s *admission.Session, prompt, completion int64) {
	t.Helper()
	rec := b.record(s)
	if rec.Reason != ledger.Complete || rec.Quality != ledger.Exact || rec.Counts.Prompt != prompt || rec.Counts.Completion != completion {
		t.Errorf("record: got %+v", rec)
	}
	if got := b.metric("token_usage_total", "api_key", "a", "type", "output"); got != float64(completion) {
		t.Errorf("token_usage_total: got %v, want %d", got, completion)
	}
	if got := b.view("a").TokensWindow; got != prompt+completion {
		t.Errorf("window: got %d, want %d", got, prompt+completion)
	}
	if got := b.records(); len(got) != 1 || got[0].Reason != ledger.Complete || got[0].Counts.Completion != completion {
		t.Errorf("access records: got %+v", got)
	}
}

func TestCompleteAnswerIsSettledOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, unlimited)
		s := b.live(keyA)
		time.Sleep(100 * time.Millisecond)
		s.FirstByte()
		s.Progress(usage.Counts{Prompt: 12, Completion: 3})
		time.Sleep(300 * time.Millisecond)
		if got := b.view("a"); got.TokensWindow != 15 {
			t.Errorf("running use in the window: got %d, want 15", got.TokensWindow)
		}
		if rec := b.record(s); !rec.Open() || rec.Counts.Completion != 3 {
			t.Errorf("checkpoint: got %+v", rec)
		}
		if err := s.Settle(t.Context(), admission.Outcome{Reason: ledger.Complete, Status: 200, Report: said(12, 8, true)}); err != nil {
			t.Fatal(err)
		}
		if got := b.totals(); got.Leases != 0 || got.Reserved != 0 {
			t.Errorf("left after the settlement: %+v", got)
		}
		s.Close(t.Context(), admission.Outcome{Reason: ledger.Aborted, Report: said(12, 99, false)})
		b.Witness(admission.Witness{LeaseID: s.LeaseID(), Status: 200, Method: "POST"})
		settledOnce(t, b, s, 12, 8)
		if got := testutil.CollectAndCount(b.reg, "token_usage_total"); got != 2 {
			t.Errorf("series of token_usage_total: got %d, want 2", got)
		}
	})
}
