//! Counters of the process since its start.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Bounds of the classes of holds, in milliseconds; a last class has the longer ones.
const HOLDS: [u128; 6] = [1, 5, 25, 100, 500, 2000];

/// Counters of the process since its start.
#[derive(Default)]
pub struct Counters {
    /// Ends released by the spill file.
    pub spilled: AtomicU64,
    /// Hooks that broke.
    pub panics: AtomicU64,
    /// Requests refused because the outbox was full.
    pub refused: AtomicU64,
    /// Questions for a quota that nobody answered in time.
    pub unenforced: AtomicU64,
    /// Streams cut because tollgate wanted it.
    pub cuts: AtomicU64,
    /// Lines of tollgate that could not be read.
    pub malformed: AtomicU64,
    held: AtomicU64,
    held_us: AtomicU64,
    holds: [AtomicU64; HOLDS.len() + 1],
}

impl Counters {
    /// Counts one more of something.
    pub fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    /// Counts an end that was held for so long.
    pub(crate) fn hold(&self, time: Duration) {
        Self::add(&self.held);
        let us = time.as_micros().min(u128::from(u64::MAX)) as u64;
        self.held_us.fetch_add(us, Relaxed);
        let class = HOLDS.iter().position(|ms| us as u128 <= ms * 1000);
        Self::add(&self.holds[class.unwrap_or(HOLDS.len())]);
    }

    /// The counters' line, with its end.
    pub(crate) fn line(&self, outbox: usize, live: usize) -> String {
        let n = |c: &AtomicU64| c.load(Relaxed);
        let holds: Vec<String> = self.holds.iter().map(|c| n(c).to_string()).collect();
        let mut s = String::with_capacity(160);
        let _ = writeln!(
            s,
            "i spilled={} panics={} refused={} unenforced={} cuts={} malformed={} held={} held_us={} hold={} outbox={outbox} live={live}",
            n(&self.spilled),
            n(&self.panics),
            n(&self.refused),
            n(&self.unenforced),
            n(&self.cuts),
            n(&self.malformed),
            n(&self.held),
            n(&self.held_us),
            holds.join(","),
        );
        s
    }
}
