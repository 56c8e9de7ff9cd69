package admission_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tollgate/internal/admission"
	"tollgate/internal/ledger"
	"tollgate/internal/limit"
	"tollgate/internal/usage"
)

// rationed is a ledger that settles so many times, and then no more.
type rationed struct {
	ledger.Store
	mu   sync.Mutex
	left int
}

func (r *rationed) allow(n int) {
	r.mu.Lock()
	r.left = n
	r.mu.Unlock()
}

func (r *rationed) Settle(ctx context.Context, s ledger.Settlement) (ledger.Record, usage.Counts, error) {
	r.mu.Lock()
	r.left--
	refused := r.left < 0
	r.mu.Unlock()
	if refused {
		return ledger.Record{}, usage.Counts{}, ledger.ErrUnavailable
	}
	return r.Store.Settle(ctx, s)
}

// TestTheRestOfABatchIsKept: the ledger takes one of three pending settlements
// and refuses again.
func TestTheRestOfABatchIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &rationed{Store: ledger.NewBook()}
		b := newBench(t, unlimited, func(o *admission.Options) { o.Ledger = store })
		b.ledger.Store = store
		var sessions []*admission.Session
		for range 3 {
			s := b.live(keyA)
			sessions = append(sessions, s)
			s.Close(t.Context(), admission.Outcome{Reason: ledger.Complete, Report: said(12, 8, true)})
		}
		for left := 3; left > 0; left-- {
			if got := b.Pending(); got != left {
				t.Fatalf("pending: got %d, want %d", got, left)
			}
			store.allow(1)
			time.Sleep(400 * time.Millisecond) // one retry, or two of which one is refused
			synctest.Wait()
		}
		for i, s := range sessions {
			if rec := b.record(s); rec.Reason != ledger.Complete || rec.Counts.Completion != 8 {
				t.Errorf("settlement %d: got %+v", i, rec)
			}
		}
		if got := b.metric("token_usage_total", "api_key", "a", "type", "output"); got != 24 {
			t.Errorf("token_usage_total: got %v, want 24", got)
		}
	})
}

// TestTheLogKeepsWhatTheLedgerNeverTook: the service stops while the ledger
// still refuses; what it knows of an end is in the log at least.
func TestTheLogKeepsWhatTheLedgerNeverTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, unlimited)
		s := b.live(keyA)
		b.ledger.fail(nil, ledger.ErrUnavailable)
		s.Close(t.Context(), admission.Outcome{Reason: ledger.Aborted, Report: said(12, 8, false)})
		b.Witness(admission.Witness{LeaseID: s.LeaseID(), Cause: admission.CauseClient})
		if got := b.records(); len(got) != 0 {
			t.Fatalf("the record did not wait for the ledger: %+v", got)
		}
		b.stop()
		got := b.records()
		if len(got) != 1 || got[0].Reason != ledger.ClientAbort || got[0].Counts.Completion != 8 {
			t.Errorf("access records: %+v, want one of client_abort with 8 tokens", got)
		}
	})
}

// hasty is a ledger whose callers leave when their intent is written already.
type hasty struct{ ledger.Store }

func (h hasty) Begin(ctx context.Context, in ledger.Intent) error {
	if err := h.Store.Begin(ctx, in); err != nil {
		return err
	}
	return context.Canceled
}

func TestTheIntentOfAClientThatLeftIsWithdrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := hasty{ledger.NewBook()}
		b := newBench(t, unlimited, func(o *admission.Options) { o.Ledger = store })
		b.ledger.Store = store
		s := b.claimed(keyA)
		if err := s.Reserve(t.Context(), order()); err == nil {
			t.Fatal("a client that left was let through")
		}
		s.Close(t.Context(), admission.Outcome{Reason: ledger.Aborted})
		rec := b.record(s)
		if rec.Reason != ledger.Refused || rec.Quality != ledger.Exact || rec.Counts.Prompt+rec.Counts.Completion != 0 {
			t.Errorf("nothing was sent to the engine, but the row says %+v", rec)
		}
	})
}

