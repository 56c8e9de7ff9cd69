//! How the body of an answer passes.

use crate::host::{self, Host};
use crate::quota::{first_event, Mark, Stall, Verdict};
use crate::stream::{Next, State, Stream};
use std::borrow::Cow;
use std::time::Instant;
use tollgate_meter_core::{reshape, Meter};
use tollgate_meter_link::{Plan, Why};

impl Stream {
    /// The next piece of the answer's body.
    pub(crate) fn body(&mut self, host: &impl Host, last: bool) -> Next {
        match self.state {
            State::Waiting | State::Done => return Next::GoOn,
            State::Collecting => return self.collected(host, last),
            State::Held(false) => return Next::Hold,
            State::Held(true) | State::Cut => {
                let size = host.with_body(size_of);
                host.replace_body(host::Kind::Received, size, &[]);
                return Next::Drop;
            }
            State::Running => {}
        }
        self.first.get_or_insert_with(Instant::now);
        if self.watch.is_some() {
            return self.watched(host, last);
        }
        let opaque = self.opaque;
        let Some(meter) = self.meter.as_deref_mut() else {
            return Next::GoOn;
        };
        let size = host.edit_body(|pieces| {
            let forward = if opaque {
                None
            } else {
                feed(meter, pieces, last)
            };
            (size_of(pieces), forward)
        });
        self.bytes += size as i64;
        let ended = last || !opaque && meter.ended();
        let (prompt, completion) = meter.running();
        if let Some(entry) = &self.entry {
            entry.progress(prompt, completion, self.bytes);
        }
        if ended {
            return self.end(host);
        }
        Next::GoOn
    }

    /// The next piece of an engine's error: it goes on as a whole, in the shape of
    /// our errors if it has another.
    fn collected(&mut self, host: &impl Host, last: bool) -> Next {
        let size = host.with_body(|pieces| {
            pieces.iter().for_each(|p| self.error.extend_from_slice(p));
            size_of(pieces)
        });
        if !last {
            host.replace_body(host::Kind::Received, size, &[]);
            return Next::Drop;
        }
        self.state = State::Done;
        let anthropic = matches!(self.plan, Some(Plan::Meter(t)) if t.anthropic);
        let error = std::mem::take(&mut self.error);
        let ours = reshape(anthropic, self.status, &error);
        host.replace_body(
            host::Kind::Received,
            size,
            ours.as_deref().unwrap_or(&error),
        );
        Next::GoOn
    }

    /// The next piece of a stream whose key has a quota, event by event: the first
    /// for which nothing is left is where it ends.
    fn watched(&mut self, host: &impl Host, last: bool) -> Next {
        let Some(watch) = &mut self.watch else {
            return Next::GoOn;
        };
        // Both are used again and again.
        let (mut body, mut out) = std::mem::take(&mut watch.buffers);
        out.clear();
        host.edit_body(|pieces| {
            let changed = if let [piece] = pieces {
                self.events(piece, last, &mut out)
            } else {
                body.clear();
                pieces.iter().for_each(|p| body.extend_from_slice(p));
                self.events(&body, last, &mut out)
            };
            ((), changed.then_some(Cow::Borrowed(&out)))
        });
        if let Some(watch) = &mut self.watch {
            watch.buffers = (body, out);
        }
        let over = |m: &Meter| !self.opaque && m.ended();
        let ended = last || self.meter.as_deref().is_some_and(over);
        if let Some(stall) = &mut self.stall {
            stall.ended |= ended;
            return Next::Hold;
        }
        if ended {
            return self.end(host);
        }
        Next::GoOn
    }

    /// Feeds the events of a piece, `out` being what goes on of them. Is that not the
    /// piece itself?
    fn events(&mut self, body: &[u8], last: bool, out: &mut Vec<u8>) -> bool {
        let (mut rest, mut changed) = (body, false);
        loop {
            let (event, behind) = rest.split_at(first_event(rest));
            rest = behind;
            changed |= self.event(event, last && rest.is_empty(), out);
            if rest.is_empty() {
                return changed || self.stall.is_some();
            }
        }
    }

