package admission_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tollgate/internal/admission"
	"tollgate/internal/apikey"
	"tollgate/internal/ledger"
	"tollgate/internal/limit"
	"tollgate/internal/usage"
)

const monthly = `[{"key": "` + keyA + `", "id": "a", "user": "ann", "quota": 1000, "quota_period": "month"}]`

// TestARequestBelongsToThePeriodOfItsStart lets a stream live over the moment
// at which the wall clock says another month, by going or by being set.
func TestARequestBelongsToThePeriodOfItsStart(t *testing.T) {
	month := func(year int, m time.Month, day int) time.Time { return time.Date(year, m, day, 12, 0, 0, 0, time.UTC) }
	for name, c := range map[string]struct{ start, then time.Time }{
		"midnight of the 1st":              {month(2026, 11, 30), month(2026, 12, 1)},
		"the clock is set a year forward":  {month(2026, 11, 30), month(2027, 11, 30)},
		"the clock is set a month back":    {month(2026, 12, 1), month(2026, 11, 30)},
		"the clock is set within the hour": {month(2026, 11, 30), month(2026, 11, 30).Add(-time.Hour)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, unlimited, withKeys(t, monthly))
				b.setWall(c.start)
				s := b.live(keyA)
				s.Progress(usage.Counts{Prompt: 12, Completion: 3})
				time.Sleep(time.Second) // a checkpoint
				b.setWall(c.then)
				second := b.live(keyA) // the other period is running and known
				s.Progress(usage.Counts{Prompt: 12, Completion: 30})
				time.Sleep(time.Second)
				b.agree("while it runs", c.start, c.then)
				if err := s.Settle(t.Context(), admission.Outcome{Reason: ledger.Complete, Report: said(12, 40, true)}); err != nil {
					t.Fatal(err)
				}
				s.Close(t.Context(), admission.Outcome{})
				second.Close(t.Context(), admission.Outcome{Reason: ledger.Aborted, Report: said(12, 7, false)})
				b.agree("at its end", c.start, c.then)
				rec := b.record(s)
				if lasted := rec.EndedAt.Sub(rec.StartedAt); lasted != 2*time.Second {
					t.Errorf("the row says that it lasted %v, want 2s", lasted)
				}
			})
		})
	}
}

// TestASeedIsOfThePeriodOfTheStart: the counter of a month is first asked for
// when the wall clock says another one.
func TestASeedIsOfThePeriodOfTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		november, december := time.Date(2026, 11, 30, 23, 0, 0, 0, time.UTC), time.Date(2026, 12, 1, 1, 0, 0, 0, time.UTC)
		b := newBench(t, unlimited, withKeys(t, monthly))
		for at, completion := range map[time.Time]int64{november: 100, december: 300} {
			b.setWall(at)
			s := b.live(keyA)
			s.Close(t.Context(), admission.Outcome{Reason: ledger.Complete, Report: said(12, completion, true)})
		}
		// Another store, which knows no counter, while the clock is a month behind.
		again := newBench(t, unlimited, withKeys(t, monthly), func(o *admission.Options) { o.Ledger = b.ledger })
		again.setWall(november.Add(time.Minute))
		again.live(keyA).Close(t.Context(), admission.Outcome{Reason: ledger.Refused})
		if got := again.quotaUsed(november); got != 112 {
			t.Errorf("november: %d tokens are counted, want 112", got)
		}
	})
}

// monthOf is the name of the quota period of at.
func monthOf(at time.Time) string { return apikey.Month.Name(at) }

// quotaUsed is the live counter of the month of at.
func (b *bench) quotaUsed(at time.Time) int64 {
	b.t.Helper()
	v, err := b.limits.Key(b.t.Context(), "a", limit.Caps{QuotaPeriod: monthOf(at)})
	if err != nil {
		b.t.Fatal(err)
	}
	return v.QuotaUsed
}

// agree compares the live counters of months with the ledger's sums.
func (b *bench) agree(when string, months ...time.Time) {
	b.t.Helper()
	for _, at := range months {
		want, err := b.ledger.Used(b.t.Context(), "a", apikey.Month.Start(at), apikey.Month.End(at))
		if err != nil {
			b.t.Fatal(err)
		}
		if got := b.quotaUsed(at); got != want {
			b.t.Errorf("%s, %s: the live counter says %d, the ledger %d", when, monthOf(at), got, want)
		}
	}
}

// TestASecretThatIsGoneEndsWhatItOpened: a rotation, an expiry and the removal
// of an old secret cut the streams that this secret opened, and no others.
func TestASecretThatIsGoneEndsWhatItOpened(t *testing.T) {
	const keyNew = "sk-new-0123456789abcdef0123456789"
	digest := fmt.Sprintf("%x", apikey.Digest(keyA))
	soon := func() string { return time.Now().Add(10 * time.Second).UTC().Format(time.RFC3339) }
	alone := `[{"key": "` + keyNew + `", "id": "a", "user": "ann"}]`
	beside := func() string {
		return `[{"key": "` + keyNew + `", "id": "a", "user": "ann", "previous": [{"key_sha256": "` + digest + `", "expires_at": "` + soon() + `"}]}]`
	}
	expiring := func() string {
		return `[{"key": "` + keyA + `", "id": "a", "user": "ann", "expires_at": "` + soon() + `"}]`
	}
	for name, c := range map[string]struct {
		before, after func() string // the key file; "" where nothing changes
		now, later    bool          // cut at once, at the time of soon
	}{
		"rotated without grace":              {nil, func() string { return alone }, true, true},
		"rotated with grace":                 {nil, beside, false, true},
		"the old secret is removed early":    {beside, func() string { return alone }, true, true},
		"the old secret expires":             {beside, nil, false, true},
		"the key expires":                    {expiring, nil, false, true},
		"the key gets an end":                {nil, expiring, false, true},
		"the end of the key is lifted":       {expiring, func() string { return keyFile }, false, false},
		"the secret passes to another id":    {nil, func() string { return `[{"key": "` + keyA + `", "id": "z", "user": "ann"}]` }, true, true},
		"another key is rotated beside this": {nil, func() string { return keyFile }, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if c.before == nil {
					c.before = func() string { return keyFile }
				}
				b := newBench(t, unlimited, withKeys(t, c.before()))
				s := b.live(keyA)
				var cut atomic.Bool
				s.OnCut(func() { cut.Store(true) })
				if c.after != nil {
					b.Revoke(ring(t, c.after()))
				}
				if got := cut.Load(); got != c.now {
					t.Errorf("cut at once: got %v, want %v", got, c.now)
				}
				time.Sleep(9 * time.Second)
				if got := cut.Load(); got != c.now {
					t.Errorf("cut before its time: got %v, want %v", got, c.now)
				}
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if got := cut.Load(); got != c.later {
					t.Errorf("cut in the end: got %v, want %v", got, c.later)
				}
				s.Close(t.Context(), admission.Outcome{Reason: ledger.Aborted, Report: said(12, 3, false)})
				b.Witness(admission.Witness{LeaseID: s.LeaseID(), Cause: admission.CauseGateway})
				want := ledger.Aborted
				if c.later {
					want = ledger.Revoked
				}
				if rec := b.record(s); rec.Reason != want {
					t.Errorf("the row says %s, want %s", rec.Reason, want)
				}
			})
		})
	}
}
