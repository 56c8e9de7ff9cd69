//! The lines of the link: words separated by one space, see docs/meter-link.md.

use tollgate_meter_core::{End, Report};

/// The longest line, in bytes, its end included.
pub const MAX_LINE: usize = 4096;

/// The longest text in a line, in bytes, before it is escaped.
const MAX_TEXT: usize = 200;

/// The longest lease.
const MAX_LEASE: usize = 64;

/// Why a stream's record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The answer's own bytes have ended it, or its body has.
    End,
    /// It was torn down before its end.
    Gone,
    /// The engine answered with an error.
    Refused,
    /// Envoy answered itself.
    Local,
    /// tollgate wanted it cut.
    Cut,
    /// Nothing was left of the key's quota.
    Quota,
    /// An answer that nobody can read, kept from the client.
    Unreadable,
    /// The meter broke.
    Panic,
}

impl Why {
    fn word(self) -> &'static str {
        match self {
            Why::End => "end",
            Why::Gone => "gone",
            Why::Refused => "refused",
            Why::Local => "local",
            Why::Cut => "cut",
            Why::Quota => "quota",
            Why::Unreadable => "unreadable",
            Why::Panic => "panic",
        }
    }
}

/// A stream's end as it goes on record.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    pub lease: &'a str,
    pub why: Why,
    /// The status that the client got, 0 when it got none.
    pub status: u16,
    pub report: Report,
    /// The body has a content coding, or begins like one.
    pub encoded: bool,
    /// Nobody could read the body: its tokens are guessed from its size.
    pub unread: bool,
    /// Bytes of the answer's body that passed.
    pub bytes: i64,
    /// Microseconds from the request's headers to the first byte of the answer's
    /// body, -1 when none came.
    pub first_us: i64,
    /// Microseconds from the request's headers to the end.
    pub last_us: i64,
    /// Envoy's response flags.
    pub flags: u64,
    /// Envoy's response code details.
    pub details: &'a [u8],
    /// The address of the engine.
    pub engine: &'a [u8],
}

impl Record<'_> {
    /// The record's line, with its end.
    pub fn line(&self) -> String {
        let r = &self.report;
        let mut w = Words::new("e", self.lease);
        w.text(self.why.word());
        w.text(match r.end {
            End::Open => "open",
            End::Done => "done",
            End::Failed => "failed",
            End::EngineAborted => "engine_abort",
        });
        w.number(i64::from(self.status));
        let c = &r.counts;
        for n in [c.prompt, c.completion, c.cached, c.reasoning] {
            w.number(n);
        }
        w.text(&self.bits());
        for n in [r.text_bytes, r.deltas, self.bytes] {
            w.number(n);
        }
        let anomalies: Vec<String> = r.anomalies.iter().map(u32::to_string).collect();
        w.text(&anomalies.join(","));
        w.number(self.first_us);
        w.number(self.last_us);
        w.number(self.flags.min(i64::MAX as u64) as i64);
        w.escaped(self.details);
        w.escaped(self.engine);
        w.end()
    }

    fn bits(&self) -> String {
        let r = &self.report;
        let bits = [
            (r.seen, 'S'),
            (r.is_final, 'F'),
            (self.encoded, 'E'),
            (self.unread, 'U'),
        ];
        let said: String = bits.iter().filter(|b| b.0).map(|b| b.1).collect();
        if said.is_empty() {
            return "-".into();
        }
        said
    }
}

/// A line that is being written.
pub(crate) struct Words(String);

impl Words {
    pub(crate) fn new(verb: &str, first: &str) -> Words {
        let mut w = Words(String::with_capacity(160));
        w.0.push_str(verb);
        w.text(first);
        w
    }

    pub(crate) fn text(&mut self, s: &str) {
        self.0.push(' ');
        self.0.push_str(s);
    }

    pub(crate) fn number(&mut self, n: i64) {
        self.0.push(' ');
        push_number(&mut self.0, n);
    }

    fn escaped(&mut self, b: &[u8]) {
        self.0.push(' ');
        escape(&mut self.0, b);
    }

    pub(crate) fn end(mut self) -> String {
        self.0.push('\n');
        self.0
    }
}

/// Appends a number. Ten thousand live streams write six of them four times a
/// second each, so it goes without the machinery of formatting.
pub(crate) fn push_number(out: &mut String, n: i64) {
    if n < 0 {
        out.push('-');
    }
    let mut digits = [0u8; 20];
    let (mut at, mut rest) = (digits.len(), n.unsigned_abs());
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend(digits[at..].iter().map(|d| char::from(*d)));
}

/// Appends a text as one word: what is not printable ASCII, and `%`, as `%XX`;
/// nothing as `-`. A longer text is cut.
pub fn escape(out: &mut String, text: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let text = &text[..text.len().min(MAX_TEXT)];
    match text {
        b"" => return out.push('-'),
        b"-" => return out.push_str("%2D"),
        _ => {}
    }
    for &c in text {
        if c.is_ascii_graphic() && c != b'%' {
            out.push(char::from(c));
            continue;
        }
        out.push('%');
        out.push(char::from(HEX[usize::from(c >> 4)]));
        out.push(char::from(HEX[usize::from(c & 15)]));
    }
}

/// Is it a lease as the link carries it?
pub fn valid_lease(lease: &str) -> bool {
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || c == b'-';
    lease != "-" && (1..=MAX_LEASE).contains(&lease.len()) && lease.bytes().all(word)
}

/// What tollgate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// The protocol's version is served.
    Welcome,
    /// It is not.
    Bye,
    /// The record of the lease is on disk: forget it.
    Ack(&'a str),
    /// Cut the stream.
    Cut(&'a str),
    /// The stream may use `total` tokens in all, none = no bound any more, as the
    /// answer to a question about `asked` tokens, 0 = unasked.
    Grant {
        lease: &'a str,
        total: Option<i64>,
        asked: i64,
    },
    /// Send what has changed.
    Poll,
    /// A verb of another version.
    Unknown,
    /// A known verb without the words that it needs.
    Malformed,
}

impl Command<'_> {
    /// Reads a line, without its end.
    pub fn parse(line: &[u8]) -> Command<'_> {
        let Ok(line) = std::str::from_utf8(line) else {
            return Command::Malformed;
        };
        let mut words = line.split(' ');
        let verb = words.next().unwrap_or_default();
        let mut lease = || words.next().filter(|w| valid_lease(w));
        match verb {
            "welcome" => match words.next() {
                Some("1") => Command::Welcome,
                _ => Command::Malformed,
            },
            "bye" => Command::Bye,
            "p" => Command::Poll,
            "a" => lease().map_or(Command::Malformed, Command::Ack),
            "c" => lease().map_or(Command::Malformed, Command::Cut),
            "g" => grant(words).unwrap_or(Command::Malformed),
            _ => Command::Unknown,
        }
    }
}

fn grant<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<Command<'a>> {
    let lease = words.next().filter(|w| valid_lease(w))?;
    let total = match words.next()? {
        "-" => None,
        n => Some(count(n)?),
    };
    let asked = count(words.next()?)?;
    Some(Command::Grant {
        lease,
        total,
        asked,
    })
}

/// A number that is not negative.
pub(crate) fn count(word: &str) -> Option<i64> {
    let digits = !word.is_empty() && word.bytes().all(|c| c.is_ascii_digit());
    digits.then(|| word.parse().ok()).flatten()
}
