//! One answer, read while it passes.

use crate::document::{Document, State};
use crate::edit::Editor;
use crate::event::Event;
use crate::reading::Tally;
use crate::shape;
use crate::sse::{Frame, Line, BOM};
use crate::usage::{Anomaly, Counts, End, Format, Options, Report, UNSAID};

/// Reads one answer while it passes. What it holds is bounded: a few hundred
/// bytes, 32 bytes a choice, and where it strips the event that is still
/// incomplete and the one before it where that waits (up to 1 MiB each, see
/// [`Anomaly::Oversize`]).
pub struct Meter {
    pub(crate) opts: Options,
    began: bool,
    /// The body cannot be read: all bytes pass.
    blind: bool,
    /// Bytes of a byte order mark seen at the start of a JSON body.
    bom: usize,

    pub(crate) doc: Document,
    pub(crate) line: Line,
    pub(crate) frame: Frame,
    pub(crate) editor: Editor,

    /// An error was met.
    pub(crate) failed: bool,
    /// A finish_reason was "abort".
    pub(crate) aborted: bool,
    /// The answer is complete.
    pub(crate) done: bool,
    /// Nothing that matters follows.
    pub(crate) over: bool,
    /// An event that is JSON was read.
    pub(crate) read: bool,
    /// A JSON body broke off.
    short: bool,

    running: Counts,
    last: Counts,
    seen: bool,
    /// The final usage was read.
    finished: bool,
    pub(crate) text_bytes: i64,
    pub(crate) deltas: i64,
    /// The last running usage of each choice: completion, reasoning.
    choices: Vec<(i64, i64)>,
    /// The last running usage of each prompt: prompt, cached.
    prompts: Vec<(i64, i64)>,
}

impl Meter {
    /// A meter for one answer.
    pub fn new(mut opts: Options) -> Meter {
        opts.choices = opts.choices.max(1);
        opts.prompts = opts.prompts.clamp(1, opts.choices);
        let strips = opts.sse
            && matches!(opts.format, Format::Chat | Format::Completions)
            && (opts.strip_final || opts.strip_running);
        let mut doc = Document::new(shape::root(&opts), opts.choices);
        if opts.encoded {
            doc.note(Anomaly::Encoded);
        }
        let mut running = Counts::NONE;
        if opts.format == Format::Free {
            running.prompt = 0;
            running.completion = 0;
        }
        Meter {
            opts,
            began: false,
            blind: opts.encoded,
            bom: 0,
            doc,
            line: Line::START,
            frame: Frame::START,
            editor: Editor::new(strips),
            failed: false,
            aborted: false,
            done: false,
            over: false,
            read: false,
            short: false,
            running,
            last: Counts::NONE,
            seen: false,
            finished: false,
            text_bytes: 0,
            deltas: 0,
            choices: vec![(UNSAID, UNSAID); opts.choices as usize],
            prompts: vec![(UNSAID, UNSAID); opts.prompts as usize],
        }
    }

    /// Takes the next bytes of the body and returns the bytes to forward, none
    /// where these are the chunk itself. `last` says that the body ends with it:
    /// an event without its blank line counts then, and held bytes are flushed.
    /// Concatenated, the bytes to forward do not depend on how the body was cut
    /// into chunks, nor does the report.
    pub fn feed(&mut self, chunk: &[u8], last: bool) -> Option<&[u8]> {
        if !self.began && !chunk.is_empty() {
            self.began = true;
            // What gzip and zstd begin with begins neither JSON nor an event stream.
            if !self.blind && (chunk[0] == 0x1f || chunk[0] == 0x28) {
                self.blind = true;
                self.doc.note(Anomaly::Encoded);
            }
        }
        if self.blind {
            return None;
        }
        if !self.opts.sse {
            self.body(chunk, last);
            return None;
        }
        self.editor.begin();
        self.lines(chunk);
        if last {
            self.eof(chunk);
        }
        if self.editor.end(chunk, last) {
            self.doc.note(Anomaly::Oversize);
        }
        self.editor.changed.then_some(self.editor.out.as_slice())
    }

    /// Reads the next bytes of a JSON body.
    fn body(&mut self, chunk: &[u8], last: bool) {
        let taken = self.doc.cursor.r.usage;
        let rest = self.behind_mark(chunk);
        self.doc.scan(rest, 0);
        let r = self.doc.cursor.r;
        if r.duplicate {
            self.last = Counts::NONE;
            self.seen = false;
            self.finished = false;
        } else if r.usage && !taken {
            self.conclude(&r.tally);
        }
        let state = self.doc.cursor.state;
        if r.complete && !self.over {
            self.failed = r.failed || r.event == Event::Error || r.status == Event::Failed;
            self.aborted = r.aborted;
            self.done = true;
            self.over = true;
        } else if last && !r.complete && state != State::AtStart && state != State::Broken {
            self.short = true;
            self.doc.fail();
        }
    }