    /// Feeds one event and appends to `out` what goes on of it. Is that not the
    /// event itself?
    fn event(&mut self, event: &[u8], last: bool, out: &mut Vec<u8>) -> bool {
        let (Some(meter), Some(watch), Some(entry)) =
            (self.meter.as_deref_mut(), &mut self.watch, &self.entry)
        else {
            return false;
        };
        let forward = if self.opaque {
            None
        } else {
            meter.feed(event, last)
        };
        let changed = forward.is_some();
        let passed = forward.unwrap_or(event);
        let start = out.len();
        out.extend_from_slice(passed);
        let before = self.bytes;
        self.bytes += event.len() as i64;
        let report = meter.report();
        let used = watch.used(meter, &report, self.bytes);
        if self.stall.is_none() {
            if watch.covers(&self.link, entry, used) {
                watch.report = report;
                entry.progress(report.counts.prompt, report.counts.completion, self.bytes);
                return changed;
            }
            // All of this piece is held, also what is covered.
            self.stall = Some(Stall {
                held: out[..start].to_vec(),
                ..Stall::default()
            });
            self.link.ask(entry, used);
        }
        let Some(stall) = &mut self.stall else {
            return changed;
        };
        if used > entry.total() {
            stall.marks.push_back(Mark {
                used,
                at: stall.held.len(),
                bytes: before,
                report,
            });
        }
        stall.held.extend_from_slice(&out[start..]);
        changed
    }

    /// Something was heard of the quota.
    pub(crate) fn granted(&mut self, host: &impl Host) {
        let (Some(stall), Some(entry)) = (&mut self.stall, &self.entry) else {
            return;
        };
        match stall.verdict(&self.link, entry) {
            Verdict::Wait => {
                if entry.open_question() == 0 {
                    self.link.ask(entry, stall.used());
                }
            }
            Verdict::Pass => {
                let ended = stall.ended;
                self.stall = None;
                self.catch_up();
                if !ended || self.end(host) == Next::GoOn {
                    host.go_on();
                }
            }
            Verdict::Spent => self.spent(host),
        }
    }

    /// What was held goes on: it counts as delivered.
    fn catch_up(&mut self) {
        let (Some(meter), Some(watch), Some(entry)) = (&self.meter, &mut self.watch, &self.entry)
        else {
            return;
        };
        watch.report = meter.report();
        let c = watch.report.counts;
        entry.progress(c.prompt, c.completion, self.bytes);
    }

    /// Puts the error event in the place of the first event for which nothing is
    /// left. It goes out once the record is safe, and then the stream is cut.
    fn spent(&mut self, host: &impl Host) {
        let (Some(stall), Some(meter), Some(watch)) =
            (self.stall.take(), &self.meter, &mut self.watch)
        else {
            return;
        };
        let Some(mark) = stall.marks.front() else {
            return;
        };
        let mut passed = stall.held[..mark.at].to_vec();
        if meter.follows() {
            passed.extend(host.metadata("tollgate.meter", "spent").unwrap_or_default());
        }
        host.replace_body(host::Kind::Held, stall.held.len(), &passed);
        // What was delivered before counts, and the prompt, which the engine has read.
        let (said, kept) = (&mut watch.report, &mark.report);
        said.counts.prompt = said.counts.prompt.max(kept.counts.prompt);
        said.counts.completion = said.counts.completion.max(0);
        said.seen |= kept.seen && meter.follows();
        said.anomalies = kept.anomalies;
        self.bytes = mark.bytes;
        self.record(host, Why::Quota, true);
        self.state = State::Held(true);
    }
}

fn size_of(pieces: &[&[u8]]) -> usize {
    pieces.iter().map(|p| p.len()).sum()
}

/// Feeds the pieces; what goes on in their place, none where they go on as they are.
fn feed<'a>(meter: &'a mut Meter, pieces: &[&[u8]], last: bool) -> Option<Cow<'a, [u8]>> {
    if let [] | [_] = pieces {
        let piece = pieces.first().copied().unwrap_or_default();
        return meter.feed(piece, last).map(Cow::Borrowed);
    }
    let (mut all, mut changed) = (Vec::new(), false);
    for (i, piece) in pieces.iter().enumerate() {
        let forward = meter.feed(piece, last && i + 1 == pieces.len());
        changed |= forward.is_some();
        all.extend_from_slice(forward.unwrap_or(piece));
    }
    changed.then_some(Cow::Owned(all))
}
