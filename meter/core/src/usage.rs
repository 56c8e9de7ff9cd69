//! What a meter is asked and what it says.

/// The value of a count that the engine did not report. Zero is a count like
/// any other: reported zero stays zero.
pub const UNSAID: i64 = -1;

/// The tokens of one request, summed over its choices and prompts. A field is
/// [`UNSAID`] until the engine has said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Prompt tokens, each prompt of a list once.
    pub prompt: i64,
    /// Generated tokens over all choices.
    pub completion: i64,
    /// Part of `prompt` that came from the prefix cache.
    pub cached: i64,
    /// Part of `completion` spent on reasoning.
    pub reasoning: i64,
}

impl Counts {
    /// Counts of which nothing was said yet.
    pub const NONE: Counts = Counts {
        prompt: UNSAID,
        completion: UNSAID,
        cached: UNSAID,
        reasoning: UNSAID,
    };
}

/// The shape of an answer. Each has an SSE and a JSON body form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// /v1/chat/completions
    Chat,
    /// /v1/completions
    Completions,
    /// /v1/responses: events of named types, no `[DONE]`
    Responses,
    /// Anthropic's /v1/messages
    Messages,
    /// Embeddings, score and rerank: JSON with a top-level usage.
    Pooling,
    /// An answer without usage (tokenize, detokenize, count_tokens): 0 tokens.
    Free,
}

/// What a meter has before it.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub format: Format,
    /// True for a text/event-stream body, false for a JSON body.
    pub sse: bool,
    /// Choices that the request asked for: n × prompts, at least 1. An index
    /// outside of it is an anomaly.
    pub choices: i64,
    /// Prompts in the request, at least 1: choice i belongs to prompt
    /// i / (choices / prompts).
    pub prompts: i64,
    /// Removes the usage-only chunk of chat and completions streams: the client
    /// did not ask for it. A chunk that ends a choice goes on with the event
    /// behind it: where that is the usage-only one, its system_fingerprint moves
    /// to the chunk, as vLLM has it without usage.
    pub strip_final: bool,
    /// Removes "usage" from the chunks that have choices.
    pub strip_running: bool,
    /// The body has a content coding: it is passed on unread and counted as one
    /// [`Anomaly::Encoded`].
    pub encoded: bool,
}

/// How an answer has ended so far, by its own bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The end has not been seen.
    Open,
    /// The answer is complete.
    Done,
    /// An error event inside a 200, whatever followed it.
    Failed,
    /// Complete, but a finish_reason was "abort": vLLM was shut down.
    EngineAborted,
}

/// A kind of nonsense in an answer. It is counted, never added. The values
/// index [`Report::anomalies`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anomaly {
    /// A count below zero.
    Negative,
    /// A count that is not an integer.
    Fractional,
    /// A count beyond what fits.
    Overflow,
    /// A running count below an earlier one.
    Decreasing,
    /// A count that is not a number, or usage that is not an object.
    WrongType,
    /// A choice index outside the request.
    BadIndex,
    /// JSON that does not parse, or duplicate usage keys.
    Malformed,
    /// An event too large to be held for a strip: read, and passed on as it is.
    Oversize,
    /// A body with a content coding: unreadable.
    Encoded,
}

/// The number of kinds of anomalies.
pub const ANOMALIES: usize = Anomaly::Encoded as usize + 1;

/// What a meter knows at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The final counts when `is_final`, else the running ones: prompt once per
    /// prompt plus the sum over choices of the last running usage.
    pub counts: Counts,
    /// At least one usage report was read.
    pub seen: bool,
    /// The engine's own final usage was read.
    pub is_final: bool,
    pub end: End,
    /// Bytes of decoded text in the deltas delivered so far.
    pub text_bytes: i64,
    /// Text-bearing events.
    pub deltas: i64,
    /// How many of each kind.
    pub anomalies: [u32; ANOMALIES],
}
