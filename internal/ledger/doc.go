// Package ledger holds the token accounts: one record for each request, from
// the intent before vLLM is called to its final settlement.
//
// # Contract
//
// A request has one row, named by its lease id. The row is open from
// [Store.Begin] to its first [Store.Settle], and settled from then on. It is
// never deleted while it is open.
//
// The user of this package must:
//
//  1. Call Begin before the request is sent to an engine, and send it only when
//     Begin returned nil. A request without a row was never sent.
//  2. Call Settle at the end of every request whose Begin returned nil or the
//     error of its context, until Settle returns nil, [ErrUnknown] or
//     [ErrInvalid]. Repeating it, in any order and by several witnesses, is safe.
//  3. After a start, list the open rows with [Store.Open], and end with
//     [Store.Recover] those that nobody counts any more: the rows without a meter
//     at once, the others when their meter is known to be gone.
//  4. Treat [ErrUnavailable] as "not recorded": refuse the request, or try the
//     settlement again.
//
// In return:
//
//   - What a method has confirmed is written to the level of ledger.sync.
//   - Settling twice counts once: Settle returns by how much the counts moved.
//   - Within one quality a count never goes down; a better quality replaces a
//     worse one, up or down; a worse one changes nothing ([Merge] is the rule).
//   - Counts lie between 0 and [MaxTokens], whatever an engine claims.
//   - Each settlement or correction gives its row the next number of one counter
//     (Record.Change). Read in the order of these numbers, the ledger is a log
//     of changes: who remembers the last number it has seen misses none.
//   - The sums by key, user, model and day equal the rows, and those that
//     retention has deleted.
//
// Times are wall-clock times of the gateway in whole microseconds, UTC. A time of
// a row is never before its start. Counts that nobody said are [usage.Unsaid].
//
// [Columns] is the only list of a row's columns: files, exports and the central
// ledger walk it. What implements [Store] lives elsewhere (internal/sqlitestore);
// [Book] is the reference in memory, and internal/storetest holds both to this
// contract.
package ledger
