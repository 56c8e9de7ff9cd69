//! Strings: keys and names are kept, of a model's text only the length.

use crate::document::{quote_or_escape, Document, State, MAX_TEXT};
use crate::shape::*;

impl Document {
    pub(crate) fn begin_string(&mut self) {
        let c = &mut self.cursor;
        c.state = State::InString;
        c.length = 0;
        c.too_long = false;
        c.high = false;
        if c.node != UNREAD && SHAPES[c.node as usize].kind != Kind::Str {
            self.mistyped()
        }
    }
    pub(crate) fn scan_string(&mut self, b: &[u8], i: usize) -> usize {
        if self.cursor.escape != 0 {
            self.unescape(b[i]);
            return i + 1;
        }
        let j = quote_or_escape(b, i);
        if j > i {
            self.cursor.high = false;
            self.put(&b[i..j], (j - i) as i64)
        }
        if j == b.len() {
            return j;
        }
        if b[j] == b'\\' {
            self.cursor.escape = 1;
            return j + 1;
        }
        match self.cursor.state {
            State::InKey => {
                let t = self.cursor.text;
                let n = self.cursor.length;
                let long = self.cursor.too_long;
                self.keyed(if long { None } else { Some(&t[..n]) })
            }
            State::InSkipString => self.cursor.state = State::InSkip,
            _ => {
                self.string_read();
                self.value_read()
            }
        }
        j + 1
    }
    pub(crate) fn put(&mut self, b: &[u8], size: i64) {
        let c = &mut self.cursor;
        if c.state == State::InSkipString {
            return;
        }
        if c.state == State::InString {
            let s = &SHAPES[c.node as usize];
            if s.text > 0 {
                c.r.text[(s.text - 1) as usize] += size;
                return;
            }
            if s.kind != Kind::Str {
                return;
            }
        }
        let n = b.len().min(MAX_TEXT - c.length);
        c.text[c.length..c.length + n].copy_from_slice(&b[..n]);
        c.length += n;
        if n < b.len() {
            c.too_long = true
        }
    }
    pub(crate) fn unescape(&mut self, ch: u8) {
        if self.cursor.escape == 1 {
            if ch == b'u' {
                self.cursor.escape = 2;
                self.cursor.unit = 0;
                return;
            }
            self.cursor.escape = 0;
            let one = [match ch {
                b'n' => b'\n',
                b't' => b'\t',
                b'r' => b'\r',
                b'b' => 8,
                b'f' => 12,
                c => c,
            }];
            self.cursor.high = false;
            self.put(&one, 1);
            return;
        }
        let d = match ch {
            b'0'..=b'9' => ch - b'0',
            b'a'..=b'f' => ch - b'a' + 10,
            b'A'..=b'F' => ch - b'A' + 10,
            _ => 0,
        };
        self.cursor.unit = self.cursor.unit << 4 | d as u16;
        if self.cursor.escape < 5 {
            self.cursor.escape += 1;
            return;
        }
        self.cursor.escape = 0;
        let u = self.cursor.unit as u32;
        if (0xd800..0xdc00).contains(&u) {
            self.put(b"\xef\xbf\xbd", 3);
            self.cursor.high = true
        } else if (0xdc00..0xe000).contains(&u) && self.cursor.high {
            self.put(b"\xbd", 1);
            self.cursor.high = false
        } else {
            let mut enc = [0; 4];
            let s = char::from_u32(u)
                .unwrap_or('\u{fffd}')
                .encode_utf8(&mut enc)
                .len();
            self.put(&enc[..s], s as i64);
            self.cursor.high = false;
        }
    }
}
