// Package admission decides who may pass, takes what a request needs while it
// lives, and settles it when it ends.
//
// # A request
//
// [Gate.Admit] sees headers only and answers with a ticket: the id of a provisional
// lease. The stream that carries the request claims it ([Gate.Claim]) and gets a
// [Session]. It reserves tokens and writes the intent ([Session.Reserve]), reports
// the running counts, and settles the row before it releases the last byte
// ([Session.Settle]). It may hand the answer over to a meter inside Envoy
// ([Session.HandOver]), which then speaks by lease id ([Gate.Progress],
// [Gate.Ended]). A second witness, the proxy's access log, says why a stream ended
// ([Gate.Witness]) and ends a request that no stream ever claimed.
//
// Package request has one table that says in which order all that may happen. A
// session holds a [request.State] and the facts that the state does not know. It
// reports each event to the state (next, in session), performs the effects of the
// event outside its lock (perform, in effects), and reports their results as events.
//
// # Goals
//
//   - A decision takes all that it asks of the limits in one step, or nothing. There
//     are two: Admit takes one request and a slot, Reserve takes tokens and the
//     slots that a request for several answers needs beside.
//   - A request that was sent has a row; a client that saw the end of its answer is
//     in the ledger.
//   - A lease is given back once, whichever process dies meanwhile.
//   - The row, the metrics and the access record of a request agree.
//
// # What it is not
//
// It knows no protocol: adapters translate (extauthz, extproc, accesslog). It does
// not read tokens out of answers (usage), does not know how limits or rows are
// stored (limit, ledger), and does not know how an engine is chosen (placement).
//
// # Rules for callers
//
//   - [Gate.Run] must run beside the gate.
//   - A stream that claimed a session must call [Session.Close] when it ends.
//   - [Session.Reserve], [Session.FirstByte], [Session.Progress] and
//     [Session.Covers] must be called by one goroutine at a time. All other methods
//     are safe for concurrent use.
//   - Nothing may be sent to an engine unless Reserve returned nil.
//
// # Locks
//
// There are four: of the sessions of a gate (sessions.mu), of one session
// (Session.mu), of the debts (debts.mu), and of the attribution (attribution.mu).
// None is held while another one is taken, and none during I/O. A comment REQUIRES
// names the lock that a function needs; all others take theirs themselves.
//
// # Files
//
// Each file uses only those above it.
//
//	class, denial, cause, order, metrics, plausible, outcome         values and counters
//	share, tally, attribution, remember                              running counts, and tokens that nobody saw
//	session, registry, account, place, effects                       one session, where it is found, what an event makes it do
//	quota, reserve, holder                                           what the holder of a request calls
//	gate, cut, admit, witness, meter, live, loop                     what the rest of the process calls
package admission
