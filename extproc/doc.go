// Package extproc is the adapter for Envoy's external processing: it turns the
// messages of one stream into calls of one [admission.Session].
//
// # What Envoy does, and what follows
//
// Envoy opens one Process stream for each request and sends the headers, the body in
// pieces, the headers of the answer and its body, chunk by chunk. It waits for one
// answer to each message. So:
//
//   - One goroutine serves a stream. An exchange, its state, has no lock. Only the
//     watch over a slow body may answer beside it (arrival.go), in turns.
//   - The stream ends with the request, however that ends. One deferred call closes
//     the session: after a half-close, a reset, an error and a panic.
//   - The end of a stream says nothing about the answer. Whether it was complete
//     follows from its own bytes (package usage). Why it broke off comes with the
//     access log.
//   - An error status from us cuts the client: the filter fails closed. A clean end by
//     us would let the rest pass unmetered, so that process returns nil only after
//     Envoy has ended the stream.
//
// # Contract
//
//   - A request goes to the engine only after [admission.Session] Reserve returned nil:
//     Envoy's buffer filter holds the headers until this package sends the body.
//   - The bytes that end an answer wait until Settle has returned. A client that saw the
//     end of its answer is in the ledger.
//   - An answer to a request that was not checked is an error, whatever its status.
//   - No byte of a request or an answer is kept longer than the stream, and none
//     reaches a log.
//   - Bodies of requests count against one [Budget] from the first byte to the moment
//     when gRPC has them.
//   - Nothing is allocated for a chunk that passes unchanged.
//
// # Files
//
//	server                     the loop of one stream and its end
//	exchange                   what each message means: the state machine
//	body, arrival, budget      the request's body: collected, watched, bounded
//	response, foreign, quota   the answer: answers to Envoy, errors of an engine, the end of a quota
//	refuse                     refusals in the shape that the client's API has
//	metadata                   what another filter is told
//	wire, decode, encode       protobuf, read and written without building messages
//	metrics                    counters
package extproc
