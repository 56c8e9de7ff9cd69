//! What Envoy's workers call.

use crate::counters::Counters;
use crate::entry::{lock, Entry, Event, Waker};
use crate::line::{valid_lease, Command, Record, Words};
use crate::outbox::{Heard, Outbox};
use crate::registry::Registry;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The times and bounds of the link. They are no options: each is a promise that
/// tollgate's side, and docs/metering.md, lean on. Tests use shorter ones.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The longest time that an end waits for tollgate before its record goes to
    /// the spill file instead. A hung tollgate costs a client this much, once.
    pub hold: Duration,
    /// How old the running counts may be that tollgate has when Envoy dies.
    pub beat: Duration,
    /// The longest time that a chunk waits for more of a quota.
    pub ask: Duration,
    /// Between two attempts to reach tollgate.
    pub redial: Duration,
    /// The same after it has said that it does not serve this version.
    pub redial_refused: Duration,
    /// Records that may wait for tollgate. Above it no request is taken.
    pub capacity: usize,
    /// The size above which the spill file is written anew, in bytes.
    pub spill_size: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            hold: Duration::from_secs(2),
            beat: Duration::from_millis(250),
            ask: Duration::from_millis(200),
            redial: Duration::from_millis(50),
            redial_refused: Duration::from_secs(1),
            capacity: 65_536,
            spill_size: 64 << 20,
        }
    }
}

/// Which process this is, as it says to tollgate.
#[derive(Clone, Debug)]
pub struct Identity {
    /// PID-START in lower-case hex, for the life of the process.
    pub instance: String,
    pub pid: u32,
    /// Of the library's sources.
    pub build: String,
}

/// What the beats have cost so far: the time from the look at the registry to the
/// lines that are ready to be sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beats {
    pub count: u32,
    pub total: Duration,
    pub longest: Duration,
}

/// What all workers share.
pub struct Link {
    pub(crate) identity: Identity,
    pub(crate) settings: Settings,
    pub(crate) registry: Registry,
    pub(crate) counters: Counters,
    outbox: Mutex<Outbox>,
    beats: Mutex<Beats>,
    changed: Condvar,
    /// Records in the outbox.
    waiting: AtomicUsize,
    /// tollgate has the list of live streams and hears what changes.
    up: AtomicBool,
    /// tollgate has said that it does not serve this version.
    refused: AtomicBool,
}

impl Link {
    pub fn new(identity: Identity, settings: Settings) -> Arc<Link> {
        Arc::new(Link {
            identity,
            settings,
            registry: Registry::new(),
            counters: Counters::default(),
            outbox: Mutex::default(),
            beats: Mutex::default(),
            changed: Condvar::new(),
            waiting: AtomicUsize::new(0),
            up: AtomicBool::new(false),
            refused: AtomicBool::new(false),
        })
    }

    /// The name of this meter, for requests that it may take; none while tollgate
    /// does not serve its version.
    pub fn instance(&self) -> Option<&str> {
        (!self.refused.load(Relaxed)).then_some(self.identity.instance.as_str())
    }

    /// Does tollgate hear what happens here?
    pub fn is_up(&self) -> bool {
        self.up.load(Relaxed)
    }

    /// What the beats have cost so far.
    pub fn beats(&self) -> Beats {
        *lock(&self.beats)
    }

