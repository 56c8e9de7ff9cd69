//! The list of the live streams.

use crate::line::push_number;
use crate::registry::Registry;

/// Appends the lines of the live streams: those that have changed, or all.
pub(crate) fn push_standings(out: &mut String, registry: &Registry, all: bool) {
    const USUAL: usize = 96; // bytes of such a line
    let standings = registry.select(|entry| {
        let at = entry.standing()?;
        (entry.mark(at) || all).then_some(at)
    });
    out.reserve(standings.len() * USUAL);
    for (lease, at) in standings {
        out.push_str("s ");
        out.push_str(&lease);
        out.push_str(if at.running { " r" } else { " w" });
        for n in [at.prompt, at.completion, at.bytes] {
            out.push(' ');
            push_number(out, n);
        }
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Entry, Event, Waker};
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    struct Deaf;

    impl Waker for Deaf {
        fn wake(&self, _: Event) {}
    }

    /// The cost of a beat in which all of ten thousand streams have changed. Run
    /// it with `--nocapture` for the figures.
    #[test]
    fn a_beat_of_ten_thousand_streams() {
        let registry = Registry::new();
        let live: Vec<_> = (0..10_000)
            .map(|i| Arc::new(Entry::new(&format!("{i:032x}"), Box::new(Deaf))))
            .collect();
        for entry in &live {
            registry.add(entry);
            entry.begin(None);
        }
        let mut times = Vec::new();
        for n in 0..40 {
            for entry in &live {
                entry.progress(11, n, 300 * n);
            }
            let (mut out, start) = (String::new(), Instant::now());
            push_standings(&mut out, &registry, false);
            times.push(start.elapsed());
            assert_eq!(out.lines().count(), live.len());
            push_standings(&mut out, &registry, false);
            assert_eq!(out.lines().count(), live.len(), "they have not changed");
        }
        times.sort();
        println!("a beat: {:?} at least, p50 {:?}", times[0], times[20]);
        assert!(times[0] < Duration::from_millis(50), "{:?}", times[0]);
    }
}
