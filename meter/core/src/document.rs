//! One JSON text, read in pieces of any size: the data of an event or a whole
//! body. It follows only the paths of its shape (see shape.rs) and passes over
//! everything else counting brackets, so it holds the same few hundred bytes
//! whatever it is given.
//!
//! Inside what it passes over it does not check the grammar: that is the
//! client's business, not the meter's.

use crate::memo::Memo;
use crate::number::Number;
use crate::reading::{Reading, Stamp};
use crate::shape::*;
use crate::usage::{Anomaly, ANOMALIES, UNSAID};

/// Bounds of what a document remembers. The deepest path that is read has nine
/// containers; the longest key has 27 bytes, the longest event name 38.
const MAX_DEPTH: usize = 12;
pub(crate) const MAX_TEXT: usize = 48;

/// What a document expects of the next byte.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// The top-level value, or white space before it.
    AtStart,
    /// After "{".
    AtKeyOrEnd,
    /// After "," in an object.
    AtKey,
    /// After a key.
    AtColon,
    /// After ":", or after "," in an array.
    AtValue,
    /// After "[".
    AtValueOrEnd,
    /// After a value.
    AtComma,
    InKey,
    InString,
    /// Inside a number or a literal.
    InScalar,
    /// Inside a container that nobody reads.
    InSkip,
    /// Inside a string of such a container.
    InSkipString,
    /// After the top-level value.
    AtEnd,
    /// It is not JSON: the rest is not read.
    Broken,
}

/// How far a document has been read and what it said until there. Copied, it is
/// a place to go on from.
#[derive(Clone, Copy)]
pub(crate) struct Cursor {
    pub(crate) state: State,
    /// The value that is being read or comes next.
    pub(crate) node: Node,
    /// Containers of the shape that are open.
    pub(crate) depth: usize,
    pub(crate) stack: [Node; MAX_DEPTH],
    /// Brackets open inside a container that is passed over.
    nest: i64,
    /// 0: none; 1: after a backslash; 2 to 5: before that many hex digits, less one.
    pub(crate) escape: u8,
    /// The last character was a high surrogate.
    pub(crate) high: bool,
    /// The text did not fit.
    pub(crate) too_long: bool,
    /// An anomaly was counted.
    pub(crate) noted: bool,
    pub(crate) unit: u16,
    pub(crate) length: usize,
    /// The key or the string being read, decoded.
    pub(crate) text: [u8; MAX_TEXT],
    pub(crate) number: Number,
    pub(crate) r: Reading,
}

impl Cursor {
    pub(crate) const START: Cursor = Cursor {
        state: State::AtStart,
        node: UNREAD,
        depth: 0,
        stack: [UNREAD; MAX_DEPTH],
        nest: 0,
        escape: 0,
        high: false,
        too_long: false,
        noted: false,
        unit: 0,
        length: 0,
        text: [0; MAX_TEXT],
        number: Number::NONE,
        r: Reading::NONE,
    };
}

pub(crate) struct Document {
    pub(crate) cursor: Cursor,
    /// Of all documents of the answer.
    pub(crate) anomalies: [u32; ANOMALIES],
    root: Node,
    /// Indices at or above it are anomalies.
    pub(crate) choices: i64,
    pub(crate) memo: Memo,
    pub(crate) stamp: Stamp,
    /// The place of what closed the top level.
    pub(crate) brace: isize,
}

impl Document {
    /// A document whose top level is `root`, of a request with that many choices.
    pub(crate) fn new(root: Node, choices: i64) -> Document {
        let mut d = Document {
            cursor: Cursor::START,
            anomalies: [0; ANOMALIES],
            root,
            choices,
            memo: Memo::new(),
            stamp: Stamp::default(),
            brace: 0,
        };
        d.reset();
        d
    }

