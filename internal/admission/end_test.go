package admission_test

import (
	"testing"
	"testing/synctest"
	"time"

	"tollgate/internal/admission"
	"tollgate/internal/ledger"
	"tollgate/internal/limit"
	"tollgate/internal/usage"
)

func TestTheLogNamesAnEarlyEnd(t *testing.T) {
	for cause, want := range map[admission.Cause]ledger.EndReason{
		admission.CauseClient: ledger.ClientAbort, admission.CauseUpstream: ledger.UpstreamAbort,
		admission.CauseTimeout: ledger.Timeout, admission.CauseGateway: ledger.Aborted,
	} {
		for _, logFirst := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, unlimited)
				s := b.live(keyA)
				s.Progress(usage.Counts{Prompt: 12, Completion: 3})
				w := admission.Witness{LeaseID: s.LeaseID(), Status: 200, Cause: cause}
				end := admission.Outcome{Reason: ledger.Aborted, Status: 200, Report: said(12, 3, false)}
				if logFirst {
					b.Witness(w)
					s.Close(t.Context(), end)
				} else {
					s.Close(t.Context(), end)
					b.Witness(w)
				}
				rec := b.record(s)
				if rec.Reason != want || rec.Quality != ledger.Exact || rec.Counts.Completion != 3 || rec.Counts.Prompt != 12 {
					t.Errorf("cause %d, log first %v: got %+v, want %s", cause, logFirst, rec, want)
				}
				if got := b.metric("requests_settled_total", "end_reason", string(want), "quality", "exact"); got != 1 {
					t.Errorf("cause %d: settled %v times as %s, want once", cause, got, want)
				}
				if got := b.metric("token_usage_total", "api_key", "a", "type", "output"); got != 3 {
					t.Errorf("cause %d: token_usage_total %v, want 3", cause, got)
				}
				if got := len(b.records()); got != 1 {
					t.Errorf("cause %d: %d access records, want 1", cause, got)
				}
			})
		}
	}
}

func TestAnEndWithoutALogEntryIsFinishedAfterASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, unlimited)
		s := b.live(keyA)
		s.Close(t.Context(), admission.Outcome{Reason: ledger.Aborted, Report: said(12, 3, false)})
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		if rec := b.record(s); rec.Reason != ledger.Aborted {
			t.Errorf("reason: got %s, want aborted", rec.Reason)
		}
		if got := b.metric("token_usage_total", "api_key", "a", "type", "input"); got != 12 {
			t.Errorf("token_usage_total: got %v, want 12", got)
		}
	})
}

func TestAStreamThatOutlivesItsLogEntryIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, unlimited)
		s := b.live(keyA)
		cut := make(chan struct{})
		s.OnCut(func() { close(cut) })
		b.Witness(admission.Witness{LeaseID: s.LeaseID(), Cause: admission.CauseClient})
		start := time.Now()
		<-cut
		if d := time.Since(start); d > 1500*time.Millisecond {
			t.Errorf("cut after %v, want about a second", d)
		}
		s.Close(t.Context(), admission.Outcome{Reason: ledger.Aborted, Report: said(1, 1, false)})
		if rec := b.record(s); rec.Reason != ledger.ClientAbort {
			t.Errorf("reason: got %s, want client_abort", rec.Reason)
		}
	})
}

func TestALogEntryFreesALeaseThatNoStreamClaimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, unlimited)
		ticket, err := b.Admit(t.Context(), arrive(keyA))
		if err != nil {
			t.Fatal(err)
		}
		b.Witness(admission.Witness{LeaseID: ticket.LeaseID, Status: 500, Cause: admission.CauseGateway})
		if got := b.totals().Leases; got != 0 {
			t.Errorf("leases: got %d, want 0", got)
		}
		if got := b.records(); len(got) != 1 || got[0].KeyID != "a" {
			t.Errorf("access records: got %+v, want one of key a", got)
		}
	})
}

func TestWhatCannotBeRecordedIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, unlimited)
		b.ledger.fail(ledger.ErrUnavailable, nil)
		s := b.claimed(keyA)
		if err := s.Reserve(t.Context(), order()); err == nil {
			t.Fatal("a request without an intent was let through")
		}
		s.Close(t.Context(), admission.Outcome{Reason: ledger.Aborted})
		if got := b.totals(); got.Leases != 0 || got.Reserved != 0 {
			t.Errorf("left over: %+v", got)
		}
	})
}

func TestASettlementThatFailsIsKeptAndRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, unlimited)
		s := b.live(keyA)
		b.ledger.fail(nil, ledger.ErrUnavailable)
		if err := s.Settle(t.Context(), admission.Outcome{Reason: ledger.Complete, Status: 200, Report: said(12, 8, true)}); err == nil {
			t.Fatal("settled without a ledger")
		}
		s.Close(t.Context(), admission.Outcome{Reason: ledger.Aborted})
		b.Witness(admission.Witness{LeaseID: s.LeaseID(), Cause: admission.CauseGateway})
		if got := b.Pending(); got != 1 {
			t.Errorf("pending: got %d, want 1", got)
		}
		if got := b.totals().Leases; got != 0 {
			t.Errorf("leases: got %d, want 0", got)
		}
		b.ledger.fail(nil, nil)
		time.Sleep(time.Second)
		synctest.Wait()
		rec := b.record(s)
		if rec.Reason != ledger.Complete || rec.Counts.Completion != 8 || b.Pending() != 0 {
			t.Errorf("after the retry: got %+v, pending %d", rec, b.Pending())
		}
		if got := b.metric("token_usage_total", "api_key", "a", "type", "output"); got != 8 {
			t.Errorf("token_usage_total: got %v, want 8", got)
		}
	})
}

func TestCutsHaveTheirReason(t *testing.T) {
	disabled := `[{"key": "` + keyA + `", "id": "a", "user": "ann", "enabled": false}]`
	draining := `[{"key": "` + keyA + `", "id": "a", "user": "ann", "enabled": false, "drain": true}]`
	for name, c := range map[string]struct {
		cut  func(*bench)
		want ledger.EndReason // "" = not cut
	}{
		"cancelled":             {func(b *bench) { b.Cancel("req-1") }, ledger.Cancelled},
		"revoked":               {func(b *bench) { b.Revoke(ring(b.t, disabled)) }, ledger.Revoked},
		"removed":               {func(b *bench) { b.Revoke(ring(b.t, `[]`)) }, ledger.Revoked},
		"drained":               {func(b *bench) { b.CutAll() }, ledger.Drained},
		"disabled with drain":   {func(b *bench) { b.Revoke(ring(b.t, draining)) }, ""},
		"another id cancelled":  {func(b *bench) { b.Cancel("req-2") }, ""},
		"key file is unchanged": {func(b *bench) { b.Revoke(ring(b.t, keyFile)) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, unlimited)
				s := b.live(keyA)
				cut := false
				s.OnCut(func() { cut = true })
				c.cut(b)
				if cut != (c.want != "") {
					t.Fatalf("cut: got %v, want %v", cut, c.want != "")
				}
				s.Close(t.Context(), admission.Outcome{Reason: ledger.Aborted, Report: said(12, 3, false)})
				b.Witness(admission.Witness{LeaseID: s.LeaseID(), Cause: admission.CauseGateway})
				want := c.want
				if want == "" {
					want = ledger.Aborted
				}
				if rec := b.record(s); rec.Reason != want || rec.Counts.Completion != 3 {
					t.Errorf("record: got %+v, want %s", rec, want)
				}
			})
		})
	}
}

func TestARequestCutBeforeItWasSentIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, unlimited)
		s := b.claimed(keyA)
		b.Revoke(ring(t, `[]`))
		if err := s.Reserve(t.Context(), order()); reason(err) != admission.Cancelled {
			t.Errorf("reserve: got %v, want cancelled", err)
		}
		s.Close(t.Context(), admission.Outcome{Reason: ledger.Aborted})
		if got := b.totals(); got.Leases != 0 || got.Reserved != 0 {
			t.Errorf("left over: %+v", got)
		}
	})
}

func TestEstimatesStandInWhereNothingWasSaid(t *testing.T) {
	none := usage.Report{Counts: usage.None()}
	text := usage.Report{Counts: usage.None(), TextBytes: 40, Deltas: 3}
	start := usage.Report{Counts: usage.Counts{Prompt: 7, Completion: 0, Cached: -1, Reasoning: -1}, Seen: true, TextBytes: 80, Deltas: 2}
	for name, c := range map[string]struct {
		format             usage.Format
		report             usage.Report
		reason             ledger.EndReason
		prompt, completion int64
		quality            ledger.Quality
	}{
		"nothing came":             {usage.Chat, none, ledger.Aborted, 10, 0, ledger.Estimated},
		"text without usage":       {usage.Chat, text, ledger.Aborted, 10, 10, ledger.Estimated},
		"messages after its start": {usage.Messages, start, ledger.Aborted, 7, 20, ledger.Estimated},
		"refused by vLLM":          {usage.Chat, none, ledger.Refused, 0, 0, ledger.Exact},
		"free":                     {usage.Free, none, ledger.Complete, 0, 0, ledger.Exact},
		"zero is zero":             {usage.Chat, said(0, 0, true), ledger.Complete, 0, 0, ledger.Exact},
		"output is nonsense":       {usage.Chat, usage.Report{Counts: usage.Counts{Prompt: 7, Completion: -1, Cached: -1, Reasoning: -1}, Seen: true, TextBytes: 40, Deltas: 3}, ledger.Complete, 7, 10, ledger.Estimated},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, unlimited)
				s := b.claimed(keyA)
				o := order()
				o.Format = c.format
				if err := s.Reserve(t.Context(), o); err != nil {
					t.Fatal(err)
				}
				s.Close(t.Context(), admission.Outcome{Reason: c.reason, Report: c.report})
				rec := b.record(s)
				if rec.Counts.Prompt != c.prompt || rec.Counts.Completion != c.completion || rec.Quality != c.quality {
					t.Errorf("got %d + %d %s, want %d + %d %s", rec.Counts.Prompt, rec.Counts.Completion, rec.Quality,
						c.prompt, c.completion, c.quality)
				}
			})
		})
	}
}

func TestQuotaFollowsTheLedgerAndTheWallClock(t *testing.T) {
	daily := `[{"key": "` + keyA + `", "id": "a", "user": "ann", "quota": 20, "quota_period": "day"}]`
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, unlimited, func(o *admission.Options) { o.Keys = fixedKeys{ring(t, daily)} })
		s := b.live(keyA)
		if err := s.Settle(t.Context(), admission.Outcome{Reason: ledger.Complete, Report: said(12, 8, true)}); err != nil {
			t.Fatal(err)
		}
		s.Close(t.Context(), admission.Outcome{})
		if _, err := b.Admit(t.Context(), arrive(keyA)); reason(err) != admission.QuotaSpent {
			t.Fatalf("spent quota: got %v", err)
		}
		// A restart: another store asks the ledger.
		again := newBench(t, unlimited, func(o *admission.Options) {
			o.Keys, o.Ledger = fixedKeys{ring(t, daily)}, b.ledger
		})
		if _, err := again.Admit(t.Context(), arrive(keyA)); reason(err) != admission.QuotaSpent {
			t.Errorf("spent quota after a restart: got %v", err)
		}
		b.setWall(time.Now().Add(24 * time.Hour))
		if _, err := b.Admit(t.Context(), arrive(keyA)); err != nil {
			t.Errorf("the next day: got %v, want admitted", err)
		}
	})
}

