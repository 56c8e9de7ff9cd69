// Package request holds the life of one request as a value: a [State], and one
// table that says for each state and event which state follows and which effects
// the caller must perform.
//
// The package does no I/O, reads no clock, takes no lock and allocates nothing.
// It knows nothing of tokens, names or keys: those are the caller's data. The
// state says who holds the request, how far its row in the ledger is, whether its
// lease is held, whether the proxy's log entry has come, and whether the end has
// its last name.
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
//  6. It must treat an [*IllegalError] as an answer: the event is too late, or
//     somebody else was first. The state has not changed, and nothing must be
//     performed.
//
// In return the table holds, for every order of events:
//
//   - a lease that was taken is given back exactly once, or is another gateway's;
//   - at most one write of the row is in flight at a time, and a row is settled
//     and named once;
//   - a settled row is counted exactly once, after it has its last name;
//   - a request that was claimed or logged has exactly one access record, which is
//     the last effect; it is forgotten once, and every later event is illegal;
//   - from every state there is a way to the end.
//
// The tests check this over all states that can be reached. The files in testdata
// show it: each is one life, with the effects printed under its events.
package request
