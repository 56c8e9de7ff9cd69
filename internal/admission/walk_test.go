package admission_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tollgate/internal/admission"
	"tollgate/internal/ledger"
	"tollgate/internal/usage"
)

// TestAnyOrderOfEventsEndsInOneRecord walks at random through what can happen to
// a request, its ledger failing and working in between; some are handed over to a
// meter inside Envoy, and some are attached from their open row. In the end the ledger
// has the name that the events give, the log has one record, and the log and the
// metrics say what the ledger says.
func TestAnyOrderOfEventsEndsInOneRecord(t *testing.T) {
	const bubbles, walks = 30, 100
	for i := range bubbles {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, unlimited)
			var done []*walk
			for j := range walks {
				seed := uint64(i*walks + j)
				w := &walk{bench: b, rng: rand.New(rand.NewPCG(seed, 1)), id: fmt.Sprint("req-", seed)}
				w.run()
				done = append(done, w)
			}
			b.checkWalks(done)
		})
		if t.Failed() {
			return
		}
	}
}

// walk is one request, and what is to be expected of it.
type walk struct {
	*bench
	rng *rand.Rand
	id  string
	did []string

	s                          *admission.Session
	lease                      string
	intent, settled, cancelled bool
	handed, gone               bool // a meter has the answer; it said that the stream is gone
	partial                    bool // ended from the last counts
	closedAt, loggedAt         time.Time
	completion                 int64
	cause                      admission.Cause  // by the first log entry
	want                       ledger.EndReason // "" while nothing names the end
	either                     bool             // the log came when the grace was just over
}

func (w *walk) run() {
	if w.rng.IntN(8) == 0 {
		w.attaches()
	} else {
		w.arrives()
	}
	for range 4 + w.rng.IntN(12) {
		w.step()
	}
	w.ledger.fail(nil, nil)
	w.closes()
	time.Sleep(2 * time.Second) // the grace, and a retry
	if w.loggedAt.IsZero() && w.rng.IntN(2) == 0 {
		w.logs()
	}
	time.Sleep(time.Second)
	synctest.Wait()
}

func (w *walk) arrives() {
	a := arrive(keyA)
	a.RequestID = w.id
	ticket, err := w.Admit(w.t.Context(), a)
	if err == nil {
		w.s, err = w.Claim(w.t.Context(), ticket.LeaseID)
	}
	if err != nil {
		w.t.Fatalf("%s: %v", w.id, err)
	}
	w.lease = ticket.LeaseID
	if w.rng.IntN(5) > 0 {
		w.reserves()
	}
}

// attaches begins with the open row of a gateway that is no more.
func (w *walk) attaches() {
	w.lease, w.intent, w.handed = "lease-of-"+w.id, true, true
	intent := ledger.Intent{
		LeaseID: w.lease, RequestID: w.id, KeyID: "a", User: "ann", Model: "tiny", Endpoint: "/v1/chat/completions",
		Stream: true, N: 1, Prompts: 1, StartedAt: time.Now(), Meter: envoy1, Reserved: 20,
	}
	w.ledger.fail(nil, nil)
	err := w.ledger.Begin(w.t.Context(), intent)
	if err == nil {
		err = w.Attach(w.t.Context(), ledger.Opened(intent), nil)
	}
	if err != nil {
		w.t.Fatalf("%s: attach: %v", w.id, err)
	}
	w.note("attach")
}

// step does one thing at random; what the stage does not allow is nothing.
func (w *walk) step() {
	w.look()
	switch w.rng.IntN(11) {
	case 0:
		w.reserves()
	case 2:
		w.progresses()
	case 3:
		w.settles()
	case 4:
		w.closes()
	case 5:
		w.logs()
	case 6:
		if w.Cancel(w.id) > 0 {
			w.cancelled = true
		}
		w.note("cancel")
	case 1, 7:
		errs := []error{nil, ledger.ErrUnavailable, ledger.ErrUnavailable}
		begin, settle := errs[w.rng.IntN(2)], errs[w.rng.IntN(3)]
		w.ledger.fail(begin, settle)
		w.note(fmt.Sprintf("ledger: begin %v, settle %v", begin, settle))
	case 8:
		d := []time.Duration{10 * time.Millisecond, 400 * time.Millisecond, 2 * time.Second}[w.rng.IntN(3)]
		time.Sleep(d)
		synctest.Wait()
		w.note(fmt.Sprint("wait ", d))
	case 9:
		w.handsOver()
	case 10:
		w.loses()
	}
}

