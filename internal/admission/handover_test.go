package admission_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"tollgate/internal/admission"
	"tollgate/internal/ledger"
	"tollgate/internal/usage"
)

const envoy1 = "2a02-18eb6b1e164aac23"

// handedOver is a live request whose answer a meter has.
func (b *bench) handedOver(cut func()) *admission.Session {
	b.t.Helper()
	s := b.claimed(keyA)
	o := order()
	o.Meter = envoy1
	if err := s.Reserve(b.t.Context(), o); err != nil {
		b.t.Fatal(err)
	}
	if !s.HandOver(b.t.Context(), envoy1, cut) {
		b.t.Fatal("the meter has nothing said, but the answer was not handed over")
	}
	s.Close(b.t.Context(), admission.Outcome{Reason: ledger.Aborted}) // its ext_proc stream
	return s
}

func done(completion int64) admission.Outcome {
	return admission.Outcome{
		Reason: ledger.Complete, Status: 200, Report: said(12, completion, true),
		FirstByte: 20 * time.Millisecond, Lasted: 300 * time.Millisecond,
	}
}

func TestAMeterSettlesWhatWasHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, unlimited)
		s := b.handedOver(func() { t.Error("cut") })
		if n := b.HandedOver(); n != 1 {
			t.Errorf("%d handed over, want 1", n)
		}
		b.Progress(s.LeaseID(), 12, 40)
		time.Sleep(time.Second)
		if rec := b.record(s); !rec.Open() || rec.Counts.Completion != 40 || rec.Meter != envoy1 {
			t.Errorf("while it runs the row says %+v", rec)
		}
		for range 2 { // the acknowledgement was lost
			if err := b.Ended(t.Context(), s.LeaseID(), done(99)); err != nil {
				t.Fatal(err)
			}
		}
		rec := b.record(s)
		if rec.Reason != ledger.Complete || rec.Quality != ledger.Exact || rec.Counts.Completion != 99 {
			t.Errorf("the row says %+v", rec)
		}
		if first, whole := rec.FirstByteAt.Sub(rec.StartedAt), rec.EndedAt.Sub(rec.StartedAt); first != 20*time.Millisecond || whole != 300*time.Millisecond {
			t.Errorf("first byte after %v, end after %v; want the meter's times", first, whole)
		}
		b.Witness(admission.Witness{LeaseID: s.LeaseID(), Status: 200})
		if err := b.Ended(t.Context(), s.LeaseID(), done(99)); err != nil {
			t.Errorf("said again after all is over: %v", err)
		}
		b.settledOnce(s)
	})
}

// settledOnce wants a request that is over to be counted and recorded once, as its
// row says, and nothing of it to be left.
func (b *bench) settledOnce(s *admission.Session) {
	b.t.Helper()
	rec := b.record(s)
	if n := b.metric("requests_settled_total", "end_reason", string(rec.Reason), "quality", string(rec.Quality)); n != 1 {
		b.t.Errorf("counted %v times as %s %s, want once", n, rec.Reason, rec.Quality)
	}
	if got := b.records(); len(got) != 1 || got[0].Reason != rec.Reason || got[0].Counts != rec.Counts {
		b.t.Errorf("access records %+v, want one that says what the row says: %+v", got, rec)
	}
	if left := b.totals(); left.Leases != 0 || left.Reserved != 0 {
		b.t.Errorf("left over: %+v", left)
	}
	if n := b.metric("http_active_requests"); n != 0 {
		b.t.Errorf("%v active requests", n)
	}
}

