// Package central keeps one ledger for several gateways in PostgreSQL.
//
// Each gateway's own ledger stays what acknowledges a request. A [Shipper]
// carries its settled rows here, in the order of their change numbers, in
// batches. While PostgreSQL is away nothing waits: rows stay in the gateway's
// outbox and are carried later.
//
// These hold, however often a batch is sent and whichever process dies meanwhile:
//
//   - A request is stored once. Its lease id is the key; a later change of it
//     replaces an earlier one and never the other way round.
//   - A rollup (key, user, model, UTC day of the start) is the sum of its rows
//     and of those that retention has dropped. Rows and rollups move in one
//     statement.
//   - What a shipper has marked as shipped is committed here.
//
// The user of this package must:
//
//   - Give each ledger file one shipper. Two gateways need two files; a copied
//     file has the identity of the original.
//   - Give all gateways the same retention. The shortest one counts.
//   - Run the same or newer programs against a database: one that an older
//     program does not know is refused with [ErrSchema], and its rows wait.
package central
