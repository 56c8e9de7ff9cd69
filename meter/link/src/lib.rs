//! What outlives a stream: who is live, what is not yet on record, and the
//! connection to tollgate.
//!
//! Envoy's workers call a [`Link`] at the beginning and at the end of a stream,
//! and never per chunk. One thread, the [`Courier`], does everything that may
//! take its time: it dials, writes, waits, and appends to the [`Spill`] file
//! what tollgate has not confirmed. The words on the wire are those of
//! docs/meter-link.md, which the Go package `internal/meterlink` speaks too.
//!
//! Nothing here knows Envoy: a stream is woken through a [`Waker`], and tollgate
//! is reached through [`Dial`] and [`Stream`].
#![forbid(unsafe_code)]

mod counters;
mod courier;
mod entry;
mod line;
mod link;
mod list;
mod outbox;
mod plan;
mod registry;
mod socket;
mod spill;

pub use counters::Counters;
pub use courier::Courier;
pub use entry::{Entry, Event, Waker};
pub use line::{escape, valid_lease, Command, Record, Why, MAX_LINE};
pub use link::{Beats, Identity, Link, Settings};
pub use plan::{headers, Plan, Quota, Terms};
pub use socket::{Dial, Stream, UnixDial};
pub use spill::{Spill, Sync};
