//! Names of events.

/// What the name of an event, or the status of a response, means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// There is no name.
    Unnamed,
    /// Nothing that matters here.
    Other,
    Error,
    /// Text of a response.
    Delta,
    /// "response.completed", "response.incomplete"
    Completed,
    /// "response.failed", or a response's status.
    Failed,
    MessageStart,
    MessageDelta,
    MessageStop,
}

/// What a name means; none stands for one that is longer than all known ones.
pub(crate) fn event_named(name: Option<&[u8]>) -> Event {
    let Some(name) = name else {
        return Event::Other;
    };
    match name {
        b"error" => Event::Error,
        b"response.completed" | b"response.incomplete" => Event::Completed,
        b"response.failed" | b"failed" => Event::Failed,
        b"message_start" => Event::MessageStart,
        b"message_delta" => Event::MessageDelta,
        b"message_stop" => Event::MessageStop,
        // Audio is base64, not text.
        _ if name.starts_with(b"response.")
            && name.ends_with(b".delta")
            && !name.ends_with(b"audio.delta") =>
        {
            Event::Delta
        }
        _ => Event::Other,
    }
}
