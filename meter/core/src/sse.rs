//! The lines and events of an event stream (WHATWG rules, any split of bytes).

use crate::document::{State, MAX_TEXT};
use crate::edit::Edit;
use crate::meter::Meter;
use crate::usage::{Anomaly, Format};

/// It may stand before the first line and is no part of it.
pub(crate) const BOM: &[u8] = b"\xef\xbb\xbf";

/// The data of the event that ends a chat or completions stream.
const DONE: &[u8] = b"[DONE]";

/// Where in a line the next byte stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    InName,
    AfterColon,
    InValue,
}

/// A field of an event that matters here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Other,
    Data,
    Event,
}

/// What is known of the line being read.
pub(crate) struct Line {
    place: Place,
    field: Field,
    /// Bytes of a byte order mark seen; all of them when none can come.
    bom: usize,
    length: usize,
    /// Longer ones match nothing.
    name: [u8; 6],
    /// The last byte was a carriage return: a line feed belongs to it.
    pub(crate) after_cr: bool,
}

impl Line {
    pub(crate) const START: Line = Line {
        place: Place::InName,
        field: Field::Other,
        bom: 0,
        length: 0,
        name: [0; 6],
        after_cr: false,
    };

    /// The field whose name was read.
    fn named(&self) -> Field {
        match &self.name[..self.length] {
            b"data" => Field::Data,
            b"event" => Field::Event,
            _ => Field::Other,
        }
    }
}

/// What is known of the event being read.
pub(crate) struct Frame {
    /// It has a data line.
    data: bool,
    /// Its data has a first byte.
    begun: bool,
    /// Its data begins with "[": it is [DONE] or nothing.
    marker: bool,
    /// Bytes of [DONE]; -1 after a difference.
    matched: isize,
    /// It has an event line.
    pub(crate) named: bool,
    pub(crate) name: [u8; MAX_TEXT],
    pub(crate) length: usize,
    pub(crate) too_long: bool,
}

impl Frame {
    pub(crate) const START: Frame = Frame {
        data: false,
        begun: false,
        marker: false,
        matched: 0,
        named: false,
        name: [0; MAX_TEXT],
        length: 0,
        too_long: false,
    };
}

/// The index of c in b from i on, or the length of b.
#[inline]
fn index_from(b: &[u8], i: usize, c: u8) -> usize {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut at = i;
    for w in b[i..].chunks_exact(8) {
        let x = u64::from_le_bytes(w.try_into().unwrap_or_default()) ^ (u64::from(c) * LOW);
        let hit = x.wrapping_sub(LOW) & !x & HIGH;
        if hit != 0 {
            return at + (hit.trailing_zeros() >> 3) as usize;
        }
        at += 8;
    }
    while at < b.len() && b[at] != c {
        at += 1;
    }
    at
}

