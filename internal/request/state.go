package request

import "strings"

// Stage says who holds the request.
type Stage uint8

// The stages, in the order of a life.
const (
	New      Stage = iota // nothing has happened
	Arrived               // the limits are being asked
	Ticketed              // a ticket is out, and no stream has claimed it
	Lapsed                // no stream of this gateway has claimed the ticket, and none may any more
	Claimed               // a stream holds the request and has reserved nothing
	Reserved              // tokens are reserved, the intent is being written
	Begun                 // the intent is written: the request may be sent
	Handed                // the meter inside Envoy has the answer
	Closed                // the holder is gone
	Done                  // nothing happens any more
)

// Ledger says how far the request's row is.
type Ledger uint8

// The sides of the ledger.
const (
	LedgerNone    Ledger = iota // no row
	LedgerOpen                  // the intent is written
	LedgerWriting               // the settlement is being written
	LedgerOwed                  // the ledger refused the settlement for now
	LedgerWritten               // the row is settled
	LedgerNaming                // a settled row is being given its name
	LedgerMissing               // the ledger has no such row: there is nothing to settle
	LedgerLost                  // the service stopped before the ledger took the settlement
)

// Lease says where the place of the request in the limits is.
type Lease uint8

// The states of a lease.
const (
	LeaseNone      Lease = iota
	LeaseHeld            // goes back when the row is settled, or at the end
	LeaseKept            // goes back when the end has its name, because the charge depends on it
	LeaseReturned        // given back
	LeaseElsewhere       // another gateway has claimed it
)

// Entry says whether the proxy's log entry has come.
type Entry uint8

// The states of the proxy's log entry.
const (
	EntryAwaited Entry = iota
	EntrySeen
	EntryWaived // it did not come in time
)

// State is where a request stands. It is comparable; the zero State is a request
// of which nothing has happened.
type State struct {
	Stage  Stage
	Ledger Ledger
	Lease  Lease
	Entry  Entry
	Named  bool // the end has its last name
	Cut    bool // its holder was told to end it
	Gone   bool // the meter saw the stream end before the answer was handed over
}

// Wait is what a state waits for, for a bounded time.
type Wait uint8

// The waits.
const (
	WaitNothing Wait = iota
	WaitClaim        // a ticket waits for the stream that claims it
	WaitEntry        // an end waits for the proxy's log entry
	WaitEnd          // the proxy says that the request is over; its holder must say so too
)

// Awaits is what the state waits for. When that does not come in time, the caller
// must report [OnExpired].
func (s State) Awaits() Wait {
	switch s.Stage {
	case Ticketed:
		return WaitClaim
	case Lapsed:
		if s.Lease == LeaseReturned {
			return WaitEntry
		}
	case Claimed, Reserved, Begun:
		if s.Entry == EntrySeen && !s.Cut {
			return WaitEnd
		}
	case Handed:
		if s.Entry == EntrySeen && s.Ledger == LedgerOpen {
			return WaitEnd
		}
	case Closed:
		if s.Entry == EntryAwaited {
			return WaitEntry
		}
	case New, Arrived, Done:
	}
	return WaitNothing
}

// Running reports whether a stream or a meter works on the request and its lease
// must be kept alive.
func (s State) Running() bool {
	return s.Stage >= Claimed && s.Stage <= Handed && s.Lease < LeaseReturned
}

// Cuttable reports whether a cut can still change how the request ends.
func (s State) Cuttable() bool {
	_, _, err := s.Next(OnCut)
	return err == nil
}

var (
	stageNames  = [...]string{"new", "arrived", "ticketed", "lapsed", "claimed", "reserved", "begun", "handed", "closed", "done"}
	ledgerNames = [...]string{"none", "open", "writing", "owed", "written", "naming", "missing", "lost"}
	leaseNames  = [...]string{"none", "held", "kept", "returned", "elsewhere"}
	entryNames  = [...]string{"awaited", "seen", "waived"}
)

func (s Stage) String() string  { return stageNames[s] }
func (l Ledger) String() string { return ledgerNames[l] }
func (l Lease) String() string  { return leaseNames[l] }
func (e Entry) String() string  { return entryNames[e] }

// String names the stage and all that is not as it was at the start.
func (s State) String() string {
	words := []string{s.Stage.String()}
	add := func(is bool, word string) {
		if is {
			words = append(words, word)
		}
	}
	add(s.Ledger != 0, "ledger "+s.Ledger.String())
	add(s.Lease != 0, "lease "+s.Lease.String())
	add(s.Entry != 0, "entry "+s.Entry.String())
	add(s.Named, "named")
	add(s.Cut, "cut")
	add(s.Gone, "meter gone")
	return strings.Join(words, ", ")
}
