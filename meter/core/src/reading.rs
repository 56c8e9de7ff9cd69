//! What was read of one document.

use crate::document::{Document, State};
use crate::event::{event_named, Event};
use crate::shape::*;
use crate::usage::{Anomaly, UNSAID};

/// Fields of a usage object: prompt, completion, cached, reasoning, and what
/// messages wrote to the prefix cache.
pub(crate) const FIELDS: usize = 5;

/// One usage object as it was read.
#[derive(Clone, Copy)]
pub(crate) struct Tally {
    /// [`UNSAID`]: missing, null or nonsense.
    pub(crate) value: [i64; FIELDS],
    /// A bit for every field whose key was met.
    keyed: u8,
    /// A count was nonsense.
    pub(crate) bad: bool,
}

/// What was read of one document.
#[derive(Clone, Copy)]
pub(crate) struct Reading {
    /// The top-level value has been closed.
    pub(crate) complete: bool,
    /// A usage object was read to its end.
    pub(crate) usage: bool,
    /// A usage key was met, whatever its value.
    usage_keyed: bool,
    /// A second one was met.
    pub(crate) duplicate: bool,
    /// The usage object stands at the top level.
    pub(crate) top_usage: bool,
    /// There is an error that is not null.
    pub(crate) failed: bool,
    /// A choice has a finish_reason.
    pub(crate) ended: bool,
    /// And it is "abort".
    pub(crate) aborted: bool,
    /// An index of this choice was met.
    pub(crate) indexed: bool,
    pub(crate) event: Event,
    pub(crate) status: Event,
    /// Elements of choices.
    pub(crate) choices: i64,
    /// Of the first choice; [`UNSAID`] when missing or nonsense.
    pub(crate) index: i64,
    /// Of the choice that is being read.
    pub(crate) choice_index: i64,
    /// Bytes: plain text, reasoning, reasoning under its older names.
    pub(crate) text: [i64; 3],
    pub(crate) tally: Tally,

    // Places in the event, for the strip.
    /// The last comma at the top level, -1 before the first.
    comma: isize,
    /// The last key's quote.
    pub(crate) key_at: isize,
    /// The bytes of usage, one neighbouring comma included.
    pub(crate) cut_from: isize,
    pub(crate) cut_to: isize,
    /// Usage is the first member: the comma behind it goes with it.
    cut_next: bool,
}

impl Reading {
    pub(crate) const NONE: Reading = Reading {
        complete: false,
        usage: false,
        usage_keyed: false,
        duplicate: false,
        top_usage: false,
        failed: false,
        ended: false,
        aborted: false,
        indexed: false,
        event: Event::Unnamed,
        status: Event::Unnamed,
        choices: 0,
        index: UNSAID,
        choice_index: 0,
        text: [0; 3],
        tally: Tally {
            value: [UNSAID; FIELDS],
            keyed: 0,
            bad: false,
        },
        comma: -1,
        key_at: 0,
        cut_from: 0,
        cut_to: 0,
        cut_next: false,
    };

    /// The length of the decoded text.
    pub(crate) fn text_bytes(&self) -> i64 {
        self.text[0] + self.text[1].max(self.text[2])
    }

    /// Is told of every comma at the top level.
    pub(crate) fn past_comma(&mut self, at: isize) {
        self.comma = at;
        if self.cut_next && self.usage {
            self.cut_next = false;
            self.cut_to = at + 1;
        }
    }
}

/// Where the fingerprint stands in the event, the comma before it included if
/// there is one. It is at the top level; zero stands for none.
#[derive(Clone, Copy, Default)]
pub(crate) struct Stamp {
    pub(crate) from: isize,
    pub(crate) to: isize,
    /// Its end has not been met.
    open: bool,
}

impl Stamp {
    /// Is told of the place of what ends the member.
    fn end(&mut self, at: isize) {
        if self.open {
            self.to = at;
            self.open = false
        }
    }
}