// look sees whether the gate has ended what a meter has, because its log entry is old.
func (w *walk) look() {
	live := slices.ContainsFunc(w.Live(), func(r admission.Running) bool { return r.LeaseID == w.lease })
	if !w.handed || live || !w.closedAt.IsZero() {
		return
	}
	w.note("was ended")
	if w.loggedAt.IsZero() || time.Since(w.loggedAt) < time.Second {
		w.bad("the gate has ended it for nothing")
	}
	w.endsFromLastCounts()
}

func (w *walk) progresses() {
	if !w.intent || w.settled || !w.closedAt.IsZero() {
		return
	}
	w.completion += w.rng.Int64N(100)
	if w.handed {
		w.Progress(w.lease, 12, w.completion)
	} else {
		w.s.Progress(usage.Counts{Prompt: 12, Completion: w.completion})
	}
	w.note("progress")
}

func (w *walk) handsOver() {
	if !w.intent || w.handed || w.settled || !w.closedAt.IsZero() {
		return
	}
	w.handed = true
	live := w.s.HandOver(w.t.Context(), envoy1, nil)
	w.s.Close(w.t.Context(), admission.Outcome{Reason: ledger.Complete, Report: said(12, 9999, true)}) // its stream
	w.note(fmt.Sprint("hand over: ", live))
	if live == w.gone {
		w.bad("handed over: %v, the meter had said that it is gone: %v", live, w.gone)
	}
	if !live {
		w.endsFromLastCounts()
	}
}

// loses lets the meter say that the stream is gone, or its Envoy die.
func (w *walk) loses() {
	crash := w.rng.IntN(2) == 0
	switch {
	case !w.handed && w.s != nil && w.closedAt.IsZero() && !w.settled:
		w.gone = true
		_ = w.MeterGone(w.t.Context(), w.lease)
		w.note("meter gone early")
		return
	case !w.handed || !w.closedAt.IsZero():
		return
	case crash:
		w.InstanceGone(w.t.Context(), envoy1)
	default:
		_ = w.MeterGone(w.t.Context(), w.lease)
	}
	w.note(fmt.Sprint("meter gone, crash: ", crash))
	w.endsFromLastCounts()
	if crash && w.want == "" {
		w.want = ledger.EnvoyCrash
	}
}

// endsFromLastCounts: the end of an answer whose meter said no more of it.
func (w *walk) endsFromLastCounts() {
	w.closedAt, w.settled, w.partial = time.Now(), true, true
	if w.cancelled {
		w.want = ledger.Cancelled
	} else if !w.loggedAt.IsZero() {
		w.want = causes[w.cause]
	}
}

func (w *walk) note(what string) { w.did = append(w.did, what) }

func (w *walk) reserves() {
	if w.s == nil || w.intent || !w.closedAt.IsZero() {
		return
	}
	err := w.s.Reserve(w.t.Context(), order())
	w.note(fmt.Sprint("reserve: ", err))
	if w.intent = err == nil; !w.intent {
		w.closes() // the client is refused
	}
}

func (w *walk) settles() {
	if !w.intent || w.settled || !w.closedAt.IsZero() {
		return
	}
	w.settled, w.want = true, ledger.Complete
	whole := admission.Outcome{Reason: ledger.Complete, Status: 200, Report: said(12, w.completion, true)}
	if w.handed {
		w.closedAt = time.Now()
		w.note(fmt.Sprint("meter ends: ", w.Ended(w.t.Context(), w.lease, whole)))
		return
	}
	err := w.s.Settle(w.t.Context(), whole)
	w.note(fmt.Sprint("settle: ", err))
	if err != nil {
		w.closes() // the stream is cut
	}
}

func (w *walk) closes() {
	w.look()
	if !w.closedAt.IsZero() {
		return
	}
	w.closedAt = time.Now()
	if w.intent && !w.settled {
		w.settled = true
		if w.cancelled {
			w.want = ledger.Cancelled
		} else if !w.loggedAt.IsZero() {
			w.named()
		}
	}
	broken := admission.Outcome{Reason: ledger.Aborted, Status: 200, Report: said(12, w.completion, false)}
	if w.handed {
		w.note(fmt.Sprint("meter closes: ", w.Ended(w.t.Context(), w.lease, broken)))
		return
	}
	w.s.Close(w.t.Context(), broken)
	w.note("close")
}

var causes = map[admission.Cause]ledger.EndReason{
	admission.CauseNone: "", admission.CauseGateway: "", admission.CauseClient: ledger.ClientAbort,
	admission.CauseUpstream: ledger.UpstreamAbort, admission.CauseTimeout: ledger.Timeout,
}

