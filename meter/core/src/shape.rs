//! The places in an answer that the meter reads, and what it expects there.
//!
//! The same names mean different things in different formats, so each has its
//! own.

use crate::usage::{Format, Options};

/// Names a place in a document that the meter reads. Everything else is
/// [`UNREAD`].
pub(crate) type Node = u8;
pub(crate) const UNREAD: Node = 0;
pub(crate) const CHUNK: Node = 1;
pub(crate) const RESP_EVENT: Node = 2;
pub(crate) const RESP_BODY: Node = 3;
pub(crate) const MSG_EVENT: Node = 4;
pub(crate) const MSG_BODY: Node = 5;
pub(crate) const MSG: Node = 6;
pub(crate) const FREE: Node = 7;
pub(crate) const ERROR: Node = 8;
pub(crate) const FINGERPRINT: Node = 9;
pub(crate) const TYPE: Node = 10;
pub(crate) const STATUS: Node = 11;
pub(crate) const CHOICES: Node = 12;
pub(crate) const CHOICE: Node = 13;
pub(crate) const INDEX: Node = 14;
pub(crate) const FINISH: Node = 15;
pub(crate) const DELTA: Node = 16;
pub(crate) const CALLS: Node = 17;
pub(crate) const CALL: Node = 18;
pub(crate) const FUNCTION: Node = 19;
pub(crate) const BLOCK_DELTA: Node = 20;
pub(crate) const BLOCKS: Node = 21;
pub(crate) const BLOCK: Node = 22;
pub(crate) const OUTPUT: Node = 23;
pub(crate) const ITEM: Node = 24;
pub(crate) const TEXT: Node = 25;
pub(crate) const REASONING: Node = 26;
pub(crate) const OLD_REASONING: Node = 27;
pub(crate) const CHAT_USAGE: Node = 28;
pub(crate) const RESP_USAGE: Node = 29;
pub(crate) const MSG_USAGE: Node = 30;
pub(crate) const PROMPT_DETAILS: Node = 31;
pub(crate) const COMPLETION_DETAILS: Node = 32;
/// Stands before the counts, which are in the order of [`crate::reading::Tally`].
pub(crate) const COUNT: Node = 33;
pub(crate) const PROMPT: Node = 34;
pub(crate) const COMPLETION: Node = 35;
pub(crate) const CACHED: Node = 36;
pub(crate) const REASONING_COUNT: Node = 37;
pub(crate) const CREATED: Node = 38;

/// The JSON type that a node should have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Any,
    Object,
    Array,
    Str,
}

/// What a document needs to know of a node.
pub(crate) struct Shape {
    pub(crate) kind: Kind,
    /// Of an array.
    pub(crate) element: Node,
    /// Of an object.
    pub(crate) keys: &'static [(&'static [u8], Node)],
    /// Its number or literal is wanted.
    pub(crate) scalar: bool,
    /// It is a usage object.
    pub(crate) usage: bool,
    /// Nothing but its kind and null makes sense.
    pub(crate) typed: bool,
    /// The kind of text that it is, plus one; 0 for none.
    pub(crate) text: u8,
}
const NONE: Shape = Shape {
    kind: Kind::Any,
    element: 0,
    keys: &[],
    scalar: false,
    usage: false,
    typed: false,
    text: 0,
};
const fn object(keys: &'static [(&'static [u8], Node)]) -> Shape {
    Shape {
        kind: Kind::Object,
        keys,
        ..NONE
    }
}
const fn array(element: Node) -> Shape {
    Shape {
        kind: Kind::Array,
        element,
        ..NONE
    }
}
const fn string() -> Shape {
    Shape {
        kind: Kind::Str,
        ..NONE
    }
}
const fn text(kind: u8) -> Shape {
    Shape {
        kind: Kind::Str,
        text: kind + 1,
        ..NONE
    }
}
const fn scalar() -> Shape {
    Shape {
        scalar: true,
        ..NONE
    }
}
const fn usage(keys: &'static [(&'static [u8], Node)]) -> Shape {
    Shape {
        kind: Kind::Object,
        scalar: true,
        usage: true,
        typed: true,
        keys,
        ..NONE
    }
}
const fn details(keys: &'static [(&'static [u8], Node)]) -> Shape {
    Shape {
        kind: Kind::Object,
        scalar: true,
        typed: true,
        keys,
        ..NONE
    }
}

