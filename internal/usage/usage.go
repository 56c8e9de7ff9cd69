package usage

// Unsaid is the value of a count that the engine did not report. Zero is a
// count like any other: reported zero stays zero.
const Unsaid int64 = -1

// Counts are the tokens of one request, summed over its choices and prompts.
// A field is [Unsaid] until the engine has said it; the zero value is "0 of
// everything was reported", so start from [None].
type Counts struct {
	Prompt     int64 // prompt tokens, each prompt of a list once
	Completion int64 // generated tokens over all choices
	Cached     int64 // part of Prompt that came from the prefix cache
	Reasoning  int64 // part of Completion spent on reasoning
}

// None returns counts of which nothing was said yet.
func None() Counts {
	return Counts{Prompt: Unsaid, Completion: Unsaid, Cached: Unsaid, Reasoning: Unsaid}
}

// Format names the shape of an answer.
type Format uint8

// The formats. Each has an SSE and a JSON body form.
const (
	// Chat is /v1/chat/completions.
	Chat Format = iota
	// Completions is /v1/completions.
	Completions
	// Responses is /v1/responses: events of named types, no [DONE].
	Responses
	// Messages is Anthropic's /v1/messages.
	Messages
	// Pooling is embeddings, score and rerank: JSON with a top-level usage.
	Pooling
	// Free is an answer without usage (tokenize, detokenize, count_tokens): 0 tokens.
	Free
)

// Options say what a [Meter] has before it.
type Options struct {
	Format Format
	// SSE is true for a text/event-stream body, false for a JSON body.
	SSE bool
	// Choices is the number of choices that the request asked for: n × prompts,
	// at least 1. An index outside [0, Choices) is an anomaly.
	Choices int
	// Prompts is the number of prompts in the request, at least 1: choice i
	// belongs to prompt i / (Choices / Prompts). The running prompt count of a
	// list is the sum over the prompts seen so far.
	Prompts int
	// StripFinal removes the usage-only chunk ("choices":[] with usage) of chat
	// and completions streams: the client did not ask for include_usage. A chunk
	// that ends a choice goes on with the event behind it: where that is the
	// usage-only one, its system_fingerprint moves to the chunk, as vLLM has it
	// without usage. Of several choices only the last that ends gets it, the
	// others are gone by then.
	StripFinal bool
	// StripRunning removes "usage" from the chunks that have choices: the
	// client did not ask for continuous_usage_stats.
	StripRunning bool
	// Encoded says that the body has a content coding (gzip and the like): it is
	// passed on unread and counted as one [Encoded] anomaly.
	Encoded bool
}

// End is how an answer has ended so far, by its own bytes.
type End uint8

const (
	// Open means that the end has not been seen.
	Open End = iota
	// Done means that the answer is complete: [DONE] (chat, completions), a terminal
	// response event, message_stop, or the closing brace of a JSON body.
	Done
	// Failed means an error event inside a 200, whatever followed it.
	Failed
	// EngineAborted means complete, but a finish_reason was "abort": vLLM was shut
	// down under the request (vLLM 0.32, drain 0).
	EngineAborted
)

// Anomaly is a kind of nonsense in an answer. It is counted, never added.
type Anomaly uint8

// The anomalies that a meter can meet. The values index [Report.Anomalies].
const (
	Negative   Anomaly = iota // a count below zero
	Fractional                // a count that is not an integer
	Overflow                  // a count beyond int64
	Decreasing                // a running count below an earlier one
	WrongType                 // a count that is not a number, or usage that is not an object
	BadIndex                  // a choice index outside the request
	Malformed                 // JSON that does not parse, or duplicate usage keys
	Oversize                  // an event too large to be held for a strip: read, and passed on as it is
	Encoded                   // a body with a content coding: unreadable
	anomalies
)

// Anomalies is the number of kinds.
const Anomalies = int(anomalies)

// Report is what a meter knows at one moment.
type Report struct {
	// Counts are the final counts when Final, else the running ones: prompt
	// once per prompt plus the sum over choices of the last running usage.
	Counts Counts
	// Seen: at least one usage report was read.
	Seen bool
	// Final: the engine's own final usage was read.
	Final bool
	End   End
	// TextBytes counts the bytes of decoded text in the deltas delivered so
	// far, for estimates on routes without running usage.
	TextBytes int64
	// Deltas counts the text-bearing events.
	Deltas int64
	// Anomalies counts each kind.
	Anomalies [Anomalies]uint32
}