func TestHowAHandedOverAnswerEnds(t *testing.T) {
	for name, c := range map[string]struct {
		end        func(*bench, *admission.Session)
		reason     ledger.EndReason
		quality    ledger.Quality
		completion int64
	}{
		"the client leaves": {func(b *bench, s *admission.Session) {
			b.Ended(b.t.Context(), s.LeaseID(), admission.Outcome{Reason: ledger.ClientAbort, Report: said(12, 45, false)})
		}, ledger.ClientAbort, ledger.Exact, 45},
		"the meter does not know why, the log does": {func(b *bench, s *admission.Session) {
			b.Ended(b.t.Context(), s.LeaseID(), admission.Outcome{Reason: ledger.Aborted, Report: said(12, 45, false)})
			b.Witness(admission.Witness{LeaseID: s.LeaseID(), Cause: admission.CauseTimeout})
		}, ledger.Timeout, ledger.Exact, 45},
		"the log speaks and the meter does not": {func(b *bench, s *admission.Session) {
			b.Witness(admission.Witness{LeaseID: s.LeaseID(), Cause: admission.CauseClient})
		}, ledger.ClientAbort, ledger.Partial, 40},
		"the meter never saw its plan": {func(b *bench, s *admission.Session) {
			b.MeterGone(b.t.Context(), s.LeaseID())
		}, ledger.Aborted, ledger.Partial, 40},
		"Envoy dies": {func(b *bench, _ *admission.Session) {
			if n := b.InstanceGone(b.t.Context(), "another"); n != 0 {
				b.t.Errorf("another Envoy ended %d", n)
			}
			if n := b.InstanceGone(b.t.Context(), envoy1); n != 1 {
				b.t.Errorf("%d ended, want 1", n)
			}
		}, ledger.EnvoyCrash, ledger.Partial, 40},
		"Envoy dies behind its log entry": {func(b *bench, s *admission.Session) {
			b.Witness(admission.Witness{LeaseID: s.LeaseID(), Cause: admission.CauseUpstream})
			b.InstanceGone(b.t.Context(), envoy1)
		}, ledger.UpstreamAbort, ledger.Partial, 40},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, unlimited)
				s := b.handedOver(func() { t.Error("cut") })
				b.Progress(s.LeaseID(), 12, 40)
				c.end(b, s)
				time.Sleep(3 * time.Second)
				synctest.Wait()
				if rec := b.record(s); rec.Reason != c.reason || rec.Quality != c.quality || rec.Counts.Completion != c.completion {
					t.Errorf("the row says %s %s %d, want %s %s %d", rec.Reason, rec.Quality, rec.Counts.Completion, c.reason, c.quality, c.completion)
				}
				b.settledOnce(s)
			})
		})
	}
}

func TestTheMeterMayBeGoneBeforeTheHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, unlimited)
		s := b.claimed(keyA)
		if err := b.MeterGone(t.Context(), s.LeaseID()); err != nil {
			t.Fatal(err)
		}
		if err := s.Reserve(t.Context(), order()); err != nil {
			t.Fatal(err)
		}
		if s.HandOver(t.Context(), envoy1, nil) {
			t.Error("handed over to a meter whose stream is gone")
		}
		s.Close(t.Context(), admission.Outcome{Reason: ledger.Complete, Report: said(12, 99, true)})
		b.Witness(admission.Witness{LeaseID: s.LeaseID(), Cause: admission.CauseClient})
		if rec := b.record(s); rec.Reason != ledger.ClientAbort || rec.Counts.Completion != 0 {
			t.Errorf("the row says %+v", rec)
		}
		b.settledOnce(s)
	})
}

func TestAHandedOverAnswerIsCutByItsMeter(t *testing.T) {
	for _, before := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, unlimited)
			cuts := 0
			var s *admission.Session
			if before {
				s = b.live(keyA)
				b.Cancel("req-1")
				s.HandOver(t.Context(), envoy1, func() { cuts++ })
			} else {
				s = b.handedOver(func() { cuts++ })
				b.CutAll() // a stop leaves it to its Envoy
				if cuts != 0 {
					t.Error("a stop cut what a meter holds")
				}
				b.Cancel("req-1")
			}
			if n := b.Cancel("req-1"); cuts != 1 || n != 1 {
				t.Errorf("cut %d times, %d open; want 1, 1", cuts, n)
			}
			if err := b.Ended(t.Context(), s.LeaseID(), admission.Outcome{Reason: ledger.Aborted, Report: said(12, 3, false)}); err != nil {
				t.Fatal(err)
			}
			if rec := b.record(s); rec.Reason != ledger.Cancelled || rec.Counts.Completion != 3 {
				t.Errorf("the row says %+v", rec)
			}
		})
	}
}

func TestAnEndIsOnRecordOrAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, unlimited)
		s := b.handedOver(nil)
		b.ledger.fail(nil, ledger.ErrUnavailable)
		for range 2 {
			if err := b.Ended(t.Context(), s.LeaseID(), done(99)); err == nil {
				t.Error("no error although the ledger has nothing")
			}
		}
		b.Witness(admission.Witness{LeaseID: s.LeaseID(), Status: 200})
		b.ledger.fail(nil, nil)
		time.Sleep(time.Second)
		if err := b.Ended(t.Context(), s.LeaseID(), done(99)); err != nil {
			t.Errorf("after the ledger has recovered: %v", err)
		}
		if rec := b.record(s); rec.Counts.Completion != 99 {
			t.Errorf("the row says %+v", rec)
		}
		b.settledOnce(s)
	})
}

// restarted is another gate on the ledger and key file of b, as after a kill.
func (b *bench) restarted() *bench {
	b.t.Helper()
	return newBench(b.t, unlimited, func(o *admission.Options) { o.Ledger = b.ledger })
}

func TestASessionIsMadeFromItsRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := newBench(t, unlimited)
		s := old.handedOver(nil)
		old.Progress(s.LeaseID(), 12, 40)
		time.Sleep(time.Second)

		b := old.restarted()
		b.ledger = old.ledger
		if b.Progress(s.LeaseID(), 12, 41) {
			t.Error("a lease that is not attached takes counts")
		}
		cuts := 0
		for range 2 {
			if err := b.Attach(t.Context(), b.record(s), func() { cuts++ }); err != nil {
				t.Fatal(err)
			}
		}
		if got := b.totals(); got.Leases != 1 || got.Slots != 1 {
			t.Errorf("the limits hold %+v, want one lease with one slot", got)
		}
		b.listsTheAttached()
		if !b.Progress(s.LeaseID(), 12, 50) {
			t.Error("an attached lease takes no counts")
		}
		if b.Cancel("req-1"); cuts != 1 {
			t.Errorf("cut %d times", cuts)
		}
		if err := b.Ended(t.Context(), s.LeaseID(), admission.Outcome{Reason: ledger.Aborted, Report: said(12, 50, false)}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if rec := b.record(s); rec.Reason != ledger.Cancelled || rec.Quality != ledger.Exact || rec.Counts.Completion != 50 {
			t.Errorf("the row says %+v", rec)
		}
		b.settledOnce(s)
		if err := b.Attach(t.Context(), b.record(s), nil); err != nil || b.HandedOver() != 0 {
			t.Errorf("a settled row was attached: %v", err)
		}
	})
}

// listsTheAttached wants the one live request to say what its row says.
func (b *bench) listsTheAttached() {
	b.t.Helper()
	live := b.Live()
	if len(live) != 1 || live[0].RequestID != "req-1" || live[0].Model != "tiny" || live[0].CompletionTokens != 40 || b.HandedOver() != 1 {
		b.t.Errorf("live: %+v", live)
	}
}

// TestAnEndOfAnUnknownLease: the record of a meter comes before anybody attached its
// row, or when there is none, or when the row was closed without it.
func TestAnEndOfAnUnknownLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := newBench(t, unlimited)
		open, closed := old.handedOver(nil), old.handedOver(nil)
		if _, err := old.ledger.Recover(t.Context(), []string{closed.LeaseID()}, ledger.GatewayCrash, time.Now()); err != nil {
			t.Fatal(err)
		}
		b := old.restarted()
		b.ledger = old.ledger
		for range 2 {
			for _, lease := range []string{open.LeaseID(), closed.LeaseID(), "no-such-lease"} {
				if err := b.Ended(t.Context(), lease, done(70)); err != nil {
					t.Errorf("%s: %v", lease, err)
				}
			}
		}
		for _, s := range []*admission.Session{open, closed} {
			if rec := b.record(s); rec.Quality != ledger.Exact || rec.Counts.Completion != 70 {
				t.Errorf("the row says %+v", rec)
			}
		}
		if err := b.MeterGone(t.Context(), "no-such-lease"); err != nil {
			t.Error(err)
		}
		if _, err := b.Extend(t.Context(), "no-such-lease", 1); !errors.Is(err, admission.ErrTicket) {
			t.Errorf("extend: %v", err)
		}
	})
}

