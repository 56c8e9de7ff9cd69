package admission

import (
	"time"

	"tollgate/internal/ledger"
	"tollgate/internal/usage"
)

// Outcome is what the holder of an answer knows of its end.
type Outcome struct {
	// Reason is [ledger.Aborted] when the stream ended without its end: the
	// proxy's log says why.
	Reason ledger.EndReason
	Status int    // HTTP status that the client got; 0 when none is known
	Engine string // address of the engine that answered, "" where unknown
	Report usage.Report
	// Unread is the size in bytes of what was delivered although nobody could
	// read it; 0 where the report knows what there was.
	Unread int64
	// Unreadable: the answer was not delivered, because nobody could have said
	// what is in it.
	Unreadable bool
	// FirstByte and Lasted are the times from the start of the request to the first
	// byte of the answer's body and to its end; 0 where the session's own clock
	// says it.
	FirstByte, Lasted time.Duration

	partial bool // the counts are those of the last beat, not of the end
}