impl Meter {
    pub(crate) fn lines(&mut self, chunk: &[u8]) {
        let mut i = 0;
        if self.line.after_cr && !chunk.is_empty() {
            self.line.after_cr = false;
            if chunk[0] == b'\n' {
                i = 1;
                self.editor.line_feed(chunk)
            }
            self.editor.returned = false;
        }
        let (mut lf, mut cr, mut first) = (0, 0, true);
        while i < chunk.len() {
            if first || lf < i {
                lf = index_from(chunk, i, b'\n')
            }
            if first || cr < i {
                cr = index_from(chunk, i, b'\r')
            }
            first = false;
            let end = lf.min(cr);
            self.piece(&chunk[i..end], i);
            if end == chunk.len() {
                return;
            }
            let mut next = end + 1;
            if end == cr {
                self.line.after_cr = next == chunk.len();
                if next == lf && !self.line.after_cr {
                    next += 1
                }
            }
            self.end_line(chunk, end + 1, next);
            i = next;
        }
    }
    pub(crate) fn piece(&mut self, b: &[u8], off: usize) {
        let mut i = 0;
        if self.line.place == Place::InName {
            i = self.scan_name(b);
            if i == b.len() && self.line.place == Place::InName {
                return;
            }
        }
        if self.line.place == Place::AfterColon {
            if i == b.len() {
                return;
            }
            if b[i] == b' ' {
                i += 1
            }
            self.begin_value();
        }
        let b = &b[i..];
        match self.line.field {
            Field::Data => self.data(b, off + i),
            Field::Event => {
                let f = &mut self.frame;
                let n = b.len().min(MAX_TEXT - f.length);
                f.name[f.length..f.length + n].copy_from_slice(&b[..n]);
                f.length += n;
                f.too_long |= n < b.len();
            }
            Field::Other => {}
        }
    }
    pub(crate) fn scan_name(&mut self, b: &[u8]) -> usize {
        let l = &mut self.line;
        if l.length == 0 && (l.bom == 0 || l.bom == 3) && b.len() >= 5 && &b[..5] == b"data:" {
            l.place = Place::AfterColon;
            l.field = Field::Data;
            l.bom = 3;
            return 5;
        }
        for (i, &c) in b.iter().enumerate() {
            if l.bom < 3 && c == BOM[l.bom] {
                l.bom += 1;
                continue;
            }
            if l.bom > 0 && l.bom < 3 {
                l.length = 6
            }
            l.bom = 3;
            if c == b':' {
                l.field = l.named();
                l.place = Place::AfterColon;
                return i + 1;
            }
            if l.length < 6 {
                l.name[l.length] = c;
                l.length += 1
            }
        }
        b.len()
    }
    pub(crate) fn begin_value(&mut self) {
        self.line.place = Place::InValue;
        match self.line.field {
            Field::Data => {
                if self.frame.data {
                    self.frame.begun = true;
                    if self.frame.marker {
                        self.frame.matched = -1
                    } else {
                        self.doc.scan(b"\n", 0)
                    }
                }
                self.frame.data = true;
            }
            Field::Event => {
                let f = &mut self.frame;
                f.named = true;
                f.length = 0;
                f.too_long = false
            }
            Field::Other => {}
        }
    }
    pub(crate) fn data(&mut self, b: &[u8], off: usize) {
        if b.is_empty() {
            return;
        }
        let at = off as isize - self.editor.start;
        let f = &mut self.frame;
        if !f.begun {
            f.begun = true;
            f.marker = b[0] == b'[';
            if !f.marker {
                self.doc.scan_first(b, at);
                return;
            }
        }
        if !f.marker {
            self.doc.scan(b, at);
            return;
        }
        if f.matched < 0
            || b.len() > DONE.len() - f.matched as usize
            || &DONE[f.matched as usize..f.matched as usize + b.len()] != b
        {
            f.matched = -1;
            return;
        }
        f.matched += b.len() as isize;
    }
    pub(crate) fn end_line(&mut self, chunk: &[u8], size: usize, end: usize) {
        let l = &mut self.line;
        if l.place == Place::InName {
            let half = l.bom > 0 && l.bom < 3;
            l.bom = 3;
            if l.length == 0 && !half {
                self.end_event(chunk, size, end);
                return;
            }
            if !half {
                l.field = l.named();
                l.place = Place::AfterColon
            }
        }
        if self.line.place == Place::AfterColon {
            self.begin_value()
        }
        let l = &mut self.line;
        l.place = Place::InName;
        l.field = Field::Other;
        l.length = 0;
    }
    pub(crate) fn end_event(&mut self, chunk: &[u8], size: usize, end: usize) {
        let mut e = Edit::KEEP;
        if self.frame.data {
            e = self.event();
            self.doc.reset()
        }
        self.frame = Frame::START;
        if self.editor.event(chunk, size, end, e) {
            self.doc.note(Anomaly::Oversize)
        }
        self.editor.returned = self.line.after_cr;
    }
    pub(crate) fn eof(&mut self, chunk: &[u8]) {
        if self.line.place != Place::InName || self.line.length > 0 {
            self.end_line(chunk, chunk.len(), chunk.len())
        }
        if self.frame.data {
            self.end_event(chunk, chunk.len(), chunk.len())
        }
        if self.failed {
            self.over = true
        }
    }
    pub(crate) fn event(&mut self) -> Edit {
        if self.frame.marker && self.frame.matched == DONE.len() as isize {
            if !matches!(self.opts.format, Format::Responses | Format::Messages) {
                self.done = true;
                self.over = true
            }
        } else if self.frame.marker {
            self.doc.note(Anomaly::Malformed)
        } else if self.doc.cursor.state == State::AtEnd {
            self.read = true;
            return self.settle();
        } else if self.doc.cursor.state != State::AtStart && self.doc.cursor.state != State::Broken
        {
            self.doc.note(Anomaly::Malformed)
        }
        Edit::KEEP
    }
}