    /// The chunk without the byte order mark that a body may begin with.
    fn behind_mark<'a>(&mut self, mut chunk: &'a [u8]) -> &'a [u8] {
        while self.bom < BOM.len() && !chunk.is_empty() {
            if chunk[0] != BOM[self.bom] {
                self.bom = BOM.len();
                break;
            }
            self.bom += 1;
            chunk = &chunk[1..];
        }
        chunk
    }

    /// Is the end of the answer in the bytes fed so far? The engine has said all
    /// it has to say then, well or badly.
    pub fn ended(&self) -> bool {
        self.over
    }

    /// Is what was fed so far no answer that anybody could read? Its tokens can
    /// only be guessed from its size then.
    pub fn unread(&self) -> bool {
        if self.seen {
            return false; // it has an account, whatever else is in it
        }
        let (d, r) = (&self.doc, &self.doc.cursor.r);
        if self.blind {
            return true;
        }
        if self.opts.sse {
            let malformed = d.anomalies[Anomaly::Malformed as usize] > 0;
            return !self.read && !self.done || self.text_bytes == 0 && malformed;
        }
        if d.cursor.state == State::Broken && !self.short {
            return true;
        }
        r.complete && r.text_bytes() == 0 && !self.failed
    }

    /// Is the body read event by event, so that its use is known while it passes?
    pub fn follows(&self) -> bool {
        self.opts.sse && !self.blind
    }

    /// Prompt and completion as they stand, [`UNSAID`] where not known. Cheap
    /// enough for every chunk.
    pub fn running(&self) -> (i64, i64) {
        let c = self.counts_so_far();
        (c.prompt, c.completion)
    }

    fn counts_so_far(&self) -> Counts {
        let or = |a: i64, b: i64| if a == UNSAID { b } else { a };
        Counts {
            prompt: or(self.last.prompt, self.running.prompt),
            completion: or(self.last.completion, self.running.completion),
            cached: or(self.last.cached, self.running.cached),
            reasoning: or(self.last.reasoning, self.running.reasoning),
        }
    }

    /// What is known now.
    pub fn report(&self) -> Report {
        // Nothing is to be said of a free answer, so nothing is missing.
        let free = self.opts.format == Format::Free;
        let end = match (self.failed, self.done, self.aborted) {
            (true, _, _) => End::Failed,
            (_, true, true) => End::EngineAborted,
            (_, true, false) => End::Done,
            _ => End::Open,
        };
        Report {
            counts: self.counts_so_far(),
            seen: self.seen || free,
            is_final: self.finished || free,
            end,
            text_bytes: if self.opts.sse {
                self.text_bytes
            } else {
                self.doc.cursor.r.text_bytes()
            },
            deltas: self.deltas,
            anomalies: self.doc.anomalies,
        }
    }

    /// Takes the engine's final usage. Fields that it leaves out stay what the
    /// running usage said.
    pub(crate) fn conclude(&mut self, t: &Tally) {
        let mut bad = t.bad;
        let Some(c) = self.counts(t, &mut bad) else {
            return;
        };
        raise(&mut self.doc, &mut self.last.prompt, c.prompt);
        raise(&mut self.doc, &mut self.last.completion, c.completion);
        raise(&mut self.doc, &mut self.last.cached, c.cached);
        raise(&mut self.doc, &mut self.last.reasoning, c.reasoning);
        self.seen = true;
        self.finished = self.finished || !bad;
    }

    /// Takes running usage of the one choice whose index is `index`.
    pub(crate) fn progress(&mut self, t: &Tally, index: i64) {
        let Some(c) = self.counts(t, &mut false) else {
            return;
        };
        if index == UNSAID {
            return;
        }
        self.seen = true;
        let (d, sum) = (&mut self.doc, &mut self.running);
        let choice = &mut self.choices[index as usize];
        add(d, &mut sum.completion, &mut choice.0, c.completion);
        add(d, &mut sum.reasoning, &mut choice.1, c.reasoning);
        let of = (index / (self.opts.choices / self.opts.prompts)).min(self.opts.prompts - 1);
        let prompt = &mut self.prompts[of as usize];
        add(d, &mut sum.prompt, &mut prompt.0, c.prompt);
        add(d, &mut sum.cached, &mut prompt.1, c.cached);
    }

    /// What a usage object says; none when that is nothing.
    fn counts(&mut self, t: &Tally, bad: &mut bool) -> Option<Counts> {
        let [mut prompt, completion, cached, reasoning, created] = t.value;
        if self.opts.format == Format::Messages && prompt != UNSAID {
            // The three parts do not overlap there.
            for part in [cached, created] {
                if part == UNSAID {
                    continue;
                }
                match prompt.checked_add(part) {
                    Some(sum) => prompt = sum,
                    None => {
                        self.doc.note(Anomaly::Overflow);
                        *bad = true;
                    }
                }
            }
        }
        (prompt != UNSAID || completion != UNSAID).then_some(Counts {
            prompt,
            completion,
            cached,
            reasoning,
        })
    }
}

/// Sets a count, unless it would decrease.
fn raise(d: &mut Document, count: &mut i64, v: i64) {
    if v == UNSAID {
        return;
    }
    if v < *count {
        d.note(Anomaly::Decreasing);
    } else {
        *count = v;
    }
}

/// Sets one part of a sum, unless it would decrease.
fn add(d: &mut Document, sum: &mut i64, part: &mut i64, v: i64) {
    if v == UNSAID {
        return;
    }
    if v < *part {
        d.note(Anomaly::Decreasing);
        return;
    }
    let more = v - (*part).max(0);
    match (*sum).max(0).checked_add(more) {
        Some(s) => {
            *sum = s;
            *part = v;
        }
        None => d.note(Anomaly::Overflow),
    }
}
