// Package usage reads token counts out of vLLM's answers while they pass.
//
// Bytes come in; the counts, and the bytes to forward, come out. The package knows
// the shapes of the answers: event streams and JSON bodies of the OpenAI and
// Anthropic routes. It does not know who sends or receives them.
//
// # Contract
//
//   - One [Meter] reads one answer. One goroutine at a time may use it. The zero
//     value is not ready; [NewMeter] and [Meter.Reset] make it so.
//   - The caller must pass every byte of the body to [Meter.Feed], in order, and must
//     forward what Feed returns instead. It must set last with the last bytes, even
//     if there are none.
//   - The caller must have forwarded or copied the returned bytes before it calls Feed
//     again.
//   - The result does not depend on how the body was cut into chunks.
//   - Nothing is invented: a count that the engine did not send is [Unsaid]. Nonsense
//     is an [Anomaly]; it is counted and never added up.
//   - A meter never fails. What it cannot read passes unchanged, and the report says so.
//   - The end of an answer follows from its own bytes alone ([Report.End]). A body that
//     stops has not ended.
//
// # Bounds
//
// A meter holds a few hundred bytes, 32 bytes for each choice, and where it strips
// events at most two of them, up to 1 MiB each. It allocates nothing on an ordinary
// chunk. The time for a body grows with its length and with nothing else.
//
// # Where the rules come from
//
// docs/metering.md explains them; testdata holds answers recorded from vLLM, and
// meter/ has the same core in Rust. Tests feed both the same bytes and compare.
//
// # Files
//
//	usage            the values: counts, formats, anomalies, the report
//	shape, event     where each format keeps what matters, and the names of its events
//	document, text   a JSON document read in pieces, without building it
//	reading, memo    the counts met in a document; beginnings that were met before
//	sse, edit        the lines of a stream; what is taken out of it
//	meter, settle    one answer; what its events and its end mean for the counts
package usage
