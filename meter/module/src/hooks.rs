//! What Envoy calls. No panic leaves the library.
#![allow(unsafe_code)]

use crate::abi::{self, Bytes, Pointer};
use crate::envoy::{self, Envoy};
use crate::start::{self, Config};
use crate::stream::{Next, Stream};
use std::ffi::{c_char, c_int, c_void};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::ptr::null;
use std::sync::Arc;
use tollgate_meter_link::Link;

/// A configuration of the filter. Without a link it only looks at the text.
struct Filter {
    link: Option<Arc<Link>>,
}

/// Runs a hook of a stream. A panic never leaves a stream unmetered: it is cut,
/// with what was counted on record.
///
/// # Safety
/// `stream` is what [`envoy_dynamic_module_on_http_filter_new`] has returned, and
/// Envoy runs one hook of a stream at a time.
unsafe fn guarded<T>(
    envoy: Pointer,
    stream: *mut Stream,
    broken: T,
    hook: impl FnOnce(&Envoy, &mut Stream) -> T,
) -> T {
    let host = Envoy(envoy);
    let Some(stream) = stream.as_mut() else {
        return broken;
    };
    if let Ok(result) = catch_unwind(AssertUnwindSafe(|| hook(&host, stream))) {
        return result;
    }
    // Should even this fail, the stream is reset without a record.
    if catch_unwind(AssertUnwindSafe(|| stream.broken(&host))).is_err() {
        crate::host::Host::reset(&host, "meter_panic");
    }
    broken
}

fn of_headers(next: Next) -> c_int {
    match next {
        Next::GoOn => abi::CONTINUE,
        Next::Hold | Next::Drop => abi::STOP,
    }
}

fn of_body(next: Next) -> c_int {
    match next {
        Next::GoOn => abi::CONTINUE,
        Next::Hold => abi::STOP_AND_WATERMARK,
        Next::Drop => abi::STOP_NO_BUFFER,
    }
}

#[no_mangle]
extern "C" fn envoy_dynamic_module_on_program_init() -> *const c_char {
    abi::version()
}

#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_new(
    _envoy: Pointer,
    _name: Bytes,
    config: Bytes,
) -> *const c_void {
    let made = catch_unwind(|| {
        // SAFETY: it is Envoy's for the time of this call.
        let config = Config::parse(unsafe { config.get() })?;
        let link = if abi::is_validation() {
            None
        } else {
            Some(start::link(&config)?)
        };
        Some(Box::into_raw(Box::new(Filter { link })).cast_const().cast())
    });
    made.ok().flatten().unwrap_or(null())
}

#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_destroy(config: *const c_void) {
    // SAFETY: it is of config_new, and Envoy is done with it.
    drop(unsafe { Box::from_raw(config.cast_mut().cast::<Filter>()) });
}

#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_new(
    config: *const c_void,
    _envoy: Pointer,
) -> *mut Stream {
    let made = catch_unwind(|| {
        // SAFETY: it is of config_new, and outlives its streams.
        let filter = unsafe { &*config.cast::<Filter>() };
        let link = filter.link.clone()?;
        Some(Box::into_raw(Box::new(Stream::new(link))))
    });
    made.ok().flatten().unwrap_or(std::ptr::null_mut())
}

#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_destroy(stream: *mut Stream) {
    if stream.is_null() {
        return;
    }
    // SAFETY: it is of filter_new, and Envoy is done with it.
    let mut stream = unsafe { Box::from_raw(stream) };
    let _ = catch_unwind(AssertUnwindSafe(|| stream.leave()));
}

#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_request_headers(
    envoy: Pointer,
    stream: *mut Stream,
    _last: bool,
) -> c_int {
    guarded(envoy, stream, abi::STOP, |host, stream| {
        of_headers(stream.request(host))
    })
}

#[no_mangle]
extern "C" fn envoy_dynamic_module_on_http_filter_request_body(
    _envoy: Pointer,
    _stream: *mut Stream,
    _last: bool,
) -> c_int {
    abi::CONTINUE
}

#[no_mangle]
extern "C" fn envoy_dynamic_module_on_http_filter_request_trailers(
    _envoy: Pointer,
    _stream: *mut Stream,
) -> c_int {
    abi::CONTINUE
}

#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_response_headers(
    envoy: Pointer,
    stream: *mut Stream,
    last: bool,
) -> c_int {
    guarded(envoy, stream, abi::STOP, |host, stream| {
        of_headers(stream.head(host, last))
    })
}

#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_response_body(
    envoy: Pointer,
    stream: *mut Stream,
    last: bool,
) -> c_int {
    guarded(envoy, stream, abi::STOP_NO_BUFFER, |host, stream| {
        #[cfg(feature = "fault")]
        crate::fault::body(host);
        of_body(stream.body(host, last))
    })
}

#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_response_trailers(
    envoy: Pointer,
    stream: *mut Stream,
) -> c_int {
    guarded(envoy, stream, abi::STOP, |host, stream| {
        of_headers(stream.trailers(host))
    })
}

#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_scheduled(
    envoy: Pointer,
    stream: *mut Stream,
    event: u64,
) {
    guarded(envoy, stream, (), |host, stream| {
        if let Some(event) = envoy::event(event) {
            stream.woken(host, event);
        }
    });
}

#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_stream_complete(
    envoy: Pointer,
    stream: *mut Stream,
) {
    guarded(envoy, stream, (), |host, stream| stream.complete(host));
}

// Envoy looks for these too. Nothing here calls out, and what a slow reader does
// is Envoy's own to handle.

#[no_mangle]
extern "C" fn envoy_dynamic_module_on_http_filter_http_callout_done(
    _envoy: Pointer,
    _stream: *mut Stream,
    _callout: u64,
    _result: c_int,
    _headers: Pointer,
    _headers_count: usize,
    _body: Pointer,
    _body_count: usize,
) {
}

#[no_mangle]
extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_headers(
    _envoy: Pointer,
    _stream: *mut Stream,
    _callout: u64,
    _headers: Pointer,
    _count: usize,
    _last: bool,
) {
}

#[no_mangle]
extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_data(
    _envoy: Pointer,
    _stream: *mut Stream,
    _callout: u64,
    _data: Pointer,
    _count: usize,
    _last: bool,
) {
}

#[no_mangle]
extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_trailers(
    _envoy: Pointer,
    _stream: *mut Stream,
    _callout: u64,
    _trailers: Pointer,
    _count: usize,
) {
}

#[no_mangle]
extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_complete(
    _envoy: Pointer,
    _stream: *mut Stream,
    _callout: u64,
) {
}

#[no_mangle]
extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_reset(
    _envoy: Pointer,
    _stream: *mut Stream,
    _callout: u64,
    _reason: c_int,
) {
}

#[no_mangle]
extern "C" fn envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(
    _envoy: Pointer,
    _stream: *mut Stream,
) {
}

#[no_mangle]
extern "C" fn envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark(
    _envoy: Pointer,
    _stream: *mut Stream,
) {
}