// logged are the causes that the proxy gives here.
var logged = slices.Sorted(maps.Keys(causes))

// logs sends the proxy's account, which comes once.
func (w *walk) logs() {
	if !w.loggedAt.IsZero() {
		return
	}
	cause := logged[w.rng.IntN(len(logged))]
	w.loggedAt, w.cause = time.Now(), cause
	if !w.closedAt.IsZero() {
		w.named()
	}
	w.Witness(admission.Witness{LeaseID: w.lease, RequestID: w.id, Status: 200, Cause: cause})
	w.note(fmt.Sprintf("log: %d", cause))
}

// named: both the stream and the proxy have said that it ended.
func (w *walk) named() {
	if !w.intent || w.want != "" {
		return
	}
	late := w.loggedAt.Sub(w.closedAt)
	if late <= time.Second {
		w.want = causes[w.cause]
	}
	w.either = late > 900*time.Millisecond && late < 1500*time.Millisecond
}

// series are the labels of requests_settled_total.
type series struct {
	reason  ledger.EndReason
	quality ledger.Quality
}

// checkWalks compares all that is left of the walks with what must be.
func (b *bench) checkWalks(walks []*walk) {
	b.t.Helper()
	access := map[string][]admission.Access{}
	for _, a := range b.records() {
		access[a.LeaseID] = append(access[a.LeaseID], a)
	}
	settled, output := map[series]int{}, int64(0)
	for _, w := range walks {
		said := access[w.lease]
		switch {
		case len(said) != 1:
			w.bad("%d access records, want 1", len(said))
		case w.intent:
			rec := b.row(w.lease)
			settled[series{rec.Reason, rec.Quality}]++
			output += rec.Counts.Completion
			w.check(rec, said[0])
		case said[0].Reason != "":
			w.bad("nothing was sent to the engine, but its record says %s", said[0].Reason)
		}
	}
	b.checkMetrics(settled, output)
	if n := b.Pending(); n != 0 {
		b.t.Errorf("%d settlements still wait for the ledger", n)
	}
	if left := b.totals(); left.Leases != 0 || left.Reserved != 0 {
		b.t.Errorf("left over: %+v", left)
	}
}

// check compares a row and its access record with what the events give.
func (w *walk) check(rec ledger.Record, said admission.Access) {
	w.t.Helper()
	want := w.want
	if want == "" {
		want = ledger.Aborted
	}
	if w.either && rec.Reason == causes[w.cause] {
		want = rec.Reason
	}
	if rec.Reason != want {
		w.bad("the ledger says %q, want %q", rec.Reason, want)
	}
	quality := ledger.Exact
	if w.partial {
		quality = ledger.Partial
	}
	if w.partial && rec.Counts.Completion == 0 && rec.Quality == ledger.Estimated {
		quality = ledger.Estimated // the meter had said nothing yet
	}
	if rec.Counts.Completion != w.completion || rec.Quality != quality {
		w.bad("the ledger has %d tokens %s, want %d %s", rec.Counts.Completion, rec.Quality, w.completion, quality)
	}
	if said.Reason != rec.Reason || said.Quality != rec.Quality || said.Counts != rec.Counts {
		w.bad("the record says %s %s %+v, the ledger %s %s %+v", said.Reason, said.Quality, said.Counts, rec.Reason, rec.Quality, rec.Counts)
	}
}

// checkMetrics compares the metrics with the rows.
func (b *bench) checkMetrics(settled map[series]int, output int64) {
	b.t.Helper()
	for _, reason := range ledger.EndReasons() {
		for _, quality := range []ledger.Quality{ledger.Exact, ledger.Partial, ledger.Estimated} {
			got := b.metric("requests_settled_total", "end_reason", string(reason), "quality", string(quality))
			if want := settled[series{reason, quality}]; got != float64(want) {
				b.t.Errorf("requests_settled_total of %s %s: %v, the ledger has %d", reason, quality, got, want)
			}
		}
	}
	if got := b.metric("token_usage_total", "api_key", "a", "type", "output"); got != float64(output) {
		b.t.Errorf("token_usage_total: %v, the ledger has %d", got, output)
	}
}

func (w *walk) bad(format string, args ...any) {
	w.t.Helper()
	w.t.Errorf("%s: %s\n  after %s", w.id, fmt.Sprintf(format, args...), strings.Join(w.did, "; "))
}
