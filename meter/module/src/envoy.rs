//! One stream of Envoy's, and the way to wake it.
#![allow(unsafe_code)]

use crate::abi::*;
use crate::host::{Host, Kind};
use std::borrow::Cow;
use std::ffi::c_int;
use std::ptr::null_mut;
use tollgate_meter_core::overwrite;
use tollgate_meter_link::{Event, Waker};

/// One stream of Envoy's. It is only used inside a hook of that stream.
pub(crate) struct Envoy(pub(crate) Pointer);

impl Envoy {
    fn attribute(&self, attribute: c_int) -> Vec<u8> {
        let mut value = NOTHING;
        // SAFETY: the bytes are copied before anything else happens.
        unsafe {
            if envoy_dynamic_module_callback_http_filter_get_attribute_string(
                self.0, attribute, &mut value,
            ) {
                value.get().to_vec()
            } else {
                Vec::new()
            }
        }
    }

    /// The pieces of what has just come, and what `f` makes of them.
    fn pieces<T>(&self, f: impl FnOnce(&[Bytes]) -> T) -> T {
        const USUAL: usize = 8;
        let mut few = [NOTHING; USUAL];
        let mut many = Vec::new();
        // SAFETY: it takes nothing but the stream.
        let count = unsafe {
            envoy_dynamic_module_callback_http_get_body_chunks_size(self.0, RECEIVED_RESPONSE_BODY)
        };
        let pieces = if count <= USUAL {
            &mut few[..count]
        } else {
            many.resize(count, NOTHING);
            &mut many[..]
        };
        if count > 0 {
            // SAFETY: it has room for as many as Envoy has said.
            unsafe {
                envoy_dynamic_module_callback_http_get_body_chunks(
                    self.0,
                    RECEIVED_RESPONSE_BODY,
                    pieces.as_mut_ptr(),
                )
            };
        }
        f(pieces)
    }

    /// Puts other bytes in the place of all that has just come. As many or fewer
    /// are written over the end of it, and what is before them goes: so nothing is
    /// allocated, and no piece is taken apart.
    fn put(&self, pieces: &[Bytes], with: &[u8]) {
        let size = pieces.iter().map(|p| p.len()).sum();
        if with.is_empty() || with.len() > size {
            return self.replace(RECEIVED_RESPONSE_BODY, size, with);
        }
        // SAFETY: the bytes are Envoy's, and nobody else looks at them while the hook
        // runs. `with` is not of them.
        let bytes = |piece: &Bytes| unsafe { piece.get_mut() };
        overwrite(pieces.iter().map(bytes), size - with.len(), with);
        self.drain(RECEIVED_RESPONSE_BODY, size - with.len());
    }

    fn drain(&self, kind: c_int, size: usize) {
        if size > 0 {
            // SAFETY: nothing of the body is looked at meanwhile.
            unsafe { envoy_dynamic_module_callback_http_drain_body(self.0, kind, size) };
        }
    }

    fn replace(&self, kind: c_int, size: usize, with: &[u8]) {
        self.drain(kind, size);
        if !with.is_empty() {
            // SAFETY: Envoy copies what is appended.
            unsafe {
                envoy_dynamic_module_callback_http_append_body(self.0, kind, Bytes::of(with));
            }
        }
    }
}

/// What `f` makes of the bytes of the pieces.
fn read<T>(pieces: &[Bytes], f: impl FnOnce(&[&[u8]]) -> T) -> T {
    // SAFETY: the body stays as it is while f runs.
    let bytes = |piece: &Bytes| unsafe { piece.get() };
    match pieces {
        [] => f(&[]),
        [one] => f(&[bytes(one)]),
        more => f(&more.iter().map(bytes).collect::<Vec<_>>()),
    }
}

impl Host for Envoy {
    fn metadata(&self, namespace: &str, key: &str) -> Option<Vec<u8>> {
        let mut value = NOTHING;
        // SAFETY: the bytes are copied before anything else happens.
        unsafe {
            envoy_dynamic_module_callback_http_get_metadata_string(
                self.0,
                DYNAMIC_METADATA,
                Bytes::of(namespace.as_bytes()),
                Bytes::of(key.as_bytes()),
                &mut value,
            )
            .then(|| value.get().to_vec())
        }
    }

    fn set_metadata(&self, namespace: &str, key: &str, value: &str) {
        // SAFETY: Envoy copies all three.
        unsafe {
            envoy_dynamic_module_callback_http_set_dynamic_metadata_string(
                self.0,
                Bytes::of(namespace.as_bytes()),
                Bytes::of(key.as_bytes()),
                Bytes::of(value.as_bytes()),
            )
        }
    }

