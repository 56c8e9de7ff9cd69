//! What tollgate says of a request before its answer comes.

use crate::line::count;
use tollgate_meter_core::Format;

/// The most choices that one request can have.
const MAX_CHOICES: i64 = 1 << 20;

/// Who meters the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// ext_proc does: hands off.
    HandsOff,
    /// This meter, on these terms.
    Meter(Terms),
}

/// What the meter must know of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    pub format: Format,
    pub choices: i64,
    pub prompts: i64,
    pub strip_final: bool,
    pub strip_running: bool,
    /// The request asked for bytes: application/octet-stream is an answer.
    pub binary: bool,
    /// Its client expects errors in Anthropic's shape.
    pub anthropic: bool,
    /// None: the answer needs no watch over the key's quota.
    pub quota: Option<Quota>,
}

/// What a request holds of its key's quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Tokens that it holds in all, those of the prompt included.
    pub allowance: i64,
    /// Tokens of the prompt where the answer does not say them.
    pub prompt: i64,
}

impl Plan {
    /// Reads a plan; none where it is not one.
    pub fn parse(text: &[u8]) -> Option<Plan> {
        let mut words = std::str::from_utf8(text).ok()?.split(' ');
        match words.next()? {
            "0" => return Some(Plan::HandsOff),
            "1" => {}
            _ => return None,
        }
        let format = match words.next()? {
            "chat" => Format::Chat,
            "completions" => Format::Completions,
            "responses" => Format::Responses,
            "messages" => Format::Messages,
            "pooling" => Format::Pooling,
            "free" => Format::Free,
            _ => return None,
        };
        let (choices, prompts) = (count(words.next()?)?, count(words.next()?)?);
        if !(1..=MAX_CHOICES).contains(&choices) || !(1..=choices).contains(&prompts) {
            return None;
        }
        let flags = words.next()?;
        let quota = match (words.next()?, words.next()?) {
            ("-", "-") => None,
            (allowance, prompt) => Some(Quota {
                allowance: count(allowance)?,
                prompt: count(prompt)?,
            }),
        };
        Some(Plan::Meter(Terms {
            format,
            choices,
            prompts,
            strip_final: flags.contains('f'),
            strip_running: flags.contains('r'),
            binary: flags.contains('b'),
            anthropic: flags.contains('a'),
            quota,
        }))
    }
}

/// The changes to an answer's headers: a name and what it is set to, or none
/// where it is removed.
pub fn headers(text: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    let lines = text.split(|c| *c == b'\n').filter(|l| !l.is_empty());
    lines.map(|l| match l.windows(2).position(|w| w == b": ") {
        Some(at) => (&l[..at], Some(&l[at + 2..])),
        None => (l, None),
    })
}