func TestActiveRequestsRiseAndFall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, unlimited)
		want := func(when string, n float64) {
			t.Helper()
			if got := b.metric("http_active_requests"); got != n {
				t.Errorf("%s: %v active requests, want %v", when, got, n)
			}
		}
		first, second := b.live(keyA), b.claimed(keyA)
		want("two live", 2)
		if err := first.Settle(t.Context(), admission.Outcome{Reason: ledger.Complete, Report: said(1, 1, true)}); err != nil {
			t.Fatal(err)
		}
		want("one settled", 1)
		first.Close(t.Context(), admission.Outcome{})
		second.Close(t.Context(), admission.Outcome{Reason: ledger.Aborted})
		want("both closed", 0)
		if _, err := b.Admit(t.Context(), arrive(keyA)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(limit.ProvisionalLife + time.Second)
		want("a ticket that nobody claimed has expired", 0)
	})
}

// TestUseCountsWhereTheLedgerFails: the limits follow what was used, whether or
// not it could be recorded in time.
func TestUseCountsWhereTheLedgerFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, unlimited)
		s := b.live(keyA)
		s.Progress(usage.Counts{Prompt: 12, Completion: 30})
		b.ledger.fail(nil, ledger.ErrUnavailable)
		s.Close(t.Context(), admission.Outcome{Reason: ledger.Complete, Report: said(12, 30, true)})
		if got := b.view("a").TokensWindow; got != 42 {
			t.Errorf("the window has %d tokens, want 42", got)
		}
	})
}

// renewing notes which leases are renewed.
type renewing struct {
	limit.Store
	mu     sync.Mutex
	leases []string
}

func (r *renewing) Renew(ctx context.Context, leases []string) error {
	r.mu.Lock()
	r.leases = append(r.leases, leases...)
	r.mu.Unlock()
	return r.Store.Renew(ctx, leases)
}

func (r *renewing) taken() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.leases
	r.leases = nil
	return out
}

func TestLiveLeasesAreRenewedAndNoOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var limits *renewing
		b := newBench(t, unlimited, func(o *admission.Options) {
			limits = &renewing{Store: o.Limits}
			o.Limits = limits
		})
		silent, ends := b.live(keyA), b.live(keyA) // a stream without a word is alive too
		time.Sleep(600 * time.Millisecond)
		if got := limits.taken(); !slices.Contains(got, silent.LeaseID()) || !slices.Contains(got, ends.LeaseID()) {
			t.Errorf("renewed: %v, want both", got)
		}
		ends.Close(t.Context(), admission.Outcome{Reason: ledger.Aborted})
		limits.taken()
		time.Sleep(600 * time.Millisecond)
		if got := limits.taken(); !slices.Contains(got, silent.LeaseID()) || slices.Contains(got, ends.LeaseID()) {
			t.Errorf("renewed: %v, want the one that lives", got)
		}
	})
}

// TestTheChargeThatHangsOnTheNameIsTakenFromTheLimits: an answer that was not streamed
// ends early, and the ledger fails; the lease goes back when the end has its name, with
// what the row will say.
func TestTheChargeThatHangsOnTheNameIsTakenFromTheLimits(t *testing.T) {
	for cause, charged := range map[admission.Cause]bool{admission.CauseClient: true, admission.CauseTimeout: false} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, unlimited)
			s := b.claimed(keyA)
			o := order()
			o.Stream = false
			if err := s.Reserve(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			b.ledger.fail(nil, ledger.ErrUnavailable)
			s.Close(t.Context(), admission.Outcome{Reason: ledger.Aborted, Report: usage.Report{Counts: usage.None()}})
			if got := b.totals().Leases; got != 1 {
				t.Errorf("%d leases while the end has no name, want 1", got)
			}
			b.Witness(admission.Witness{LeaseID: s.LeaseID(), Cause: cause})
			window := b.view("a").TokensWindow
			b.ledger.fail(nil, nil)
			time.Sleep(time.Second)
			rec := b.record(s)
			if window != rec.Counts.Prompt+rec.Counts.Completion || (rec.Counts.Completion > 0) != charged {
				t.Errorf("cause %d: the window has %d tokens, the row %+v", cause, window, rec.Counts)
			}
			b.settledOnce(s)
		})
	}
}