    pub(crate) fn reset(&mut self) {
        let c = &mut self.cursor;
        c.state = State::AtStart;
        c.node = self.root;
        c.depth = 0;
        c.escape = 0;
        c.noted = false;
        c.r = Reading::NONE;
        self.stamp = Stamp::default();
    }
    pub(crate) fn note(&mut self, a: Anomaly) {
        self.cursor.noted = true;
        let n = &mut self.anomalies[a as usize];
        *n = n.saturating_add(1);
    }
    pub(crate) fn fail(&mut self) {
        self.cursor.state = State::Broken;
        self.note(Anomaly::Malformed)
    }

    pub(crate) fn scan(&mut self, b: &[u8], base: isize) {
        let mut i = 0;
        while i < b.len() {
            i = match self.cursor.state {
                State::InKey | State::InString | State::InSkipString => self.scan_string(b, i),
                State::InScalar => self.scan_scalar(b, i),
                State::InSkip => self.skip(b, i),
                State::AtKey | State::AtKeyOrEnd => self.scan_key(b, i, base),
                State::AtValue | State::AtValueOrEnd | State::AtStart => {
                    self.scan_value(b, i, base)
                }
                State::Broken => return,
                State::AtColon | State::AtComma | State::AtEnd => self.scan_punctuation(b, i, base),
            };
        }
    }
    pub(crate) fn scan_punctuation(&mut self, b: &[u8], i: usize, base: isize) -> usize {
        let ch = b[i];
        if is_space(ch) {
        } else if self.cursor.state == State::AtColon && ch == b':' {
            self.cursor.state = State::AtValue
        } else if self.cursor.state != State::AtComma {
            self.fail()
        } else if ch == b',' {
            self.next(base + i as isize);
            if i + 1 < b.len() && self.cursor.state == State::AtKey {
                return self.scan_key(b, i + 1, base);
            }
        } else if ch == b'}' || ch == b']' {
            self.leave(ch, base + i as isize)
        } else {
            self.fail()
        }
        i + 1
    }
    pub(crate) fn next(&mut self, at: isize) {
        let c = &mut self.cursor;
        if c.depth == 1 {
            c.r.past_comma(at)
        }
        let s = &SHAPES[c.stack[c.depth - 1] as usize];
        if s.kind == Kind::Array {
            c.state = State::AtValue;
            c.node = s.element;
            return;
        }
        c.state = State::AtKey;
    }
    pub(crate) fn leave(&mut self, ch: u8, at: isize) {
        let n = self.cursor.stack[self.cursor.depth - 1];
        if (SHAPES[n as usize].kind == Kind::Array) != (ch == b']') {
            self.fail();
            return;
        }
        self.cursor.depth -= 1;
        self.left(n, at);
        self.value_read();
    }
    pub(crate) fn value_read(&mut self) {
        self.cursor.state = State::AtComma;
        if self.cursor.depth == 0 {
            self.cursor.state = State::AtEnd;
            self.cursor.r.complete = true
        }
    }
    pub(crate) fn scan_key(&mut self, b: &[u8], i: usize, base: isize) -> usize {
        let ch = b[i];
        if is_space(ch) {
            return i + 1;
        }
        if ch == b'}' && self.cursor.state == State::AtKeyOrEnd {
            self.leave(ch, base + i as isize);
            return i + 1;
        }
        if ch != b'"' {
            self.fail();
            return i + 1;
        }
        self.cursor.r.key_at = base + i as isize;
        let j = quote_or_escape(b, i + 1);
        if j < b.len() && b[j] == b'"' {
            self.keyed(Some(&b[i + 1..j]));
            if j + 2 < b.len() && b[j + 1] == b':' {
                self.cursor.state = State::AtValue;
                return self.scan_value(b, j + 2, base);
            }
            return j + 1;
        }
        let c = &mut self.cursor;
        c.state = State::InKey;
        c.length = 0;
        c.too_long = false;
        c.high = false;
        i + 1
    }
    pub(crate) fn scan_value(&mut self, b: &[u8], i: usize, base: isize) -> usize {
        let ch = b[i];
        if is_space(ch) {
            return i + 1;
        }
        if ch == b']' && self.cursor.state == State::AtValueOrEnd {
            self.leave(ch, base + i as isize);
            return i + 1;
        }
        if self.cursor.node == CHOICE {
            self.cursor.r.choices += 1;
            self.cursor.r.choice_index = UNSAID;
            self.cursor.r.indexed = false
        }
        match ch {
            b'{' | b'[' => {
                self.enter(ch);
                return i + 1;
            }
            b'"' if self.cursor.depth > 0 => {
                self.begin_string();
                if self.memo.wanted && SHAPES[self.cursor.node as usize].text > 0 {
                    self.memorize(&b[..i + 1], base)
                }
                return if i + 1 < b.len() {
                    self.scan_string(b, i + 1)
                } else {
                    i + 1
                };
            }
            b'"' | b']' | b'}' | b',' | b':' => {}
            _ if self.cursor.depth > 0 => {
                self.cursor.state = State::InScalar;
                self.cursor.number = Number::NONE;
                return self.scan_scalar(b, i);
            }
            _ => {}
        }
        self.fail();
        i + 1
    }
    pub(crate) fn enter(&mut self, ch: u8) {
        let n = self.cursor.node;
        let s = &SHAPES[n as usize];
        let c = &mut self.cursor;
        if s.kind == Kind::Object && ch == b'{' && c.depth < MAX_DEPTH {
            c.state = State::AtKeyOrEnd
        } else if s.kind == Kind::Array && ch == b'[' && c.depth < MAX_DEPTH {
            c.state = State::AtValueOrEnd
        } else if c.depth == 0 {
            self.fail();
            return;
        } else {
            self.mistyped();
            self.cursor.state = State::InSkip;
            self.cursor.nest = 1;
            return;
        }
        c.stack[c.depth] = n;
        c.depth += 1;
        c.node = s.element;
    }
    pub(crate) fn skip(&mut self, b: &[u8], mut i: usize) -> usize {
        while i < b.len() {
            match b[i] {
                b'"' => {
                    let j = quote_or_escape(b, i + 1);
                    if j == b.len() || b[j] == b'\\' {
                        self.cursor.state = State::InSkipString;
                        return j;
                    }
                    i = j;
                }
                b'{' | b'[' => self.cursor.nest += 1,
                b'}' | b']' => {
                    self.cursor.nest -= 1;
                    if self.cursor.nest == 0 {
                        self.value_read();
                        return i + 1;
                    }
                }
                _ => {}
            }
            i += 1;
        }
        i
    }
    pub(crate) fn scan_scalar(&mut self, b: &[u8], mut i: usize) -> usize {
        let start = i;
        while i < b.len()
            && !matches!(
                b[i],
                b' ' | b'\t' | b'\n' | b'\r' | b',' | b'}' | b']' | b'"' | b'{' | b'[' | b':'
            )
        {
            i += 1
        }
        if SHAPES[self.cursor.node as usize].scalar {
            self.cursor.number.add(&b[start..i])
        }
        if i < b.len() {
            self.scalar_read();
            self.value_read()
        }
        i
    }
}

#[inline]
fn is_space(c: u8) -> bool {
    matches!(c, b' ' | b'\n' | b'\r' | b'\t')
}

/// The index of the first '"' or '\' in b from i on, or its length: eight bytes at a time.
#[inline]
pub(crate) fn quote_or_escape(b: &[u8], mut i: usize) -> usize {
    const LOW: u64 = 0x0101010101010101;
    const HIGH: u64 = 0x8080808080808080;
    while i + 8 <= b.len() {
        let w = u64::from_le_bytes(b[i..i + 8].try_into().unwrap());
        let q = w ^ (b'"' as u64 * LOW);
        let e = w ^ (b'\\' as u64 * LOW);
        let hit = ((q.wrapping_sub(LOW) & !q) | (e.wrapping_sub(LOW) & !e)) & HIGH;
        if hit != 0 {
            return i + (hit.trailing_zeros() >> 3) as usize;
        }
        i += 8;
    }
    while i < b.len() && b[i] != b'"' && b[i] != b'\\' {
        i += 1
    }
    i
}
