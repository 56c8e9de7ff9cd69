//! The watch over a key's quota while an answer runs.

use std::collections::VecDeque;
use tollgate_meter_core::{Meter, Report};
use tollgate_meter_link::{Entry, Link, Quota};

/// What is taken for one token where nothing else is known, in bytes.
const BYTES_PER_TOKEN: i64 = 4;

/// An event that the quota does not hold as far as is known.
pub(crate) struct Mark {
    /// Tokens that the answer comes to with it.
    pub(crate) used: i64,
    /// Where it begins in what is held.
    pub(crate) at: usize,
    /// What was delivered before it.
    pub(crate) bytes: i64,
    pub(crate) report: Report,
}

/// What an answer waits with for an answer of tollgate.
#[derive(Default)]
pub(crate) struct Stall {
    pub(crate) marks: VecDeque<Mark>,
    /// The bytes that Envoy keeps meanwhile.
    pub(crate) held: Vec<u8>,
    /// The end of the answer is among them.
    pub(crate) ended: bool,
}

/// What is to be done with a [`Stall`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Wait,
    /// All of it may go.
    Pass,
    /// Nothing is left for the first mark.
    Spent,
}

/// The watch over one answer.
pub(crate) struct Watch {
    prompt: i64,
    /// The last total that was heard, and what it added.
    total: i64,
    step: i64,
    /// The total for which more was asked ahead.
    ahead: i64,
    /// What was delivered.
    pub(crate) report: Report,
    /// A piece of the body, and what goes on of it.
    pub(crate) buffers: (Vec<u8>, Vec<u8>),
}

impl Watch {
    pub(crate) fn new(quota: Quota, report: Report) -> Watch {
        Watch {
            prompt: quota.prompt,
            total: quota.allowance,
            step: quota.allowance,
            ahead: -1,
            report,
            buffers: Default::default(),
        }
    }

    /// Tokens that the answer has come to. Text without usage counts a token a
    /// delta; what nobody can read counts by its size, beside the prompt.
    pub(crate) fn used(&self, meter: &Meter, report: &Report, bytes: i64) -> i64 {
        let c = &report.counts;
        let text = if c.completion < 0 { report.deltas } else { 0 };
        let used = c
            .prompt
            .max(0)
            .saturating_add(c.completion.max(text).max(0));
        if meter.follows() || bytes == 0 || report.seen {
            return used;
        }
        let size = (bytes + BYTES_PER_TOKEN - 1) / BYTES_PER_TOKEN;
        used.max(self.prompt.saturating_add(size))
    }

    /// May an answer that has come to `used` tokens go on? Asks for more ahead
    /// where little is left.
    pub(crate) fn covers(&mut self, link: &Link, entry: &std::sync::Arc<Entry>, used: i64) -> bool {
        let total = entry.total();
        if total != self.total {
            self.step = total.saturating_sub(self.total);
            self.total = total;
        }
        if used > total {
            if link.is_up() && !entry.unenforced() {
                return false;
            }
            // Nobody can be asked: what runs goes on, and is on record all the same.
            if link.is_up() && entry.open_question() == 0 {
                link.ask(entry, used);
            }
            return true;
        }
        if total - used < self.step / 4 && self.ahead != total && link.is_up() {
            self.ahead = total;
            link.ask(entry, used);
        }
        true
    }
}

impl Stall {
    /// Looks again after something was heard. The marks that are held by now go.
    pub(crate) fn verdict(&mut self, link: &Link, entry: &Entry) -> Verdict {
        let total = entry.total();
        while self.marks.front().is_some_and(|m| m.used <= total) {
            self.marks.pop_front();
        }
        let Some(first) = self.marks.front() else {
            return Verdict::Pass;
        };
        if !link.is_up() || entry.unenforced() {
            return Verdict::Pass;
        }
        if entry.answered() >= first.used {
            return Verdict::Spent;
        }
        Verdict::Wait
    }

    /// The most that the answer has come to.
    pub(crate) fn used(&self) -> i64 {
        self.marks.back().map_or(0, |m| m.used)
    }
}

/// The length of the first event in a body's bytes, its blank line included; all
/// of them where there is none.
pub(crate) fn first_event(body: &[u8]) -> usize {
    body.windows(2)
        .position(|w| w == b"\n\n")
        .map_or(body.len(), |at| at + 2)
}
