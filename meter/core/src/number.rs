//! A number or a literal, read in pieces.

use crate::usage::Anomaly;

#[derive(Clone, Copy)]
pub(crate) struct Number {
    v: i64,
    length: usize,
    literal: [u8; 4], // the first bytes
    negative: bool,
    fraction: bool, // a point or an exponent
    overflow: bool,
    other: bool, // not a number
}

impl Number {
    pub(crate) const NONE: Number = Number {
        v: 0,
        length: 0,
        literal: [0; 4],
        negative: false,
        fraction: false,
        overflow: false,
        other: false,
    };

    /// Takes the next bytes.
    pub(crate) fn add(&mut self, b: &[u8]) {
        for &c in b {
            if self.length < self.literal.len() {
                self.literal[self.length] = c;
            }
            match c {
                b'0'..=b'9' => {
                    let d = i64::from(c - b'0');
                    if self.v > (i64::MAX - d) / 10 {
                        self.overflow = true;
                    } else {
                        self.v = self.v * 10 + d;
                    }
                }
                b'-' if self.length == 0 => self.negative = true,
                b'.' | b'e' | b'E' | b'-' | b'+' if self.length > 0 => self.fraction = true,
                _ => self.other = true,
            }
            self.length += 1;
        }
    }

    /// Is it the literal null?
    pub(crate) fn null(&self) -> bool {
        self.length == 4 && &self.literal == b"null"
    }

    /// The number, or what is wrong with it.
    pub(crate) fn value(&self) -> Result<i64, Anomaly> {
        let leading_zero = self.length > 1 && self.literal[0] == b'0' && !self.fraction;
        if self.other || leading_zero {
            Err(Anomaly::WrongType)
        } else if self.negative {
            Err(Anomaly::Negative)
        } else if self.fraction {
            Err(Anomaly::Fractional)
        } else if self.overflow {
            Err(Anomaly::Overflow)
        } else {
            Ok(self.v)
        }
    }
}
