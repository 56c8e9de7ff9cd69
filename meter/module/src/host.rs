//! What a stream asks of Envoy.

use std::borrow::Cow;
use tollgate_meter_link::Waker;

/// A part of an answer's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What has just come.
    Received,
    /// What Envoy keeps while the stream is stopped.
    Held,
}

/// One stream of Envoy's, as its filter sees it. All of it is about the answer.
pub(crate) trait Host {
    /// A string of the stream's dynamic metadata.
    fn metadata(&self, namespace: &str, key: &str) -> Option<Vec<u8>>;
    fn set_metadata(&self, namespace: &str, key: &str, value: &str);
    fn header(&self, name: &str) -> Option<Vec<u8>>;
    /// Sets a header, or removes it where there is no value.
    fn set_header(&self, name: &[u8], value: Option<&[u8]>);
    /// Who wrote the answer, or why it has ended.
    fn details(&self) -> Vec<u8>;
    /// The address of the engine.
    fn engine(&self) -> Vec<u8>;
    fn flags(&self) -> u64;
    /// Looks at what has just come, in its pieces.
    fn with_body<T>(&self, f: impl FnOnce(&[&[u8]]) -> T) -> T;
    /// Looks at what has just come, and puts other bytes in its place where `f` gives
    /// some.
    fn edit_body<'a, T>(&self, f: impl FnOnce(&[&[u8]]) -> (T, Option<Cow<'a, [u8]>>)) -> T;
    /// Puts other bytes in the place of the first `size` ones.
    fn replace_body(&self, kind: Kind, size: usize, with: &[u8]);
    /// Goes on with a stream that was stopped.
    fn go_on(&self);
    /// Cuts the stream.
    fn reset(&self, details: &str);
    /// Answers the client instead of the engine.
    fn refuse(&self, status: u16, headers: &[(&[u8], &[u8])], details: &str);
    /// Wakes the stream from other threads.
    fn waker(&self) -> Box<dyn Waker>;
}
