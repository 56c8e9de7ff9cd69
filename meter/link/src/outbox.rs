//! The records that are not yet on tollgate's disk.

use crate::entry::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A record on its way.
struct Parcel {
    /// Its place among all records of the process.
    order: u64,
    line: Arc<str>,
    since: Instant,
    /// The stream whose end waits for it.
    held: Option<Arc<Entry>>,
    spilled: bool,
}

/// The records that tollgate has not confirmed, and what else waits for the
/// courier.
#[derive(Default)]
pub(crate) struct Outbox {
    parcels: HashMap<Arc<str>, Parcel>,
    /// Not sent over the connection of now, oldest first.
    unsent: VecDeque<Arc<str>>,
    /// Not in the spill file, oldest first. Confirmed ones are passed over.
    unspilled: VecDeque<Arc<str>>,
    orders: u64,
    /// Questions to be sent.
    pub(crate) questions: Vec<Arc<Entry>>,
    /// Streams that have got their last event and are to be cut.
    pub(crate) spent: Vec<Arc<Entry>>,
    /// The courier looks for live streams by itself.
    pub(crate) beating: bool,
    /// There is a spill file, to be cleared once nothing needs it.
    pub(crate) spilling: bool,
    /// There is something to do for the courier.
    pub(crate) wake: bool,
    /// tollgate asks for what has changed.
    pub(crate) poll: bool,
    /// The number of the connection, and what was heard on it.
    pub(crate) connection: u64,
    pub(crate) heard: Heard,
}

/// What was last heard on a connection.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Heard {
    #[default]
    Nothing,
    Welcome,
    Bye,
    /// The connection has ended.
    End,
}

/// Where a record is to go.
pub(crate) type Line = (Arc<str>, Arc<str>);

impl Outbox {
    pub(crate) fn len(&self) -> usize {
        self.parcels.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parcels.is_empty()
    }

    /// Puts a record in; with `held` the end of a stream waits for it.
    pub(crate) fn put(
        &mut self,
        lease: &Arc<str>,
        line: String,
        held: Option<Arc<Entry>>,
        now: Instant,
    ) {
        self.orders += 1;
        let parcel = Parcel {
            order: self.orders,
            line: line.into(),
            since: now,
            held,
            spilled: false,
        };
        self.parcels.insert(lease.clone(), parcel);
        self.unsent.push_back(lease.clone());
        self.unspilled.push_back(lease.clone());
        if self.unspilled.len() > 2 * self.parcels.len() + 64 {
            let parcels = &self.parcels;
            self.unspilled.retain(|l| parcels.contains_key(l));
        }
    }

    /// The record is on tollgate's disk. Returns the stream that waited for it,
    /// and for how long.
    pub(crate) fn confirm(&mut self, lease: &str, now: Instant) -> Option<(Arc<Entry>, Duration)> {
        let parcel = self.parcels.remove(lease)?;
        let time = now.saturating_duration_since(parcel.since);
        parcel.held.map(|entry| (entry, time))
    }

    /// What has not been sent, oldest first; it counts as sent from now on.
    pub(crate) fn take_unsent(&mut self, out: &mut String) {
        for lease in self.unsent.drain(..) {
            if let Some(p) = self.parcels.get(&lease) {
                out.push_str(&p.line);
            }
        }
    }

    /// Nothing has been sent on a new connection.
    pub(crate) fn send_all_again(&mut self) {
        let mut all: Vec<_> = self.parcels.iter().map(|(l, p)| (p.order, l)).collect();
        all.sort_unstable_by_key(|(order, _)| *order);
        self.unsent = all.into_iter().map(|(_, lease)| lease.clone()).collect();
    }

    /// The records that belong into the spill file by now: all of them while
    /// tollgate is away, and else those that wait since `before`.
    pub(crate) fn late(&mut self, before: Option<Instant>) -> Vec<Line> {
        let mut due = Vec::new();
        for lease in &self.unspilled {
            let Some(p) = self.parcels.get(lease) else {
                continue;
            };
            if before.is_some_and(|b| p.since > b) {
                break;
            }
            if !p.spilled {
                due.push((lease.clone(), p.line.clone()));
            }
        }
        due
    }

    /// The records are in the spill file. Returns the streams that waited.
    pub(crate) fn spilled(&mut self, lines: &[Line], now: Instant) -> Vec<(Arc<Entry>, Duration)> {
        let mut free = Vec::new();
        for (lease, _) in lines {
            let Some(p) = self.parcels.get_mut(lease) else {
                continue; // confirmed meanwhile
            };
            p.spilled = true;
            let time = now.saturating_duration_since(p.since);
            free.extend(p.held.take().map(|entry| (entry, time)));
        }
        self.drop_settled();
        free
    }

    /// Gives up on the ends that wait since `before` or longer. Their records stay.
    pub(crate) fn give_up(&mut self, lines: &[Line], before: Instant) -> Vec<Arc<Entry>> {
        let mut lost = Vec::new();
        for (lease, _) in lines {
            if let Some(p) = self.parcels.get_mut(lease) {
                if p.since <= before {
                    lost.extend(p.held.take());
                }
            }
        }
        lost
    }

    /// All records that have been in the spill file, for a shorter one.
    pub(crate) fn all_spilled(&self) -> String {
        let spilled = self.parcels.values().filter(|p| p.spilled);
        spilled.map(|p| &*p.line).collect()
    }

    /// Since when the oldest record that is not in the spill file waits.
    pub(crate) fn oldest_unspilled(&mut self) -> Option<Instant> {
        self.drop_settled();
        self.parcels.get(self.unspilled.front()?).map(|p| p.since)
    }

    /// Takes what is confirmed or spilled off the front.
    fn drop_settled(&mut self) {
        while let Some(lease) = self.unspilled.front() {
            if self.parcels.get(lease).is_some_and(|p| !p.spilled) {
                break;
            }
            self.unspilled.pop_front();
        }
    }
}
