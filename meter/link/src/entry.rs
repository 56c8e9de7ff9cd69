//! One live stream, as the link sees it.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering::*};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Why a stream is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its record is safe: the held end may go on.
    Release,
    /// tollgate wants it cut.
    Cut,
    /// Its question for more of the quota was answered, or will not be.
    Grant,
    /// Its last event has had the time to go out.
    Spent,
    /// Its record could not be written anywhere: it must not end well.
    Unrecorded,
}

/// Wakes a stream on the thread that owns it. It is dropped there too.
pub trait Waker: Send {
    fn wake(&self, event: Event);
}

const WAITING: u8 = 0;
const RUNNING: u8 = 1;
const RECORDED: u8 = 2;

/// One live stream. The thread that owns the stream writes the counts, the
/// courier reads them; neither waits for the other.
pub struct Entry {
    pub(crate) lease: Arc<str>,
    state: AtomicU8,
    prompt: AtomicI64,
    completion: AtomicI64,
    bytes: AtomicI64,
    /// What the last beat said of it: see [`Entry::mark`].
    told: AtomicI64,
    grant: Grant,
    waker: Mutex<Option<Box<dyn Waker>>>,
}

/// What a stream holds of its key's quota.
#[derive(Default)]
struct Grant {
    /// Tokens in all, `i64::MAX` = no bound.
    total: AtomicI64,
    /// The largest use that an answer has spoken of.
    answered: AtomicI64,
    /// The last question, 0 = none is open.
    asked: AtomicI64,
    /// A question was not answered in time: nothing is enforced until it is.
    unenforced: AtomicBool,
}

/// A running stream's counts at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) running: bool,
    pub(crate) prompt: i64,
    pub(crate) completion: i64,
    pub(crate) bytes: i64,
}

impl Entry {
    pub(crate) fn new(lease: &str, waker: Box<dyn Waker>) -> Entry {
        Entry {
            lease: lease.into(),
            state: AtomicU8::new(WAITING),
            prompt: AtomicI64::new(-1),
            completion: AtomicI64::new(-1),
            bytes: AtomicI64::new(0),
            told: AtomicI64::new(-1),
            grant: Grant::default(),
            waker: Mutex::new(Some(waker)),
        }
    }

    pub fn lease(&self) -> &str {
        &self.lease
    }

    /// The answer has begun. `allowance` are the tokens that the request holds of
    /// its key's quota, none where nobody watches over it.
    pub fn begin(&self, allowance: Option<i64>) {
        self.grant
            .total
            .fetch_max(allowance.unwrap_or(i64::MAX), AcqRel);
        self.state.store(RUNNING, Relaxed);
    }

    /// Says where the stream stands: called for every chunk, so it neither locks
    /// nor wakes.
    pub fn progress(&self, prompt: i64, completion: i64, bytes: i64) {
        self.prompt.store(prompt, Relaxed);
        self.completion.store(completion, Relaxed);
        self.bytes.store(bytes, Release);
    }

    /// Tokens that the stream may use in all, as last heard.
    pub fn total(&self) -> i64 {
        self.grant.total.load(Acquire)
    }

    /// The largest use that tollgate has answered a question about.
    pub fn answered(&self) -> i64 {
        self.grant.answered.load(Acquire)
    }

    /// Nobody has answered in time, so nothing is enforced.
    pub fn unenforced(&self) -> bool {
        self.grant.unenforced.load(Relaxed)
    }

    pub(crate) fn ask(&self, used: i64) {
        self.grant.asked.store(used, Relaxed);
    }

    /// The use that an open question speaks of, 0 when none is open.
    pub fn open_question(&self) -> i64 {
        self.grant.asked.load(Relaxed)
    }

    /// Takes an answer, and says so to the stream.
    pub(crate) fn granted(&self, total: Option<i64>, asked: i64) {
        let g = &self.grant;
        g.total.fetch_max(total.unwrap_or(i64::MAX), AcqRel);
        g.answered.fetch_max(asked, AcqRel);
        if asked >= self.open_question() {
            g.asked.store(0, Relaxed);
        }
        g.unenforced.store(false, Relaxed);
        self.wake(Event::Grant);
    }

    /// Gives an open question up. Does enforcement end with it?
    pub(crate) fn unanswered(&self) -> bool {
        if self.grant.asked.swap(0, Relaxed) == 0 {
            return false;
        }
        let first = !self.grant.unenforced.swap(true, Relaxed);
        self.wake(Event::Grant);
        first
    }

    /// The stream's record is written: it is no longer one of the live ones.
    pub(crate) fn recorded(&self) {
        self.state.store(RECORDED, Relaxed);
    }

    /// Where it stands; none once its record is written.
    pub(crate) fn standing(&self) -> Option<Standing> {
        let state = self.state.load(Relaxed);
        (state != RECORDED).then(|| Standing {
            running: state == RUNNING,
            bytes: self.bytes.load(Acquire),
            prompt: self.prompt.load(Relaxed),
            completion: self.completion.load(Relaxed),
        })
    }

    /// Has it changed since the last call? Counts change with bytes only.
    pub(crate) fn mark(&self, at: Standing) -> bool {
        let now = at.bytes << 1 | i64::from(at.running);
        self.told.swap(now, Relaxed) != now
    }

    pub(crate) fn wake(&self, event: Event) {
        if let Some(w) = &*lock(&self.waker) {
            w.wake(event);
        }
    }

    /// Called by the thread that owns the stream when that goes: nobody can wake
    /// it after this.
    pub(crate) fn close(&self) {
        drop(lock(&self.waker).take());
    }
}

/// A lock whose last holder may have panicked: what it guards is always whole.
pub(crate) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}
