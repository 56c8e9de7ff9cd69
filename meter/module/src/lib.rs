//! The meter as a filter inside Envoy: it counts, strips, and holds the end of an
//! answer until that is on record.
//!
//! `stream` has the states of one stream, `body` its bytes; both know Envoy only as
//! a `Host`. `hooks` is what Envoy calls, `abi` what it offers. See meter/README.md.
#![deny(unsafe_code)]

mod abi;
mod answer;
mod body;
mod envoy;
#[cfg(feature = "fault")]
mod fault;
mod hooks;
mod host;
mod quota;
mod start;
mod stream;
