package request

// row is one line of the table: on that event, in each state that the conditions
// let pass, the state becomes to and the effects must be performed.
type row struct {
	on Event
	// Conditions. A set of 0 lets everything pass.
	stage, ledger, lease, entry set
	named, cut, gone            condition
	// to holds what changes; a zero field stays as it is.
	to State
	do Effects
}

// set is a set of values of one enumeration.
type set uint16

func in[T Stage | Ledger | Lease | Entry](values ...T) (s set) {
	for _, v := range values {
		s |= 1 << v
	}
	return s
}

func (s set) has(value uint8) bool { return s == 0 || s&(1<<value) != 0 }

// condition is what a row asks of a fact.
type condition uint8

const (
	either condition = iota
	yes
	no
)

func (c condition) holds(fact bool) bool { return c == either || fact == (c == yes) }

// table is the life of a request. At most one row of an event fits a state; an
// event that no row fits is illegal. After each event the rows of onItself are
// followed in their order, again and again, until none fits.
var table = []row{
	// Admission.
	{on: OnArrived, stage: in(New), to: State{Stage: Arrived}, do: Effects(DoTake)},
	{on: OnDenied, stage: in(Arrived), to: State{Stage: Done}, do: Effects(DoForget)},
	{on: OnTicketed, stage: in(Arrived), to: State{Stage: Ticketed, Lease: LeaseHeld}},
	{on: OnClaimed, stage: in(Ticketed), to: State{Stage: Claimed}},
	{on: OnClaimed, stage: in(New), to: State{Stage: Claimed, Lease: LeaseHeld}},
	// The log entry of a withdrawn request makes its access record, or has come already.
	{on: OnWithdrawn, stage: in(Ticketed), to: State{Stage: Done, Lease: LeaseReturned}, do: Effects(DoForget | DoGiveBack)},
	{on: OnWithdrawn, stage: in(Claimed), ledger: in(LedgerNone), entry: in(EntryAwaited), to: State{Stage: Done, Lease: LeaseReturned}, do: Effects(DoForget | DoGiveBack)},
	{on: OnWithdrawn, stage: in(Claimed), ledger: in(LedgerNone), entry: in(EntrySeen), to: State{Stage: Done, Lease: LeaseReturned}, do: Effects(DoForget | DoGiveBack | DoRecord)},
	{on: OnElsewhere, stage: in(Claimed), ledger: in(LedgerNone), to: State{Stage: Done, Lease: LeaseElsewhere}, do: Effects(DoForget)},
	// A ticket that no stream of this gateway claims.
	{on: OnLapsed, stage: in(Lapsed), lease: in(LeaseHeld), entry: in(EntryAwaited), to: State{Lease: LeaseReturned}},
	{on: OnLapsed, stage: in(Lapsed), lease: in(LeaseHeld), entry: in(EntrySeen), to: State{Stage: Done, Lease: LeaseReturned}, do: Effects(DoForget | DoRecord)},
	{on: OnElsewhere, stage: in(Lapsed), lease: in(LeaseHeld), to: State{Stage: Done, Lease: LeaseElsewhere}, do: Effects(DoForget)},

	// Reservation and intent. A request that was cut is not sent.
	{on: OnReserved, stage: in(Claimed), ledger: in(LedgerNone), cut: no, to: State{Stage: Reserved}, do: Effects(DoWriteIntent)},
	{on: OnBegun, stage: in(Reserved), to: State{Stage: Begun, Ledger: LedgerOpen}},
	{on: OnIntentRefused, stage: in(Reserved), to: State{Stage: Claimed, Ledger: LedgerMissing}},
	{on: OnIntentUnknown, stage: in(Reserved), to: State{Stage: Claimed, Ledger: LedgerWriting, Named: true}, do: Effects(DoSettle)},

	// The answer.
	{on: OnFirstByte, stage: in(Begun, Handed), ledger: in(LedgerOpen)},
	{on: OnProgress, stage: in(Begun, Handed), ledger: in(LedgerOpen)},
	{on: OnEnded, stage: in(Begun, Handed), ledger: in(LedgerOpen), to: State{Ledger: LedgerWriting, Named: true}, do: Effects(DoSettle)},
	{on: OnBroken, stage: in(Begun, Handed), ledger: in(LedgerOpen), to: State{Ledger: LedgerWriting}, do: Effects(DoSettle)},
	{on: OnChargeOpen, ledger: in(LedgerWriting), lease: in(LeaseHeld), named: no, to: State{Lease: LeaseKept}},
	{on: OnClosed, stage: in(Claimed, Begun, Handed), ledger: in(LedgerNone, LedgerMissing, LedgerWriting, LedgerOwed, LedgerWritten), to: State{Stage: Closed}},

	// The meter inside Envoy.
	{on: OnHandedOver, stage: in(Begun), ledger: in(LedgerOpen), gone: no, to: State{Stage: Handed}},
	{on: OnHandedOver, stage: in(Begun), ledger: in(LedgerOpen), gone: yes, to: State{Stage: Closed, Ledger: LedgerWriting}, do: Effects(DoSettle)},
	{on: OnMeterGone, stage: in(Claimed, Reserved, Begun), to: State{Gone: true}},
	{on: OnMeterGone, stage: in(Handed), ledger: in(LedgerOpen), to: State{Stage: Closed, Ledger: LedgerWriting, Gone: true}, do: Effects(DoSettle)},
	{on: OnMeterLost, stage: in(Handed), ledger: in(LedgerOpen), to: State{Stage: Closed, Ledger: LedgerWriting, Named: true}, do: Effects(DoSettle)},
	{on: OnReattached, stage: in(New), to: State{Stage: Handed, Ledger: LedgerOpen, Lease: LeaseHeld}, do: Effects(DoAdopt)},

	// A cut from outside. The second one finds the request cut already.
	{on: OnCut, stage: in(Ticketed, Claimed, Reserved), cut: no, to: State{Cut: true}, do: Effects(DoCut)},
	{on: OnCut, stage: in(Begun, Handed), ledger: in(LedgerOpen), cut: no, to: State{Cut: true}, do: Effects(DoCut)},
	{on: OnCut, stage: in(Ticketed, Claimed, Reserved), cut: yes},
	{on: OnCut, stage: in(Begun, Handed), ledger: in(LedgerOpen), cut: yes},

	// The proxy's log entry. Without a stream it is the end.
	{on: OnEntry, stage: in(Ticketed), to: State{Stage: Lapsed, Entry: EntrySeen}, do: Effects(DoLapse)},
	{on: OnEntry, stage: in(Lapsed), lease: in(LeaseHeld), entry: in(EntryAwaited), to: State{Entry: EntrySeen}},
	{on: OnEntry, stage: in(Lapsed), lease: in(LeaseReturned), to: State{Stage: Done, Entry: EntrySeen}, do: Effects(DoForget | DoRecord)},
	{on: OnEntry, stage: in(Claimed, Reserved, Begun, Handed, Closed), entry: in(EntryAwaited), to: State{Entry: EntrySeen}},

	// Time.
	{on: OnExpired, stage: in(Ticketed), to: State{Stage: Lapsed}, do: Effects(DoLapse)},
	{on: OnExpired, stage: in(Lapsed), lease: in(LeaseReturned), to: State{Stage: Done, Entry: EntryWaived}, do: Effects(DoForget)},
	{on: OnExpired, stage: in(Claimed, Reserved, Begun), entry: in(EntrySeen), cut: no, to: State{Cut: true}, do: Effects(DoCut)},
	{on: OnExpired, stage: in(Handed), ledger: in(LedgerOpen), entry: in(EntrySeen), to: State{Stage: Closed, Ledger: LedgerWriting}, do: Effects(DoSettle)},
	{on: OnExpired, stage: in(Closed), entry: in(EntryAwaited), to: State{Entry: EntryWaived}},

	// The ledger's answers.
	{on: OnAccepted, ledger: in(LedgerWriting), named: yes, to: State{Ledger: LedgerWritten}, do: Effects(DoCount)},
	{on: OnAccepted, ledger: in(LedgerWriting), named: no, to: State{Ledger: LedgerWritten}},
	{on: OnAccepted, ledger: in(LedgerNaming), to: State{Ledger: LedgerWritten, Named: true}, do: Effects(DoCount)},
	{on: OnRefused, ledger: in(LedgerWriting), to: State{Ledger: LedgerOwed}},
	{on: OnRefused, ledger: in(LedgerNaming), to: State{Ledger: LedgerOwed, Named: true}},
	{on: OnRowMissing, ledger: in(LedgerWriting), to: State{Ledger: LedgerMissing}},
	{on: OnRetry, ledger: in(LedgerOwed), to: State{Ledger: LedgerWriting}, do: Effects(DoSettle)},
	{on: OnGivenUp, stage: in(Closed), ledger: in(LedgerOwed), named: yes, to: State{Stage: Done, Ledger: LedgerLost}, do: Effects(DoForget | DoRecord)},

	// What follows by itself. A settled row gives the lease back, because the engine
	// is done with it; so does the end.
	{lease: in(LeaseHeld), ledger: in(LedgerWritten), to: State{Lease: LeaseReturned}, do: Effects(DoGiveBack)},
	{lease: in(LeaseHeld), stage: in(Closed), ledger: in(LedgerNone, LedgerMissing, LedgerOwed), to: State{Lease: LeaseReturned}, do: Effects(DoGiveBack)},
	// An end that has no name gets the one that the log entry, or its absence, gives.
	{stage: in(Closed), entry: in(EntrySeen, EntryWaived), ledger: in(LedgerWritten), named: no, to: State{Ledger: LedgerNaming}, do: Effects(DoRename)},
	{stage: in(Closed), entry: in(EntrySeen, EntryWaived), ledger: in(LedgerOwed), named: no, to: State{Named: true}},
	{lease: in(LeaseKept), stage: in(Closed), ledger: in(LedgerWritten, LedgerOwed), named: yes, to: State{Lease: LeaseReturned}, do: Effects(DoGiveBack)},
	{lease: in(LeaseKept), stage: in(Closed), ledger: in(LedgerMissing), to: State{Lease: LeaseReturned}, do: Effects(DoGiveBack)},
	// The end of all.
	{stage: in(Closed), entry: in(EntrySeen, EntryWaived), lease: in(LeaseReturned), ledger: in(LedgerNone, LedgerMissing), to: State{Stage: Done}, do: Effects(DoForget | DoRecord)},
	{stage: in(Closed), entry: in(EntrySeen, EntryWaived), lease: in(LeaseReturned), ledger: in(LedgerWritten), named: yes, to: State{Stage: Done}, do: Effects(DoForget | DoRecord)},
}