impl Document {
    pub(crate) fn keyed(&mut self, key: Option<&[u8]>) {
        self.cursor.state = State::AtColon;
        let inside = self.cursor.stack[self.cursor.depth - 1];
        let n = key.map_or(UNREAD, |k| child(inside, k));
        self.cursor.node = n;
        let comma = self.cursor.r.comma;
        self.stamp.end(comma);
        if n == UNREAD {
        } else if SHAPES[n as usize].usage {
            self.usage_keyed(inside)
        } else if n == FINGERPRINT {
            self.stamp = Stamp {
                from: self.cursor.r.key_at,
                to: self.stamp.to,
                open: true,
            };
            self.stamp.to = 0;
            if comma >= 0 {
                self.stamp.from = comma
            }
        } else if n > COUNT {
            let f = (n - COUNT - 1) as usize;
            if self.cursor.r.tally.keyed & (1 << f) != 0 {
                self.note(Anomaly::Malformed);
                self.cursor.r.tally.value[f] = UNSAID;
                self.cursor.r.tally.bad = true;
                self.cursor.node = UNREAD;
            }
            self.cursor.r.tally.keyed |= 1 << f;
        } else if n == INDEX {
            if self.cursor.r.indexed {
                self.cursor.r.choice_index = UNSAID;
                self.cursor.node = UNREAD
            }
            self.cursor.r.indexed = true;
        }
    }
    pub(crate) fn usage_keyed(&mut self, inside: Node) {
        if self.cursor.r.usage_keyed {
            if !self.cursor.r.duplicate {
                self.note(Anomaly::Malformed)
            }
            self.cursor.r.duplicate = true;
            self.cursor.node = UNREAD;
            return;
        }
        let r = &mut self.cursor.r;
        r.usage_keyed = true;
        r.top_usage = inside != MSG;
        r.cut_from = r.key_at;
        r.cut_next = true;
        if r.comma >= 0 {
            r.cut_from = r.comma;
            r.cut_next = false
        }
    }
    pub(crate) fn left(&mut self, n: Node, at: isize) {
        if self.cursor.depth == 0 {
            self.brace = at;
            self.stamp.end(at)
        }
        if SHAPES[n as usize].usage {
            self.cursor.r.usage = true;
            self.cursor.r.cut_to = at + 1
        } else if n == CHOICE {
            if self.cursor.r.choice_index == UNSAID && !self.cursor.r.indexed && self.choices == 1 {
                self.cursor.r.choice_index = 0
            }
            if self.cursor.r.choice_index == UNSAID {
                self.note(Anomaly::BadIndex)
            }
            if self.cursor.r.choices == 1 {
                self.cursor.r.index = self.cursor.r.choice_index
            }
        }
    }
    pub(crate) fn string_read(&mut self) {
        let n = self.cursor.node;
        if SHAPES[n as usize].kind != Kind::Str {
            return;
        }
        let known = if self.cursor.too_long {
            None
        } else {
            Some(&self.cursor.text[..self.cursor.length])
        };
        match n {
            TYPE => self.cursor.r.event = event_named(known),
            STATUS => self.cursor.r.status = event_named(known),
            FINISH => {
                let a = known == Some(b"abort");
                self.cursor.r.ended = true;
                self.cursor.r.aborted |= a
            }
            _ => {}
        }
    }
    pub(crate) fn mistyped(&mut self) {
        let n = self.cursor.node;
        if n == ERROR {
            self.cursor.r.failed = true
        } else if n > COUNT {
            self.note(Anomaly::WrongType);
            self.cursor.r.tally.bad = true
        } else if SHAPES[n as usize].typed {
            self.note(Anomaly::WrongType);
            if n == CHOICES {
                self.cursor.r.choices += 1
            }
        }
    }
    pub(crate) fn scalar_read(&mut self) {
        let n = self.cursor.node;
        if !SHAPES[n as usize].scalar || self.cursor.number.null() {
            return;
        }
        let v = self.cursor.number.value();
        if n == ERROR {
            self.cursor.r.failed = true
        } else if n == INDEX {
            if let Ok(v) = v {
                if v < self.choices {
                    self.cursor.r.choice_index = v
                }
            }
        } else if n > COUNT {
            match v {
                Ok(v) => self.cursor.r.tally.value[(n - COUNT - 1) as usize] = v,
                Err(a) => {
                    self.note(a);
                    self.cursor.r.tally.bad = true
                }
            }
        } else {
            self.mistyped()
        }
    }
}