func TestAJumpOfTheWallClockChangesNoWindow(t *testing.T) {
	for _, jump := range []time.Duration{time.Hour, -time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			caps := unlimited
			caps.Requests, caps.Concurrent = 2, 2
			b := newBench(t, caps)
			b.live(keyA)
			b.setWall(time.Now().Add(jump))
			second := b.claimed(keyA)
			if _, err := b.Admit(t.Context(), arrive(keyA)); reason(err) != admission.RequestRate {
				t.Errorf("third within the minute: got %v, want the request window", err)
			}
			second.Close(t.Context(), admission.Outcome{Reason: ledger.Aborted})
			if got := b.totals().Leases; got != 1 {
				t.Errorf("leases: got %d, want the one live stream", got)
			}
			time.Sleep(limit.Window + time.Second)
			if _, err := b.Admit(t.Context(), arrive(keyA)); err != nil {
				t.Errorf("a minute later: got %v, want admitted", err)
			}
		})
	}
}

func TestAStreamThatDiedWithItsProxyIsNamed(t *testing.T) {
	for name, c := range map[string]struct {
		goneAfter time.Duration // of the stream's end; negative: before it
		logged    bool
		want      ledger.EndReason
	}{
		"at once":              {0, false, ledger.EnvoyCrash},
		"the log broke before": {-900 * time.Millisecond, false, ledger.EnvoyCrash},
		"the log broke behind": {900 * time.Millisecond, false, ledger.EnvoyCrash},
		"long before":          {-5 * time.Second, false, ledger.Aborted},
		"the log has told":     {0, true, ledger.ClientAbort},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, unlimited)
				s := b.live(keyA)
				if c.goneAfter < 0 {
					b.ProxyGone()
					time.Sleep(-c.goneAfter)
				}
				s.Close(t.Context(), admission.Outcome{Reason: ledger.Aborted, Status: 200, Report: said(12, 3, false)})
				if c.logged {
					b.Witness(admission.Witness{LeaseID: s.LeaseID(), Status: 200, Cause: admission.CauseClient})
				}
				if c.goneAfter >= 0 {
					time.Sleep(c.goneAfter)
					b.ProxyGone()
				}
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if rec := b.record(s); rec.Reason != c.want || rec.Counts.Completion != 3 || rec.Quality != ledger.Exact {
					t.Errorf("got %+v, want %s", rec, c.want)
				}
				if got := b.metric("requests_settled_total", "end_reason", string(c.want), "quality", "exact"); got != 1 {
					t.Errorf("settled %v times as %s, want once", got, c.want)
				}
			})
		})
	}
}

// TestTheLastRoundFinishesWhatWaitsForItsLogEntry: a request that has ended when
// the service does is in the log and in the metrics, also where the ledger fails.
func TestTheLastRoundFinishesWhatWaitsForItsLogEntry(t *testing.T) {
	for _, failed := range []error{nil, ledger.ErrUnavailable} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, unlimited)
			s := b.live(keyA)
			b.ledger.fail(nil, failed)
			s.Close(t.Context(), admission.Outcome{Reason: ledger.Aborted, Report: said(12, 3, false)})
			if got := b.Awaited(); got != 1 {
				t.Errorf("%d ends wait for their log entry, want 1", got)
			}
			b.stop()
			got := b.records()
			if len(got) != 1 || got[0].Reason != ledger.Aborted || got[0].Counts.Completion != 3 || b.Awaited() != 0 {
				t.Errorf("ledger %v: access records %+v, %d waiting; want the one of the request", failed, got, b.Awaited())
			}
			if n := b.metric("requests_settled_total", "end_reason", "aborted", "quality", "exact"); failed == nil && n != 1 {
				t.Errorf("settled %v times in the metrics, want once", n)
			}
		})
	}
}