/// The shape of every node.
pub(crate) static SHAPES: [Shape; CREATED as usize + 1] = [
    NONE,
    object(&[
        (b"choices", CHOICES),
        (b"usage", CHAT_USAGE),
        (b"error", ERROR),
        (b"system_fingerprint", FINGERPRINT),
    ]),
    object(&[
        (b"type", TYPE),
        (b"delta", TEXT),
        (b"response", RESP_BODY),
        (b"error", ERROR),
    ]),
    object(&[
        (b"usage", RESP_USAGE),
        (b"status", STATUS),
        (b"output", OUTPUT),
        (b"error", ERROR),
    ]),
    object(&[
        (b"type", TYPE),
        (b"delta", BLOCK_DELTA),
        (b"message", MSG),
        (b"usage", MSG_USAGE),
        (b"error", ERROR),
    ]),
    object(&[
        (b"type", TYPE),
        (b"content", BLOCKS),
        (b"usage", MSG_USAGE),
        (b"error", ERROR),
    ]),
    object(&[(b"usage", MSG_USAGE)]),
    object(&[(b"error", ERROR)]),
    scalar(),
    NONE, // fingerprint
    string(),
    string(),
    Shape {
        kind: Kind::Array,
        element: CHOICE,
        scalar: true,
        typed: true,
        ..NONE
    },
    object(&[
        (b"index", INDEX),
        (b"delta", DELTA),
        (b"finish_reason", FINISH),
        (b"text", TEXT),
        (b"message", DELTA),
    ]),
    scalar(),
    string(),
    object(&[
        (b"content", TEXT),
        (b"reasoning", REASONING),
        (b"reasoning_content", OLD_REASONING),
        (b"refusal", TEXT),
        (b"tool_calls", CALLS),
        (b"function_call", FUNCTION),
    ]),
    array(CALL),
    object(&[(b"function", FUNCTION)]),
    object(&[(b"arguments", TEXT)]),
    object(&[
        (b"text", TEXT),
        (b"thinking", TEXT),
        (b"partial_json", TEXT),
    ]),
    array(BLOCK),
    object(&[(b"text", TEXT), (b"thinking", TEXT)]),
    array(ITEM),
    object(&[(b"content", BLOCKS)]),
    text(0),
    text(1),
    text(2),
    usage(&[
        (b"prompt_tokens", PROMPT),
        (b"completion_tokens", COMPLETION),
        (b"prompt_tokens_details", PROMPT_DETAILS),
        (b"completion_tokens_details", COMPLETION_DETAILS),
    ]),
    usage(&[
        (b"input_tokens", PROMPT),
        (b"output_tokens", COMPLETION),
        (b"input_tokens_details", PROMPT_DETAILS),
        (b"output_tokens_details", COMPLETION_DETAILS),
    ]),
    usage(&[
        (b"input_tokens", PROMPT),
        (b"output_tokens", COMPLETION),
        (b"cache_read_input_tokens", CACHED),
        (b"cache_creation_input_tokens", CREATED),
    ]),
    details(&[(b"cached_tokens", CACHED)]),
    details(&[(b"reasoning_tokens", REASONING_COUNT)]),
    NONE, // COUNT
    scalar(),
    scalar(),
    scalar(),
    scalar(),
    scalar(),
];

/// The node that a key leads to.
#[inline]
pub(crate) fn child(inside: Node, key: &[u8]) -> Node {
    for (k, n) in SHAPES[inside as usize].keys {
        if *k == key {
            return *n;
        }
    }
    UNREAD
}

/// The top level of an answer's documents.
pub(crate) fn root(o: &Options) -> Node {
    match (o.format, o.sse) {
        (Format::Responses, true) => RESP_EVENT,
        (Format::Responses, false) => RESP_BODY,
        (Format::Messages, true) => MSG_EVENT,
        (Format::Messages, false) => MSG_BODY,
        (Format::Free, _) => FREE,
        (Format::Chat | Format::Completions | Format::Pooling, _) => CHUNK,
    }
}
