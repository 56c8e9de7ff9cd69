//! What a well-formed event said, and what is to be done with its bytes.

use crate::edit::{Edit, EditKind};
use crate::event::{event_named, Event};
use crate::meter::Meter;
use crate::reading::Reading;
use crate::usage::Format;

impl Meter {
    pub(crate) fn settle(&mut self) -> Edit {
        let r = self.doc.cursor.r;
        match self.opts.format {
            Format::Responses => {
                let name = self.name_of(&r);
                if name == Event::Delta {
                    self.count_text(&r)
                }
                let ends = matches!(name, Event::Completed | Event::Failed | Event::Error);
                if r.usage && !r.duplicate {
                    if ends {
                        self.conclude(&r.tally)
                    } else {
                        self.progress(&r.tally, 0)
                    }
                }
                if matches!(name, Event::Failed | Event::Error)
                    || r.failed
                    || r.status == Event::Failed
                {
                    self.failed = true;
                    self.over = true
                } else if name == Event::Completed {
                    self.done = true;
                    self.over = true
                }
                Edit::KEEP
            }
            Format::Messages => {
                self.count_text(&r);
                if r.usage && !r.duplicate {
                    if r.top_usage {
                        self.conclude(&r.tally)
                    } else {
                        self.progress(&r.tally, 0)
                    }
                }
                let name = self.name_of(&r);
                if name == Event::Error || r.failed {
                    self.failed = true;
                    self.over = true
                } else if name == Event::MessageStop {
                    self.done = true;
                    self.over = true
                }
                Edit::KEEP
            }
            _ => {
                self.count_text(&r);
                self.failed |= r.failed;
                self.aborted |= r.aborted;
                if !r.usage || r.duplicate {
                } else if r.choices == 0 {
                    self.conclude(&r.tally)
                } else {
                    self.progress(&r.tally, r.index)
                }
                self.edit_of(&r)
            }
        }
    }
    pub(crate) fn edit_of(&self, r: &Reading) -> Edit {
        if r.failed {
            return Edit::KEEP;
        }
        let mut e = Edit::KEEP;
        if r.usage && !r.duplicate {
            if r.choices > 0 && self.opts.strip_running {
                e = Edit {
                    kind: EditKind::Cut,
                    from: r.cut_from,
                    to: r.cut_to,
                    brace: 0,
                }
            } else if r.choices == 0 && self.opts.strip_final {
                return Edit {
                    kind: EditKind::Drop,
                    from: self.doc.stamp.from,
                    to: self.doc.stamp.to,
                    brace: 0,
                };
            }
        }
        if self.opts.strip_final && r.ended && self.doc.stamp.to == 0 {
            e.kind = EditKind::Wait;
            e.brace = self.doc.brace
        }
        e
    }
    pub(crate) fn name_of(&self, r: &Reading) -> Event {
        let f = &self.frame;
        if !f.named || f.too_long {
            return r.event;
        }
        let line = event_named(Some(&f.name[..f.length]));
        if r.event == Event::Unnamed || line == Event::Error {
            return line;
        }
        r.event
    }
    pub(crate) fn count_text(&mut self, r: &Reading) {
        let n = r.text_bytes();
        if n > 0 {
            self.text_bytes += n;
            self.deltas += 1
        }
    }
}
