//! How the data of an event began, up to its first text, and where reading
//! stood then. The events of a stream mostly begin alike, and the same bytes
//! lead to the same place: they need not be read again.

use crate::document::{Cursor, Document};

/// The longest beginning, in bytes, that is remembered.
const MAX_MEMO: usize = 512;

pub(crate) struct Memo {
    /// The next beginning is to be remembered.
    pub(crate) wanted: bool,
    /// The place of `begin` in its event.
    base: isize,
    begin: Vec<u8>,
    cursor: Cursor,
}

impl Memo {
    pub(crate) fn new() -> Memo {
        Memo {
            wanted: false,
            base: 0,
            begin: Vec::new(),
            cursor: Cursor::START,
        }
    }
}

impl Document {
    /// `scan` for the first bytes of an event's data.
    pub(crate) fn scan_first(&mut self, b: &[u8], base: isize) {
        let m = &self.memo;
        if !m.begin.is_empty() && base == m.base && b.starts_with(&m.begin) {
            let n = m.begin.len();
            self.cursor = m.cursor;
            self.scan(&b[n..], base + n as isize);
            return;
        }
        self.memo.wanted = true;
        self.scan(b, base);
        self.memo.wanted = false;
    }

    /// Remembers the beginning of the data, where it is worth it: not when it is
    /// long, when it had anomalies, which have to be counted each time, and when
    /// it had a fingerprint, whose place the cursor does not have.
    pub(crate) fn memorize(&mut self, begin: &[u8], base: isize) {
        let m = &mut self.memo;
        m.wanted = false;
        if begin.len() > MAX_MEMO || self.cursor.noted || self.stamp.to > 0 {
            return;
        }
        m.base = base;
        m.begin.clear();
        m.begin.extend_from_slice(begin);
        m.cursor = self.cursor;
    }
}
