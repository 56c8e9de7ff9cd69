//! Reads answers as frames on standard input and writes what goes on and the
//! report: the other half of the test that compares this meter with the one in
//! Go.
//!
//! With the word `errors` it reads error bodies instead, for the shape that clients
//! read: status, 1 for Anthropic's, and the body; the answer is the body, empty
//! where it stays.
//!
//! A frame is little-endian 32-bit words: flags (format in bits 0 to 2, then sse,
//! strip_final, strip_running, encoded), choices, prompts, number of chunks; then
//! each chunk as its length and its bytes. The answer is two of these: the bytes
//! to forward, and a line of numbers.
//!
//! With the word `records` it reads nothing and writes records of the link: each as
//! its line, and behind it as what stands in it.
#![forbid(unsafe_code)]

mod records;

use std::io::{self, BufReader, BufWriter, Read, Write};
use tollgate_meter_core::{reshape, Format, Meter, Options};

const FORMATS: [Format; 6] = [
    Format::Chat,
    Format::Completions,
    Format::Responses,
    Format::Messages,
    Format::Pooling,
    Format::Free,
];

fn main() -> io::Result<()> {
    let word_of = |n: usize| std::env::args().nth(n);
    if word_of(1).as_deref() == Some("records") {
        let number = |n: usize| word_of(n).and_then(|w| w.parse().ok()).unwrap_or(1);
        return records::write(&mut io::stdout().lock(), number(2), number(3));
    }
    let mut r = BufReader::new(io::stdin().lock());
    let mut w = BufWriter::new(io::stdout().lock());
    let errors = word_of(1).as_deref() == Some("errors");
    loop {
        let flags = match word(&mut r) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        };
        if errors {
            let ours = error(flags as u16, &mut r)?;
            blob(&mut w, &ours)?;
            w.flush()?;
            continue;
        }
        let (out, report) = answer(flags, &mut r)?;
        blob(&mut w, &out)?;
        blob(&mut w, report.as_bytes())?;
        w.flush()?;
    }
}

fn error(status: u16, r: &mut impl Read) -> io::Result<Vec<u8>> {
    let anthropic = word(r)? == 1;
    let mut body = vec![0; word(r)? as usize];
    r.read_exact(&mut body)?;
    Ok(reshape(anthropic, status, &body).unwrap_or_default())
}

fn answer(flags: u32, r: &mut impl Read) -> io::Result<(Vec<u8>, String)> {
    let choices = i64::from(word(r)?);
    let prompts = i64::from(word(r)?);
    let mut m = Meter::new(Options {
        format: FORMATS[(flags & 7) as usize],
        sse: flags & 8 != 0,
        choices,
        prompts,
        strip_final: flags & 16 != 0,
        strip_running: flags & 32 != 0,
        encoded: flags & 64 != 0,
    });
    let mut out = Vec::new();
    let chunks = word(r)?;
    for i in 0..chunks {
        let mut chunk = vec![0; word(r)? as usize];
        r.read_exact(&mut chunk)?;
        match m.feed(&chunk, i + 1 == chunks) {
            Some(forward) => out.extend_from_slice(forward),
            None => out.extend_from_slice(&chunk),
        }
    }
    let p = m.report();
    let c = p.counts;
    let line = format!(
        "{} {} {} {} {} {} {} {} {} {:?} {} {} {}",
        c.prompt,
        c.completion,
        c.cached,
        c.reasoning,
        u8::from(p.seen),
        u8::from(p.is_final),
        p.end as u8,
        p.text_bytes,
        p.deltas,
        p.anomalies,
        u8::from(m.ended()),
        u8::from(m.unread()),
        u8::from(m.follows()),
    );
    Ok((out, line))
}

fn word(r: &mut impl Read) -> io::Result<u32> {
    let mut b = [0; 4];
    r.read_exact(&mut b)?;
    Ok(u32::from_le_bytes(b))
}

fn blob(w: &mut impl Write, b: &[u8]) -> io::Result<()> {
    w.write_all(&(b.len() as u32).to_le_bytes())?;
    w.write_all(b)
}
