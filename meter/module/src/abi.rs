//! The part of Envoy's dynamic module ABI that is used, declared by hand after
//! the public header of the versions in `envoy/binary.go`. Everything that is
//! not safe is here, in `envoy.rs`, which wraps it, and in `hooks.rs`, which Envoy
//! calls.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};
use std::ptr::{null, null_mut};

/// The ABI that the declarations are of, as Envoy names it.
pub(crate) const VERSION: &std::ffi::CStr = c"v0.2.0";

pub(crate) type Pointer = *mut c_void;

/// Bytes of Envoy's, or bytes for Envoy.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Bytes {
    at: *const u8,
    size: usize,
}

pub(crate) const NOTHING: Bytes = Bytes {
    at: null(),
    size: 0,
};

impl Bytes {
    pub(crate) fn of(b: &[u8]) -> Bytes {
        Bytes {
            at: b.as_ptr(),
            size: b.len(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.size
    }

    pub(crate) fn is_null(self) -> bool {
        self.at.is_null()
    }

    /// # Safety
    /// Envoy must not change the bytes while they are used: none of its callbacks
    /// that change their owner may be called meanwhile.
    pub(crate) unsafe fn get<'a>(self) -> &'a [u8] {
        if self.at.is_null() || self.size == 0 {
            return &[];
        }
        std::slice::from_raw_parts(self.at, self.size)
    }

    /// The bytes of a body, to write to. Envoy's own libraries for modules give
    /// them out so.
    ///
    /// # Safety
    /// As for [`Bytes::get`], and nothing else may look at the bytes meanwhile.
    pub(crate) unsafe fn get_mut<'a>(self) -> &'a mut [u8] {
        if self.at.is_null() || self.size == 0 {
            return &mut [];
        }
        std::slice::from_raw_parts_mut(self.at.cast_mut(), self.size)
    }
}

#[repr(C)]
pub(crate) struct Header {
    pub(crate) name: Bytes,
    pub(crate) value: Bytes,
}

pub(crate) const RESPONSE_HEADER: c_int = 2;
pub(crate) const RECEIVED_RESPONSE_BODY: c_int = 2;
pub(crate) const BUFFERED_RESPONSE_BODY: c_int = 3;
pub(crate) const DYNAMIC_METADATA: c_int = 0;
pub(crate) const RESPONSE_CODE_DETAILS: c_int = 16;
pub(crate) const RESPONSE_FLAGS: c_int = 17;
pub(crate) const UPSTREAM_ADDRESS: c_int = 41;
pub(crate) const LOCAL_RESET: c_int = 0;

/// What the hooks for headers and trailers return.
pub(crate) const CONTINUE: c_int = 0;
pub(crate) const STOP: c_int = 1;
/// What the hook for a body returns beside [`CONTINUE`].
pub(crate) const STOP_AND_WATERMARK: c_int = 2;
pub(crate) const STOP_NO_BUFFER: c_int = 3;

extern "C" {
    pub(crate) fn envoy_dynamic_module_callback_http_get_header(
        envoy: Pointer,
        kind: c_int,
        name: Bytes,
        value: *mut Bytes,
        index: usize,
        count: *mut usize,
    ) -> bool;
    pub(crate) fn envoy_dynamic_module_callback_http_set_header(
        envoy: Pointer,
        kind: c_int,
        name: Bytes,
        value: Bytes,
    ) -> bool;
    pub(crate) fn envoy_dynamic_module_callback_http_get_body_chunks_size(
        envoy: Pointer,
        kind: c_int,
    ) -> usize;
    pub(crate) fn envoy_dynamic_module_callback_http_get_body_chunks(
        envoy: Pointer,
        kind: c_int,
        chunks: *mut Bytes,
    ) -> bool;
    pub(crate) fn envoy_dynamic_module_callback_http_append_body(
        envoy: Pointer,
        kind: c_int,
        data: Bytes,
    ) -> bool;
    pub(crate) fn envoy_dynamic_module_callback_http_drain_body(
        envoy: Pointer,
        kind: c_int,
        size: usize,
    ) -> bool;
    pub(crate) fn envoy_dynamic_module_callback_http_get_metadata_string(
        envoy: Pointer,
        source: c_int,
        namespace: Bytes,
        key: Bytes,
        value: *mut Bytes,
    ) -> bool;
    pub(crate) fn envoy_dynamic_module_callback_http_set_dynamic_metadata_string(
        envoy: Pointer,
        namespace: Bytes,
        key: Bytes,
        value: Bytes,
    );
    pub(crate) fn envoy_dynamic_module_callback_http_filter_get_attribute_string(
        envoy: Pointer,
        attribute: c_int,
        value: *mut Bytes,
    ) -> bool;
    pub(crate) fn envoy_dynamic_module_callback_http_filter_get_attribute_int(
        envoy: Pointer,
        attribute: c_int,
        value: *mut u64,
    ) -> bool;
    pub(crate) fn envoy_dynamic_module_callback_http_filter_continue_encoding(envoy: Pointer);
    pub(crate) fn envoy_dynamic_module_callback_http_filter_reset_stream(
        envoy: Pointer,
        reason: c_int,
        details: Bytes,
    );
    pub(crate) fn envoy_dynamic_module_callback_http_send_response(
        envoy: Pointer,
        status: u32,
        headers: *const Header,
        count: usize,
        body: Bytes,
        details: Bytes,
    );
    pub(crate) fn envoy_dynamic_module_callback_http_filter_scheduler_new(
        envoy: Pointer,
    ) -> Pointer;
    pub(crate) fn envoy_dynamic_module_callback_http_filter_scheduler_commit(
        scheduler: Pointer,
        event: u64,
    );
    pub(crate) fn envoy_dynamic_module_callback_http_filter_scheduler_delete(scheduler: Pointer);
    pub(crate) fn envoy_dynamic_module_callback_is_validation_mode() -> bool;
    pub(crate) fn envoy_dynamic_module_callback_log(level: c_int, message: Bytes);

    // Of libc, which Envoy is linked with.
    fn sigfillset(set: *mut SignalSet) -> c_int;
    fn pthread_sigmask(how: c_int, set: *const SignalSet, old: *mut SignalSet) -> c_int;
}

/// glibc's sigset_t.
#[repr(C)]
struct SignalSet([u64; 16]);

const SIG_SETMASK: c_int = 2;

/// Runs something with all signals blocked in this thread, and so in the threads
/// that it starts: they are Envoy's to handle, on its own threads.
pub(crate) fn without_signals<T>(f: impl FnOnce() -> T) -> T {
    let (mut all, mut before) = (SignalSet([0; 16]), SignalSet([0; 16]));
    // SAFETY: both are sets of the size that glibc has.
    let blocked = unsafe {
        sigfillset(&mut all);
        pthread_sigmask(SIG_SETMASK, &all, &mut before) == 0
    };
    let result = f();
    if blocked {
        // SAFETY: it is the set from above.
        unsafe { pthread_sigmask(SIG_SETMASK, &before, null_mut()) };
    }
    result
}

/// Is this a look at the configuration and nothing more?
pub(crate) fn is_validation() -> bool {
    // SAFETY: it takes nothing.
    unsafe { envoy_dynamic_module_callback_is_validation_mode() }
}

/// A line in Envoy's own log.
pub(crate) fn log_error(message: &str) {
    const ERROR: c_int = 4;
    // SAFETY: Envoy copies the message.
    unsafe { envoy_dynamic_module_callback_log(ERROR, Bytes::of(message.as_bytes())) }
}

/// The name under which Envoy asks for the ABI's version.
pub(crate) fn version() -> *const c_char {
    VERSION.as_ptr()
}