    fn header(&self, name: &str) -> Option<Vec<u8>> {
        let mut value = NOTHING;
        // SAFETY: the bytes are copied before anything else happens.
        unsafe {
            let found = envoy_dynamic_module_callback_http_get_header(
                self.0,
                RESPONSE_HEADER,
                Bytes::of(name.as_bytes()),
                &mut value,
                0,
                null_mut(),
            );
            (found && !value.is_null()).then(|| value.get().to_vec())
        }
    }

    fn set_header(&self, name: &[u8], value: Option<&[u8]>) {
        // SAFETY: Envoy copies both. No value removes the header.
        unsafe {
            envoy_dynamic_module_callback_http_set_header(
                self.0,
                RESPONSE_HEADER,
                Bytes::of(name),
                value.map_or(NOTHING, Bytes::of),
            );
        }
    }

    fn details(&self) -> Vec<u8> {
        self.attribute(RESPONSE_CODE_DETAILS)
    }

    fn engine(&self) -> Vec<u8> {
        self.attribute(UPSTREAM_ADDRESS)
    }

    fn flags(&self) -> u64 {
        let mut flags = 0;
        // SAFETY: it is written to, nothing else.
        unsafe {
            envoy_dynamic_module_callback_http_filter_get_attribute_int(
                self.0,
                RESPONSE_FLAGS,
                &mut flags,
            );
        }
        flags
    }

    fn with_body<T>(&self, f: impl FnOnce(&[&[u8]]) -> T) -> T {
        self.pieces(|pieces| read(pieces, f))
    }

    fn edit_body<'a, T>(&self, f: impl FnOnce(&[&[u8]]) -> (T, Option<Cow<'a, [u8]>>)) -> T {
        self.pieces(|pieces| {
            let (result, with) = read(pieces, f);
            if let Some(with) = with {
                self.put(pieces, &with);
            }
            result
        })
    }

    fn replace_body(&self, kind: Kind, size: usize, with: &[u8]) {
        let kind = match kind {
            Kind::Received => RECEIVED_RESPONSE_BODY,
            Kind::Held => BUFFERED_RESPONSE_BODY,
        };
        self.replace(kind, size, with);
    }

    fn go_on(&self) {
        // SAFETY: the stream is alive inside its hook.
        unsafe { envoy_dynamic_module_callback_http_filter_continue_encoding(self.0) }
    }

    fn reset(&self, details: &str) {
        // SAFETY: Envoy copies the details.
        unsafe {
            envoy_dynamic_module_callback_http_filter_reset_stream(
                self.0,
                LOCAL_RESET,
                Bytes::of(details.as_bytes()),
            )
        }
    }

    fn refuse(&self, status: u16, headers: &[(&[u8], &[u8])], details: &str) {
        let headers: Vec<Header> = headers
            .iter()
            .map(|(name, value)| Header {
                name: Bytes::of(name),
                value: Bytes::of(value),
            })
            .collect();
        // SAFETY: Envoy copies all of it.
        unsafe {
            envoy_dynamic_module_callback_http_send_response(
                self.0,
                u32::from(status),
                headers.as_ptr(),
                headers.len(),
                NOTHING,
                Bytes::of(details.as_bytes()),
            )
        }
    }

    fn waker(&self) -> Box<dyn Waker> {
        // SAFETY: the stream is alive inside its hook.
        Box::new(Scheduler(unsafe {
            envoy_dynamic_module_callback_http_filter_scheduler_new(self.0)
        }))
    }
}

/// Envoy's way to run a hook of a stream on the stream's own thread.
struct Scheduler(Pointer);

// SAFETY: Envoy lets any thread commit; the link's lock keeps it from one that is
// being deleted.
unsafe impl Send for Scheduler {}

impl Waker for Scheduler {
    fn wake(&self, event: Event) {
        // SAFETY: it was not deleted: that is done by drop.
        unsafe { envoy_dynamic_module_callback_http_filter_scheduler_commit(self.0, number(event)) }
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        // SAFETY: nobody else has it.
        unsafe { envoy_dynamic_module_callback_http_filter_scheduler_delete(self.0) }
    }
}

const EVENTS: [Event; 5] = [
    Event::Release,
    Event::Cut,
    Event::Grant,
    Event::Spent,
    Event::Unrecorded,
];

fn number(event: Event) -> u64 {
    EVENTS.iter().position(|e| *e == event).unwrap_or_default() as u64
}

/// The event that was committed under a number.
pub(crate) fn event(number: u64) -> Option<Event> {
    EVENTS.get(usize::try_from(number).ok()?).copied()
}
