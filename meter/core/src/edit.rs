//! Removes from an event stream what the client did not ask for.

/// The largest event, in bytes, that is held for a strip. Larger ones pass as
/// they are.
const MAX_EVENT: isize = 1 << 20;

/// What is done with the bytes of an event.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum EditKind {
    Keep,
    /// All of them go.
    Drop,
    /// Some of them go.
    Cut,
    /// Some may go, the others wait until the next event is known.
    Wait,
}

/// What is done with the bytes of an event. Its places are in the event.
#[derive(Clone, Copy)]
pub(crate) struct Edit {
    pub(crate) kind: EditKind,
    /// `from` and `to` enclose the bytes that go. Where the whole event is
    /// dropped, they enclose the member that the event that waits gets of it;
    /// none when equal.
    pub(crate) from: isize,
    pub(crate) to: isize,
    /// What closes the JSON of an event that waits.
    pub(crate) brace: isize,
}

impl Edit {
    pub(crate) const KEEP: Edit = Edit {
        kind: EditKind::Keep,
        from: 0,
        to: 0,
        brace: 0,
    };
}

/// Decides which bytes of an event stream go on. While it is off, all do.
pub(crate) struct Editor {
    on: bool,
    /// The event that began in an earlier chunk.
    held: Vec<u8>,
    /// The event before it, edited, where that waits.
    waiting: Vec<u8>,
    /// What closes the JSON of that.
    brace: usize,
    /// What goes on, where that is not the chunk itself.
    pub(crate) out: Vec<u8>,
    /// Where the event begins in the chunk; negative when it is held.
    pub(crate) start: isize,
    /// Bytes of the chunk that are in `out` or dropped.
    passed: usize,
    pub(crate) changed: bool,
    /// The event passes without being held.
    too_large: bool,
    /// The last event was dropped.
    dropped: bool,
    /// It ended with a carriage return at the chunk's end.
    pub(crate) returned: bool,
}

impl Editor {
    pub(crate) fn new(on: bool) -> Editor {
        Editor {
            on,
            held: Vec::new(),
            waiting: Vec::new(),
            brace: 0,
            out: Vec::new(),
            start: 0,
            passed: 0,
            changed: false,
            too_large: false,
            dropped: false,
            returned: false,
        }
    }

    pub(crate) fn begin(&mut self) {
        self.out.clear();
        self.passed = 0;
        self.start = -(self.held.len() as isize);
        self.changed = !self.held.is_empty();
    }
    pub(crate) fn line_feed(&mut self, chunk: &[u8]) {
        if !self.on || !self.returned {
            return;
        }
        self.start = 1;
        if !self.waiting.is_empty() {
            self.waiting.push(b'\n')
        } else if !self.dropped {
            return;
        }
        self.flush(chunk, 0);
        self.passed = 1;
    }
    pub(crate) fn flush(&mut self, chunk: &[u8], to: usize) {
        self.changed = true;
        if to > self.passed {
            self.out.extend_from_slice(&chunk[self.passed..to]);
            self.passed = to
        }
    }
    pub(crate) fn event(&mut self, chunk: &[u8], size: usize, end: usize, mut ed: Edit) -> bool {
        let start = self.start;
        self.start = end as isize;
        self.dropped = false;
        if !self.on {
            return false;
        }
        if self.too_large {
            self.too_large = false;
            return false;
        }
        let too_large = size as isize - start > MAX_EVENT;
        if too_large {
            ed = Edit::KEEP
        }
        self.release(chunk, start, ed);
        if ed.kind == EditKind::Keep {
            let h = std::mem::take(&mut self.held);
            self.out.extend_from_slice(&h);
            self.held = h;
            self.held.clear();
            return too_large;
        }
        self.flush(chunk, start.max(0) as usize);
        let at = self.out.len();
        let len = end as isize - start;
        match ed.kind {
            EditKind::Drop => self.dropped = true,
            EditKind::Cut => {
                append_part(&mut self.out, &self.held, chunk, start, 0, len);
                self.out.drain(at + ed.from as usize..at + ed.to as usize);
            }
            EditKind::Wait => {
                append_part(&mut self.waiting, &self.held, chunk, start, 0, len);
                self.waiting.drain(ed.from as usize..ed.to as usize);
                self.brace = (ed.brace - (ed.to - ed.from)) as usize;
            }
            EditKind::Keep => {}
        }
        self.passed = end;
        self.held.clear();
        too_large
    }
    pub(crate) fn release(&mut self, chunk: &[u8], start: isize, ed: Edit) {
        if self.waiting.is_empty() {
            return;
        }
        self.changed = true;
        self.out.extend_from_slice(&self.waiting[..self.brace]);
        if ed.kind == EditKind::Drop && ed.from < ed.to {
            let at = self.out.len();
            append_part(&mut self.out, &self.held, chunk, start, ed.from, ed.to);
            if self.out[at] != b',' {
                self.out.insert(at, b',')
            }
        }
        self.out.extend_from_slice(&self.waiting[self.brace..]);
        self.waiting.clear();
    }
    pub(crate) fn end(&mut self, chunk: &[u8], last: bool) -> bool {
        let mut too_large = false;
        let rest = chunk.len() as isize - self.start;
        if !self.on || self.too_large {
        } else if last || rest > MAX_EVENT {
            too_large = rest > MAX_EVENT;
            self.too_large = too_large;
            self.release(chunk, self.start, Edit::KEEP);
            if self.start < 0 {
                let h = std::mem::take(&mut self.held);
                self.out.extend_from_slice(&h);
                self.held = h
            }
            self.held.clear();
        } else if self.start < chunk.len() as isize {
            let s = self.start.max(0) as usize;
            self.flush(chunk, s);
            self.held.extend_from_slice(&chunk[s..]);
            self.passed = chunk.len();
        }
        if self.changed {
            self.flush(chunk, chunk.len())
        }
        too_large
    }
}
fn append_part(
    b: &mut Vec<u8>,
    held: &[u8],
    chunk: &[u8],
    mut start: isize,
    mut from: isize,
    mut to: isize,
) {
    if start < 0 {
        let n = -start;
        b.extend_from_slice(&held[from.min(n) as usize..to.min(n) as usize]);
        from = (from - n).max(0);
        to = (to - n).max(0);
        start = 0;
    }
    b.extend_from_slice(&chunk[(start + from) as usize..(start + to) as usize]);
}

/// Writes `with` over the end of the pieces of a body. The first `skip` bytes of the
/// body are left as they are, and behind them there is room for `with` and nothing
/// else.
pub fn overwrite<'a>(
    pieces: impl IntoIterator<Item = &'a mut [u8]>,
    mut skip: usize,
    mut with: &[u8],
) {
    for piece in pieces {
        let skipped = skip.min(piece.len());
        skip -= skipped;
        let room = &mut piece[skipped..];
        let (now, later) = with.split_at(with.len().min(room.len()));
        room[..now.len()].copy_from_slice(now);
        with = later;
    }
}
