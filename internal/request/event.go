package request

import (
	"math/bits"
	"strings"
)

// Event is something that happened to a request.
type Event uint8

// The events.
const (
	// onItself is no event: the table's rows under it follow from the state alone.
	onItself Event = iota

	// OnArrived: the headers have come and the credential is good.
	OnArrived
	// OnDenied: the limits refused, or could not be asked. Nothing was taken.
	OnDenied
	// OnTicketed: the limits gave a lease, and its id goes out as a ticket.
	OnTicketed
	// OnWithdrawn: the ticket or the claim turned out to be of no use.
	OnWithdrawn
	// OnClaimed: a stream claims the ticket. On a new state: the ticket of another
	// gateway.
	OnClaimed
	// OnLapsed: the lease of an unclaimed ticket went back.
	OnLapsed
	// OnElsewhere: another gateway has claimed the ticket. The request is its own.
	OnElsewhere
	// OnReserved: the limits gave what the body asks for.
	OnReserved
	// OnBegun: the ledger has the intent.
	OnBegun
	// OnIntentRefused: the ledger does not have the intent.
	OnIntentRefused
	// OnIntentUnknown: the ledger may have the intent although it did not say so.
	OnIntentUnknown
	// OnFirstByte: the first byte of the answer passed. It changes nothing: callers
	// keep the time and the counts in atomics and need not report each.
	OnFirstByte
	// OnProgress: the running counts grew. As OnFirstByte.
	OnProgress
	// OnHandedOver: the meter inside Envoy has the answer from now on.
	OnHandedOver
	// OnMeterGone: the meter saw the stream end and never saw its plan.
	OnMeterGone
	// OnMeterLost: the Envoy whose meter had the answer is dead.
	OnMeterLost
	// OnReattached: an open row was found whose answer a meter still has.
	OnReattached
	// OnEnded: the answer ended, and its end has a name: its own bytes said so, or a
	// cut gave the reason.
	OnEnded
	// OnBroken: the answer ended without its end, and the name is not known yet.
	OnBroken
	// OnChargeOpen: the charge depends on the name of the end.
	OnChargeOpen
	// OnClosed: the holder is gone.
	OnClosed
	// OnEntry: the proxy's log entry has come.
	OnEntry
	// OnExpired: what [State.Awaits] names did not come in time.
	OnExpired
	// OnCut: the request must be ended from outside.
	OnCut
	// OnAccepted: the ledger has what was written.
	OnAccepted
	// OnRefused: the ledger does not have what was written; it is owed.
	OnRefused
	// OnRowMissing: the ledger never had the intent.
	OnRowMissing
	// OnRetry: it is time to write what is owed.
	OnRetry
	// OnGivenUp: what is owed will never be written.
	OnGivenUp

	events
)

var eventNames = [events]string{
	onItself: "", OnArrived: "arrived", OnDenied: "denied", OnTicketed: "ticketed", OnWithdrawn: "withdrawn",
	OnClaimed: "claimed", OnLapsed: "lapsed", OnElsewhere: "elsewhere", OnReserved: "reserved", OnBegun: "begun", OnIntentRefused: "intent refused",
	OnIntentUnknown: "intent unknown", OnFirstByte: "first byte", OnProgress: "progress", OnHandedOver: "handed over",
	OnMeterGone: "meter gone", OnMeterLost: "meter lost", OnReattached: "re-attached", OnEnded: "ended",
	OnBroken: "broken", OnChargeOpen: "charge open", OnClosed: "closed", OnEntry: "entry", OnExpired: "expired",
	OnCut: "cut", OnAccepted: "ledger accepted", OnRefused: "ledger refused", OnRowMissing: "row missing",
	OnRetry: "retry", OnGivenUp: "given up",
}

func (e Event) String() string { return eventNames[e] }

// Effect is one thing that the caller must do.
type Effect uint16

// The effects, in the order in which one step performs them.
const (
	// DoTake asks the limits for a lease.
	DoTake Effect = 1 << iota
	// DoAdopt makes the limits hold the lease of an open row, whether there is room
	// or not.
	DoAdopt
	// DoLapse gives the lease of an unclaimed ticket back, unless another gateway has
	// claimed it.
	DoLapse
	// DoWriteIntent writes the intent.
	DoWriteIntent
	// DoCut tells the holder to end the request.
	DoCut
	// DoSettle writes the settlement, with the name that its end has by now.
	DoSettle
	// DoRename writes the name of an end that is settled without one.
	DoRename
	// DoCount adds the settled row to the metrics.
	DoCount
	// DoForget drops the request: events of its lease are not its own any more. The
	// log entry of a withdrawn request makes its access record by itself.
	DoForget
	// DoGiveBack gives the lease back.
	DoGiveBack
	// DoRecord writes the access record.
	DoRecord
)

var effectNames = []string{"take", "adopt", "lapse", "write intent", "cut", "settle", "rename", "count", "forget", "give back", "record"}

func (e Effect) String() string { return effectNames[bits.TrailingZeros16(uint16(e))] }

// Effects is a set of effects. The zero value is empty.
type Effects uint16

// Pop returns the effect that must be performed first, and those that are left.
// The effect is 0 when there is none.
func (e Effects) Pop() (Effect, Effects) {
	rest := e & (e - 1)
	return Effect(e &^ rest), rest
}

// Has reports whether the set has the effect.
func (e Effects) Has(effect Effect) bool { return e&Effects(effect) != 0 }

// String names the effects in their order.
func (e Effects) String() string {
	if e == 0 {
		return "nothing"
	}
	var names []string
	for effect, rest := e.Pop(); effect != 0; effect, rest = rest.Pop() {
		names = append(names, effect.String())
	}
	return strings.Join(names, ", ")
}
