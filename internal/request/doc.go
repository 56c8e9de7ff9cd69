// Package request holds the life of one request as a value: a [State], and one
// table that says for each state and event which state follows and which effects
// the caller must perform.
//
// The package does no I/O, reads no clock, takes no lock and allocates nothing.
// It knows nothing of tokens, names or keys: those are the caller's data. The
// state says who holds the request, how far its row in the ledger is, whether its
// lease is held, whether the proxy's log entry has come, and whether the end
// reason is final ([State.Named]).
//
// A caller must keep these rules:
//
//  1. It must call [State.Next] under one lock per request and must store the
//     state that it returns before the lock is released. The zero State is a
//     request of which nothing has happened.
//  2. It must perform every effect that Next returns, once, in the order of
//     [Effects.Pop], after the lock is released.
//  3. It must report the result of an effect as an event: [DoTake] as
//     [OnTicketed] or [OnDenied]; [DoLapse] as [OnLapsed] or [OnElsewhere];
//     [DoWriteIntent] as [OnBegun], [OnIntentRefused] or [OnIntentUnknown]; [DoSettle] and [DoRename] as
//     [OnAccepted], [OnRefused] or [OnRowMissing]. The other effects have no
//     result: a lease that cannot be given back expires by itself.
//  4. It must tell the end of an answer ([OnEnded] or [OnBroken]) before it
//     tells that the holder is gone ([OnClosed]).
//  5. It must report [OnExpired] when the thing that [State.Awaits] names has
//     not come in time, and [OnRetry] for as long as a settlement is owed.
//  6. It must expect an [*IllegalError], which is no fault: the event came too
//     late, or another caller reported it first. The state has not changed, and
//     the caller must perform nothing.
//
// In return the table holds, for every order of events:
//
//   - a lease that was taken is given back exactly once; where another gateway has
//     claimed the request, that gateway gives it back;
//   - at most one write of the row is in flight at a time; a row is settled once,
//     and gets its final end reason once;
//   - a settled row is counted in the metrics exactly once, after its end reason is
//     final;
//   - a request has exactly one access record when a stream has claimed it or a log
//     entry has come for it. The record is the last effect. The request is forgotten
//     once, and every later event is illegal;
//   - from every state there is a way to the end.
//
// The tests check this over all states that can be reached. The files in testdata
// show it: each is one life, with the effects printed under its events.
// docs/architecture.md draws the table.
//
// # Files
//
//	state    the stages of a request and the other parts of its state
//	event    the events that a caller reports, and the effects that it performs
//	table    the life of a request: each event in each state
//	next     how the table is applied
package request
