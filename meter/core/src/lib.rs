//! Reads token counts out of vLLM's answers while they pass.
//!
//! Bytes in; counts, and the bytes to forward, out. This is the same meter as
//! the Go package `internal/usage`: the same names in files of the same names,
//! so that the two can be read side by side. The Go package is the reference,
//! and its test `TestBothMetersAgree` feeds both with the same answers.
//!
//! A [`Meter`] looks at one answer, holds a bounded amount of it, and allocates
//! nothing on an ordinary chunk.
#![forbid(unsafe_code)]

mod document;
mod edit;
mod event;
mod foreign;
mod json;
mod memo;
mod meter;
mod number;
mod reading;
mod settle;
mod shape;
mod sse;
mod text;
mod usage;

pub use edit::overwrite;
pub use foreign::reshape;
pub use meter::Meter;
pub use usage::{Anomaly, Counts, End, Format, Options, Report, ANOMALIES, UNSAID};
