//! What an answer is by its headers.

/// The largest error body of an engine that is looked at, in bytes: what a server
/// around vLLM says is short.
pub(crate) const LONGEST_ERROR: usize = 4 << 10;

/// What an answer is by its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// None of the others, or not said.
    Unreadable,
    Json,
    EventStream,
    /// application/octet-stream: embeddings asked for as bytes.
    Binary,
}

/// The kind that a content type says.
pub(crate) fn kind_of(content_type: &[u8]) -> Kind {
    let name = content_type.split(|c| *c == b';').next();
    let name = name.unwrap_or_default().trim_ascii().to_ascii_lowercase();
    match &name[..] {
        b"application/json" => Kind::Json,
        b"text/event-stream" => Kind::EventStream,
        b"application/octet-stream" => Kind::Binary,
        n if n.starts_with(b"application/") && n.ends_with(b"+json") => Kind::Json,
        _ => Kind::Unreadable,
    }
}

/// Does a content-encoding say more than identity?
pub(crate) fn coded(content_encoding: &[u8]) -> bool {
    content_encoding
        .split(|c| *c == b',')
        .map(<[u8]>::trim_ascii)
        .any(|name| !name.is_empty() && !name.eq_ignore_ascii_case(b"identity"))
}

/// The number of a status header; 0 where it is none.
pub(crate) fn status_of(status: &[u8]) -> u16 {
    std::str::from_utf8(status)
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(0)
}

/// The number of a content-length header; 0 where it is none.
pub(crate) fn size_of(content_length: &[u8]) -> usize {
    std::str::from_utf8(content_length)
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(0)
}
