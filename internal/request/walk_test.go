package request

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"tollgate/internal/ledger"
	"tollgate/internal/usage"
)

// TestAnyOrderOfEvents walks at random through the lives of requests, on a ledger
// that fails and recovers. In the end the ledger has one settled row of each request
// that was sent, with the name that the events give, and the metrics and the access
// record say the same.
func TestAnyOrderOfEvents(t *testing.T) {
	const seeds = 100_000
	for seed := range uint64(seeds) {
		w := &walk{rng: rand.New(rand.NewPCG(seed, 7))}
		w.run()
		if why := w.wrong(); why != "" {
			t.Fatalf("seed %d: %s, a request that is %s after %v\n  the row is %+v, counted %v, recorded %v",
				seed, why, w.State, w.did, w.row, w.counted, w.recorded)
		}
	}
}

// walk is one request with the least that a caller of this package needs.
type walk struct {
	life
	rng *rand.Rand
	did []string

	row      ledger.Record      // what the ledger has; "" lease: no row
	owed     *ledger.Settlement // in flight or refused
	broken   bool               // ended without its end
	counted  []ledger.EndReason
	recorded []ledger.EndReason
	names    int // how often the row got another name
}

func (w *walk) run() {
	first := []Event{OnArrived, OnArrived, OnArrived, OnClaimed, OnReattached}
	w.take(first[w.rng.IntN(len(first))])
	likely := []Event{OnTicketed, OnClaimed, OnReserved, OnBegun}
	if w.rng.IntN(10) == 0 {
		likely = nil // an unlikely life
	}
	for range 10 + w.rng.IntN(30) {
		on := Event(1 + w.rng.IntN(int(events)-1))
		if len(likely) > 0 && w.rng.IntN(2) == 0 {
			on, likely = likely[0], likely[1:]
		}
		if on != OnGivenUp && on != OnRowMissing {
			w.take(on)
		}
	}
	for range 40 { // the ledger works again, the holder goes, time passes
		for _, on := range []Event{OnDenied, OnLapsed, OnIntentRefused, OnAccepted, OnRetry, OnBroken, OnClosed, OnExpired} {
			w.take(on)
		}
	}
}

// take lets an event happen if it can, and does what follows.
func (w *walk) take(on Event) {
	if !w.can(on) {
		return
	}
	before := w.life
	next, do, ok := w.step(on)
	if !ok {
		return
	}
	w.did = append(w.did, on.String())
	w.happened(on, before, next)
	w.life = next
	for effect, rest := do.Pop(); effect != 0; effect, rest = rest.Pop() {
		w.perform(effect)
	}
}

func (w *walk) happened(on Event, before, next life) {
	switch {
	case on == OnBegun, on == OnReattached:
		w.row = ledger.Opened(ledger.Intent{LeaseID: "l"})
	case on == OnIntentUnknown:
		if w.rng.IntN(2) == 0 {
			w.row = ledger.Opened(ledger.Intent{LeaseID: "l"})
		}
		w.owed = settlement(ledger.Refused)
	case on == OnEnded:
		w.owed = settlement(ledger.Complete)
	case on == OnMeterLost:
		w.owed = settlement(ledger.EnvoyCrash)
	case before.Ledger == LedgerOpen && next.Ledger == LedgerWriting:
		w.broken, w.owed = true, settlement(ledger.Aborted)
	case on == OnAccepted:
		w.write()
	}
}

func settlement(reason ledger.EndReason) *ledger.Settlement {
	return &ledger.Settlement{LeaseID: "l", Reason: reason, Quality: ledger.Exact, EndedAt: time.Unix(1, 0), Counts: usage.Counts{Completion: 3}}
}

// write is the ledger accepting what is owed.
func (w *walk) write() {
	if w.row.LeaseID == "" {
		w.row = ledger.Opened(ledger.Intent{LeaseID: "l"}) // an unknown intent that was written after all
	}
	was := w.row.Reason
	w.row, _, _ = ledger.Merge(w.row, *w.owed)
	if was != w.row.Reason {
		w.names++
	}
}

func (w *walk) perform(effect Effect) {
	switch { //nolint:staticcheck // a tagged one would have to name every effect
	case effect == DoSettle, effect == DoRename:
		if w.Named && w.owed.Reason == ledger.Aborted || effect == DoRename {
			w.owed = settlement(w.name())
		}
	case effect == DoCount:
		w.counted = append(w.counted, w.row.Reason)
	case effect == DoRecord:
		w.recorded = append(w.recorded, w.row.Reason)
	}
}

// name is what the log entry says of an end that has no name.
func (w *walk) name() ledger.EndReason {
	if w.Entry == EntrySeen {
		return ledger.ClientAbort
	}
	return ledger.Aborted
}

// wrong says what is wrong at the end of the walk; "" when nothing is.
func (w *walk) wrong() string {
	if why := w.life.wrong(); why != "" {
		return why
	}
	switch {
	case w.Stage != Done:
		return "it has not ended"
	case len(w.counted) > 1 || len(w.recorded) > 1:
		return "counted or recorded twice"
	case w.row.LeaseID == "":
		return w.without()
	case w.row.Open():
		return "the row is open"
	case len(w.counted) != 1 || w.counted[0] != w.row.Reason:
		return "the metrics do not say what the ledger says"
	case len(w.recorded) != 1 || w.recorded[0] != w.row.Reason:
		return "the access record does not say what the ledger says"
	case w.names > 2:
		return fmt.Sprintf("named %d times", w.names)
	case w.broken && w.Entry == EntrySeen && w.row.Reason != ledger.ClientAbort:
		return "the name that the log entry gave is lost"
	}
	return ""
}

// without is what is wrong with a request that has no row.
func (w *walk) without() string {
	if len(w.counted) > 0 {
		return "counted without a row"
	}
	if len(w.recorded) > 0 && w.recorded[0] != "" {
		return "the access record says what the ledger does not"
	}
	return ""
}
