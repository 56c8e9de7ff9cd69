package admission_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"tollgate/internal/admission"
	"tollgate/internal/ledger"
	"tollgate/internal/limit"
	"tollgate/internal/usage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestIdentitiesAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, unlimited)
		local := arrive("sk-default-key-change-me")
		local.Local = true
		admin := arrive("sk-admin0000000000000000000")
		admin.Class = admission.Admin
		notAdmin := arrive(keyA)
		notAdmin.Class = admission.Admin
		two := arrive(keyA)
		two.APIKey = []string{keyB}
		for name, c := range map[string]struct {
			arrival admission.Arrival
			want    admission.Reason
		}{
			"no key":                        {admission.Arrival{Class: admission.Inference}, admission.MissingKey},
			"open route":                    {admission.Arrival{Class: admission.Open}, ""},
			"two secrets":                   {two, admission.MalformedKey},
			"unknown key":                   {arrive("sk-nobody"), admission.InvalidKey},
			"disabled key":                  {arrive("sk-cccccccccccccccccccccccc"), admission.InvalidKey},
			"default key beside a good one": {local, admission.InvalidKey},
			"admin":                         {admin, ""},
			"somebody at /admin":            {notAdmin, admission.NotAdmin},
			"a good key":                    {arrive(keyA), ""},
		} {
			_, err := b.Admit(t.Context(), c.arrival)
			if got := reason(err); (err == nil) != (c.want == "") || (err != nil && got != c.want) {
				t.Errorf("%s: got %v, want %q", name, err, c.want)
			}
		}
	})
}

// TestTheDefaultKeyIsForTheFirstHour: at home only, and until somebody has a key
// of their own.
func TestTheDefaultKeyIsForTheFirstHour(t *testing.T) {
	const public = `{"key": "sk-default-key-change-me", "id": "default", "user": "default"}`
	const admin = `{"key": "sk-admin0000000000000000000", "id": "root", "user": "admin"}`
	for name, c := range map[string]struct {
		keys  string
		local bool
		want  admission.Reason
	}{
		"at home":               {public + "," + admin, true, ""},
		"from far":              {public + "," + admin, false, admission.InvalidKey},
		"beside a key":          {public + `,{"key": "` + keyA + `", "id": "a", "user": "ann"}`, true, admission.InvalidKey},
		"beside a disabled key": {public + `,{"key": "` + keyA + `", "id": "a", "user": "ann", "enabled": false}`, true, ""},
		"beside an expired key": {public + `,{"key": "` + keyA + `", "id": "a", "user": "ann", "expires_at": "1999-01-01T00:00:00Z"}`, true, ""},
		"beside a later key":    {public + `,{"key": "` + keyA + `", "id": "a", "user": "ann", "not_before": "2999-01-01T00:00:00Z"}`, true, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, unlimited, withKeys(t, "["+c.keys+"]"))
			a := arrive("sk-default-key-change-me")
			a.Local = c.local
			_, err := b.Admit(t.Context(), a)
			var denied *admission.DenialError
			switch {
			case (err == nil) != (c.want == "") || err != nil && reason(err) != c.want:
				t.Errorf("%s: got %v, want %q", name, err, c.want)
			case err != nil && (!errors.As(err, &denied) || !denied.DefaultKey):
				t.Errorf("%s: the refusal does not know the default key", name)
			}
		})
	}
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

// TestAClaimThatFailsIsNoActiveRequest: the gauge must not fall below what runs.
func TestAClaimThatFailsIsNoActiveRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, unlimited)
		ticket, err := b.Admit(t.Context(), arrive(keyA))
		if err != nil {
			t.Fatal(err)
		}
		_ = b.limits.Close()
		if _, err := b.Claim(t.Context(), ticket.LeaseID); err == nil {
			t.Fatal("the store is closed, and the lease is claimed")
		}
		if got := b.metric("http_active_requests"); got != 0 {
			t.Errorf("%v active requests", got)
		}
	})
}