func TestARowOfARevokedSecretIsCutWhenItIsAttached(t *testing.T) {
	for name, keys := range map[string]string{
		"removed": `[]`, "rotated": `[{"key": "` + keyB + `", "id": "a", "user": "ann"}]`,
	} {
		synctest.Test(t, func(t *testing.T) {
			old := newBench(t, unlimited)
			s := old.handedOver(nil)
			b := newBench(t, unlimited, withKeys(t, keys), func(o *admission.Options) { o.Ledger = old.ledger })
			b.ledger = old.ledger
			cut := false
			if err := b.Attach(t.Context(), b.record(s), func() { cut = true }); err != nil || !cut {
				t.Errorf("%s: cut %v, %v", name, cut, err)
			}
			b.Ended(t.Context(), s.LeaseID(), admission.Outcome{Reason: ledger.Aborted, Report: said(12, 5, false)})
			if rec := b.record(s); rec.Reason != ledger.Revoked {
				t.Errorf("%s: the row says %s", name, rec.Reason)
			}
		})
	}
}

func TestAMeterExtendsAQuotaByLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, unlimited, withKeys(t, `[{"key": "`+keyA+`", "id": "a", "user": "ann", "quota": 1000}]`))
		s := b.handedOver(nil)
		granted, prompted := s.Allowance()
		if granted <= 0 || granted > 200 || prompted <= 0 {
			t.Errorf("allowance %d, %d for the prompt", granted, prompted)
		}
		if total, err := b.Extend(t.Context(), s.LeaseID(), 300); err != nil || total < 300 || total > 1000 {
			t.Errorf("300 used: %d, %v", total, err)
		}
		if total, err := b.Extend(t.Context(), s.LeaseID(), 2000); err != nil || total > 1000 {
			t.Errorf("2000 used: %d, %v; want no more than the quota", total, err)
		}
	})
}

// TestTheTicketOfAnotherGateway: two gates share limits and ledger; a ticket that one
// issued is claimed, settled and witnessed at the other.
func TestTheTicketOfAnotherGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		origin := newBench(t, unlimited)
		b := newBench(t, unlimited, func(o *admission.Options) { o.Limits, o.Ledger = origin.limits, origin.ledger })
		b.limits, b.ledger = origin.limits, origin.ledger
		ticket, err := origin.Admit(t.Context(), arrive(keyA))
		if err != nil {
			t.Fatal(err)
		}
		s, err := b.ClaimFacts(t.Context(), ticket.Facts())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.ClaimFacts(t.Context(), ticket.Facts()); !errors.Is(err, admission.ErrTicket) {
			t.Errorf("claimed twice: %v", err)
		}
		if err := s.Reserve(t.Context(), order()); err != nil {
			t.Fatal(err)
		}
		s.Progress(usage.Counts{Prompt: 12, Completion: 4})
		s.Close(t.Context(), admission.Outcome{Reason: ledger.Complete, Status: 200, Report: said(12, 4, true)})
		b.Witness(admission.Witness{LeaseID: s.LeaseID(), Status: 200})
		if rec := b.record(s); rec.Reason != ledger.Complete || rec.KeyID != "a" || rec.RequestID != "req-1" || rec.Counts.Completion != 4 {
			t.Errorf("the row says %+v", rec)
		}
		b.settledOnce(s)
	})
}
