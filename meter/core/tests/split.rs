//! Whatever an answer is and however it is cut, the meter takes it, and forwards
//! and reports the same.
//!
//! The answers are those recorded from vLLM, damaged. METER_FUZZ_SECONDS says how
//! long (3), METER_FUZZ_SEED which ones.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tollgate_meter_core::{reshape, Format, Meter, Options, Report};

/// A generator of numbers that needs no crate.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// Pieces that matter to a meter.
const WORDS: [&str; 28] = [
    "\n\n",
    "\r\n",
    "\r",
    "data: ",
    "data:",
    "event: error\n",
    "[DONE]",
    "{",
    "}",
    "\"usage\":",
    "\"choices\":[",
    "\"index\":",
    "\"prompt_tokens\":",
    "\"completion_tokens\":",
    "\"system_fingerprint\":\"f\"",
    "\"finish_reason\":\"stop\"",
    "\"finish_reason\":\"abort\"",
    "null",
    "9223372036854775807",
    "-1",
    "1.5",
    "\\u0041",
    "\\ud83d\\ude00",
    "\"",
    "\\",
    "\u{feff}",
    ":",
    ",",
];

fn seeds() -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../internal/usage/testdata");
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the recorded answers") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "resp") {
                let raw = fs::read(path).expect("an answer");
                let body = raw.windows(4).position(|w| w == b"\r\n\r\n");
                found.push(raw[body.map_or(0, |at| at + 4)..].to_vec());
            }
        }
    }
    assert!(
        found.len() > 10,
        "there are {} recorded answers",
        found.len()
    );
    found
}

/// One answer, damaged.
fn damaged(r: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut body = r.one(seeds).clone();
    body.truncate(1 + r.below(20_000));
    for _ in 0..r.below(12) {
        let (a, b) = (r.below(body.len()), r.below(body.len()));
        let (from, to) = (a.min(b), a.max(b).min(a.min(b) + 300));
        match r.below(5) {
            0 if !body.is_empty() => body[from] = r.next() as u8,
            1 => {
                body.drain(from..to);
            }
            2 => {
                let again = body[from..to].to_vec();
                body.splice(to..to, again);
            }
            3 => {
                let other = r.one(seeds);
                let at = r.below(other.len());
                let piece = other[at..(at + r.below(400)).min(other.len())].to_vec();
                body.splice(from..to, piece);
            }
            _ => {
                body.splice(from..from, r.one(&WORDS).bytes());
            }
        }
    }
    body
}

fn options(r: &mut Random) -> Options {
    const FORMATS: [Format; 6] = [
        Format::Chat,
        Format::Completions,
        Format::Responses,
        Format::Messages,
        Format::Pooling,
        Format::Free,
    ];
    let bits = r.next();
    Options {
        format: *r.one(&FORMATS),
        sse: bits & 3 != 0,
        choices: *r.one(&[0, 1, 2, 3, 6]),
        prompts: *r.one(&[0, 1, 2, 3]),
        strip_final: bits & 4 != 0,
        strip_running: bits & 8 != 0,
        encoded: bits & 0xff0 == 0,
    }
}

/// What a meter forwards and says of a body that comes in such pieces.
fn feed(o: Options, body: &[u8], mut size: impl FnMut() -> usize) -> (Vec<u8>, Report, [bool; 3]) {
    let (mut meter, mut out, mut rest) = (Meter::new(o), Vec::new(), body);
    loop {
        let (piece, behind) = rest.split_at(size().clamp(1, rest.len().max(1)).min(rest.len()));
        rest = behind;
        let last = rest.is_empty();
        out.extend_from_slice(meter.feed(piece, last).unwrap_or(piece));
        if last {
            let said = [meter.ended(), meter.unread(), meter.follows()];
            return (out, meter.report(), said);
        }
    }
}

#[test]
fn answers_do_not_depend_on_how_they_are_cut() {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let time = Duration::from_secs(number("METER_FUZZ_SECONDS").unwrap_or(3));
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seed = number("METER_FUZZ_SEED").unwrap_or(now.map_or(1, |d| d.as_nanos() as u64) | 1);
    let (mut r, seeds, start) = (Random(seed), seeds(), Instant::now());
    let (mut answers, mut changed, mut counted) = (0, 0, 0);
    while start.elapsed() < time {
        let (o, body) = (options(&mut r), damaged(&mut r, &seeds));
        let whole = feed(o, &body, || usize::MAX);
        let most = *r.one(&[1, 3, 40, 2000]);
        let pieces = feed(o, &body, || 1 + r.below(most));
        assert!(
            whole == pieces,
            "METER_FUZZ_SEED={seed}, answer {answers}: {o:?} {:?}\n{:?}\n{:?}",
            String::from_utf8_lossy(&body),
            whole,
            pieces,
        );
        assert!(o.sse || whole.0 == body, "a JSON body must pass as it is");
        let _ = reshape(o.sse, 404, &body[..body.len().min(4096)]);
        answers += 1;
        changed += usize::from(whole.0 != body);
        counted += usize::from(whole.1.seen);
    }
    println!("seed {seed}: {answers} answers, {changed} stripped, {counted} with usage");
    assert!(changed > answers / 100 && counted > answers / 20);
}