    pub(crate) fn beat_took(&self, time: Duration) {
        let mut beats = lock(&self.beats);
        beats.count += 1;
        beats.total += time;
        beats.longest = beats.longest.max(time);
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Is there no room for the record of one more stream?
    pub fn is_full(&self) -> bool {
        self.waiting.load(Relaxed) >= self.settings.capacity
    }

    /// Adds a stream that begins; none where its lease is no lease.
    pub fn register(&self, lease: &str, waker: Box<dyn Waker>) -> Option<Arc<Entry>> {
        if !valid_lease(lease) {
            return None;
        }
        let entry = Arc::new(Entry::new(lease, waker));
        if self.registry.add(&entry) && !self.outbox(|o| o.beating) {
            self.with_outbox(|_| ()); // the beat begins
        }
        Some(entry)
    }

    /// Takes a stream out that is gone, or is another's. Called by the thread that
    /// owns it; nobody wakes it after this.
    pub fn forget(&self, entry: &Arc<Entry>) {
        entry.close();
        self.registry.remove(entry);
    }

    /// Puts a stream's end on its way. With `held` the stream is woken once the
    /// record is safe.
    pub fn ended(&self, entry: &Arc<Entry>, record: &Record, held: bool) {
        self.put(entry, record.line(), held);
    }

    /// Says that a stream has ended whose plan never came.
    pub fn unplanned(&self, entry: &Arc<Entry>) {
        self.put(entry, Words::new("x", &entry.lease).end(), false);
    }

    fn put(&self, entry: &Arc<Entry>, line: String, held: bool) {
        self.with_outbox(|o| {
            let held = held.then(|| entry.clone());
            o.put(&entry.lease, line, held, Instant::now());
            self.waiting.store(o.len(), Relaxed);
        });
        // Behind it: a list that no longer has the stream must have its record.
        entry.recorded();
    }

    /// Asks for more of the key's quota: the stream has come to `used` tokens. It
    /// is woken by the answer, or when none comes in time.
    pub fn ask(&self, entry: &Arc<Entry>, used: i64) {
        entry.ask(used);
        self.with_outbox(|o| o.questions.push(entry.clone()));
    }

    /// Wakes the stream once its last event has had the time to go out.
    pub fn spent(&self, entry: &Arc<Entry>) {
        self.with_outbox(|o| o.spent.push(entry.clone()));
    }

    /// Takes one line of tollgate, without its end. `connection` is the one that
    /// it came on.
    pub(crate) fn hear(&self, line: &[u8], connection: u64) {
        match Command::parse(line) {
            Command::Welcome => self.heard(Heard::Welcome, connection),
            Command::Bye => self.heard(Heard::Bye, connection),
            Command::Ack(lease) => self.confirmed(lease),
            Command::Cut(lease) => {
                if let Some(entry) = self.registry.get(lease) {
                    entry.wake(Event::Cut);
                }
            }
            Command::Grant {
                lease,
                total,
                asked,
            } => {
                if let Some(entry) = self.registry.get(lease) {
                    entry.granted(total, asked);
                }
            }
            Command::Poll => self.with_outbox(|o| o.poll = true),
            Command::Unknown => {}
            Command::Malformed => Counters::add(&self.counters.malformed),
        }
    }

    pub(crate) fn heard(&self, what: Heard, connection: u64) {
        self.with_outbox(|o| {
            if o.connection != connection {
                return; // of an older one
            }
            o.heard = what;
            if what == Heard::End {
                self.set_up(false);
            }
        });
    }

    fn confirmed(&self, lease: &str) {
        let now = Instant::now();
        let mut outbox = lock(&self.outbox);
        let held = outbox.confirm(lease, now);
        self.waiting.store(outbox.len(), Relaxed);
        // The last one lets the courier clear the spill file.
        let last = outbox.spilling && outbox.is_empty() && !outbox.wake;
        outbox.wake |= last;
        drop(outbox);
        if last {
            self.changed.notify_one();
        }
        if let Some((entry, time)) = held {
            self.counters.hold(time);
            entry.wake(Event::Release);
        }
    }

    pub(crate) fn set_up(&self, up: bool) {
        self.up.store(up, Relaxed);
    }

    pub(crate) fn set_refused(&self, refused: bool) {
        self.refused.store(refused, Relaxed);
    }

    /// Runs something under the outbox's lock and wakes the courier.
    fn with_outbox<T>(&self, f: impl FnOnce(&mut Outbox) -> T) -> T {
        let mut outbox = lock(&self.outbox);
        let result = f(&mut outbox);
        let asleep = !outbox.wake;
        outbox.wake = true;
        drop(outbox);
        if asleep {
            self.changed.notify_one();
        }
        result
    }

    /// The same for the courier itself, who needs no waking.
    pub(crate) fn outbox<T>(&self, f: impl FnOnce(&mut Outbox) -> T) -> T {
        f(&mut lock(&self.outbox))
    }

    /// Sleeps until somebody wakes the courier, or until then.
    pub(crate) fn sleep(&self, until: Option<Instant>) {
        let mut outbox = lock(&self.outbox);
        while !outbox.wake {
            outbox = match until {
                None => self
                    .changed
                    .wait(outbox)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(t) => {
                    let left = t.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return;
                    }
                    let woken = self.changed.wait_timeout(outbox, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Deaf;

    impl Waker for Deaf {
        fn wake(&self, _: Event) {}
    }

    /// Is the courier woken by a stream that begins, and by the last confirmation,
    /// when it looks for streams by itself, or has a spill file?
    fn woken(beating: bool, spilling: bool) -> (bool, bool) {
        let identity = Identity {
            instance: "1-2".to_string(),
            pid: 1,
            build: "0".to_string(),
        };
        let link = Link::new(identity, Settings::default());
        link.outbox(|o| (o.beating, o.spilling) = (beating, spilling));
        let lease = format!("{:032x}", 1);
        let entry = link.register(&lease, Box::new(Deaf)).expect("a lease");
        let begun = link.outbox(|o| o.wake);
        link.unplanned(&entry);
        link.outbox(|o| o.wake = false);
        link.confirmed(&lease);
        (begun, link.outbox(|o| o.wake))
    }

    #[test]
    fn the_courier_is_woken_only_where_it_must_act() {
        assert_eq!(woken(true, false), (false, false));
        assert_eq!(woken(false, false), (true, false));
        assert_eq!(woken(true, true), (false, true));
    }
}
