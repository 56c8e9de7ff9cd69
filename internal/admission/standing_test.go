package admission_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"tollgate/internal/admission"
	"tollgate/internal/ledger"
	"tollgate/internal/limit"
	"tollgate/internal/usage"
)

// TestAKeyLearnsHowItsQuotaStands: the numbers come from the decision itself, on
// admissions and on refusals.
func TestAKeyLearnsHowItsQuotaStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, unlimited, withKeys(t, `[{"key": "`+keyA+`", "id": "a", "user": "ann", "quota": 1000, "quota_period": "day"}]`))
		noon := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
		b.setWall(noon)

		s := b.claimed(keyA)
		if err := s.Reserve(t.Context(), admission.Order{Model: "tiny", Format: usage.Chat, N: 1, Prompts: 1, PromptBytes: 40, MaxTokens: 90}); err != nil {
			t.Fatal(err)
		}
		q := s.Standing().Quota
		if q.Limit != 1000 || q.Remaining >= 1000-90 || q.Remaining < 800 || q.Reset != 12*time.Hour {
			t.Errorf("quota while 100 tokens are reserved: got %+v", q)
		}
		s.Close(t.Context(), admission.Outcome{Reason: ledger.Complete, Status: 200, Report: said(10, 2000, true)})

		_, err := b.Admit(t.Context(), arrive(keyA))
		var denied *admission.DenialError
		if !errors.As(err, &denied) || denied.Reason != admission.QuotaSpent {
			t.Fatalf("after the quota: got %v, want it to be spent", err)
		}
		midnight := time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)
		if q := denied.Quota; q.Limit != 1000 || q.Remaining != 0 || q.Reset != 12*time.Hour || !denied.QuotaResets.Equal(midnight) {
			t.Errorf("refusal: got %+v until %v", q, denied.QuotaResets)
		}
	})
}

func TestARefusalNamesItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		caps := unlimited
		caps.Concurrent, caps.Global = 1, 2
		b := newBench(t, caps, func(o *admission.Options) { o.Addresses = limit.NewAddresses(2.5, 3, 0) })
		if _, err := b.Admit(t.Context(), arrive(keyA)); err != nil {
			t.Fatal(err)
		}
		want := func(err error, r admission.Reason, at int64) {
			t.Helper()
			var denied *admission.DenialError
			if !errors.As(err, &denied) || denied.Reason != r || denied.Cap != at {
				t.Errorf("got %#v, want %s at %d", err, r, at)
			}
		}
		_, err := b.Admit(t.Context(), arrive(keyA))
		want(err, admission.KeySlots, 1)
		_, _ = b.Admit(t.Context(), arrive(keyB))
		_, err = b.Admit(t.Context(), arrive(keyB))
		want(err, admission.AddressRate, 3)
	})
}

func TestAWrongModelIsToldTheNearest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, unlimited, withKeys(t, `[{"key": "`+keyA+`", "id": "a", "user": "ann", "models": ["tiny", "org/Tiny-7B"]}]`))
		for asked, want := range map[string]string{
			"tiney": "tiny", "tiny-7b": "org/Tiny-7B", "other/tiny-7B": "org/Tiny-7B",
			"secre": "", // this key may not use "secret"
			"gpt-4": "", "": "",
		} {
			s := b.claimed(keyA)
			err := s.Reserve(t.Context(), admission.Order{Model: asked, Format: usage.Chat, N: 1, Prompts: 1})
			var denied *admission.DenialError
			if !errors.As(err, &denied) || denied.Reason != admission.ModelUnknown || denied.Model != asked || denied.Nearest != want {
				t.Errorf("%q: got %#v, want nearest %q", asked, err, want)
			}
			s.Close(t.Context(), admission.Outcome{Reason: ledger.Refused, Status: 404, Report: said(0, 0, false)})
		}
	})
}

func withKeys(t *testing.T, file string) func(*admission.Options) {
	t.Helper()
	return func(o *admission.Options) { o.Keys = fixedKeys{ring(t, file)} }
}
