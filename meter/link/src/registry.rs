//! Which streams are live.

use crate::entry::{lock, Entry};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// The parts of the registry. A stream that begins waits for the courier to look
/// at one part, not at all streams.
const PARTS: usize = 64;

/// The live streams by lease.
pub(crate) struct Registry {
    parts: [Mutex<HashMap<Arc<str>, Arc<Entry>>>; PARTS],
    hasher: RandomState,
    size: AtomicUsize,
}

impl Registry {
    pub(crate) fn new() -> Registry {
        Registry {
            parts: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            size: AtomicUsize::new(0),
        }
    }

    fn part(&self, lease: &str) -> &Mutex<HashMap<Arc<str>, Arc<Entry>>> {
        &self.parts[self.hasher.hash_one(lease) as usize % PARTS]
    }

    /// Adds a stream. Is it the only one?
    pub(crate) fn add(&self, entry: &Arc<Entry>) -> bool {
        let before = lock(self.part(&entry.lease)).insert(entry.lease.clone(), entry.clone());
        before.is_none() && self.size.fetch_add(1, Relaxed) == 0
    }

    /// Takes a stream out.
    pub(crate) fn remove(&self, entry: &Arc<Entry>) {
        let mut part = lock(self.part(&entry.lease));
        // Another stream of the same lease is not this one.
        if !part
            .get(&entry.lease)
            .is_some_and(|e| Arc::ptr_eq(e, entry))
        {
            return;
        }
        part.remove(&entry.lease);
        drop(part);
        self.size.fetch_sub(1, Relaxed);
    }

    pub(crate) fn get(&self, lease: &str) -> Option<Arc<Entry>> {
        lock(self.part(lease)).get(lease).cloned()
    }

    pub(crate) fn len(&self) -> usize {
        self.size.load(Relaxed)
    }

    /// The streams that `wanted` takes, with what it says of them.
    pub(crate) fn select<T>(
        &self,
        mut wanted: impl FnMut(&Entry) -> Option<T>,
    ) -> Vec<(Arc<str>, T)> {
        let mut found = Vec::new();
        for part in &self.parts {
            let part = lock(part);
            found.reserve(part.len()); // under the lock nothing is allocated per stream
            for entry in part.values() {
                if let Some(said) = wanted(entry) {
                    found.push((entry.lease.clone(), said));
                }
            }
        }
        found
    }
}
