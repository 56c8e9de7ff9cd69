//! Records of the link, as odd as they may be.

use std::io::{self, Write};
use tollgate_meter_core::{Counts, End, Report};
use tollgate_meter_link::{Record, Why};

/// A generator of numbers that needs no crate.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// A count: often small, now and then the largest one.
    fn count(&mut self, least: i64) -> i64 {
        match self.below(8) {
            0 => least,
            1 => i64::MAX,
            _ => (self.next() >> self.below(63) >> 1) as i64,
        }
    }

    fn text(&mut self) -> Vec<u8> {
        let size = self.below(40) * self.below(8);
        (0..size).map(|_| self.next() as u8).collect()
    }
}

const WHY: [(Why, &str); 8] = [
    (Why::End, "end"),
    (Why::Gone, "gone"),
    (Why::Refused, "refused"),
    (Why::Local, "local"),
    (Why::Cut, "cut"),
    (Why::Quota, "quota"),
    (Why::Unreadable, "unreadable"),
    (Why::Panic, "panic"),
];

const END: [End; 4] = [End::Open, End::Done, End::Failed, End::EngineAborted];

/// Writes some records: the line, and in a second one why, the number of the end, the
/// status, the counts, four bits, the sizes, the anomalies, the times, the flags, and the
/// two texts as hex digits behind an x.
pub fn write(w: &mut impl Write, seed: u64, count: u64) -> io::Result<()> {
    let mut r = Random(seed | 1);
    for i in 0..count {
        let lease = format!("lease-{i}");
        let (details, engine) = (r.text(), r.text());
        let (why, word) = WHY[r.below(8) as usize];
        let end = END[r.below(4) as usize];
        let bits: [bool; 4] = std::array::from_fn(|_| r.below(2) == 0);
        let record = Record {
            lease: &lease,
            why,
            status: r.below(600) as u16,
            report: Report {
                counts: Counts {
                    prompt: r.count(-1),
                    completion: r.count(-1),
                    cached: r.count(-1),
                    reasoning: r.count(-1),
                },
                seen: bits[0],
                is_final: bits[1],
                end,
                text_bytes: r.count(0),
                deltas: r.count(0),
                anomalies: std::array::from_fn(|_| r.next() as u32),
            },
            encoded: bits[2],
            unread: bits[3],
            bytes: r.count(0),
            first_us: r.count(-1) >> 12,
            last_us: r.count(0) >> 12,
            flags: r.count(0) as u64,
            details: &details,
            engine: &engine,
        };
        w.write_all(record.line().as_bytes())?;
        let (p, c) = (&record.report, &record.report.counts);
        let hex = |text: &[u8]| -> String {
            let text = &text[..text.len().min(200)];
            text.iter().map(|b| format!("{b:02x}")).collect()
        };
        writeln!(
            w,
            "{lease} {word} {} {} {} {} {} {} {bits:?} {} {} {} {:?} {} {} {} x{} x{}",
            end as u8,
            record.status,
            c.prompt,
            c.completion,
            c.cached,
            c.reasoning,
            p.text_bytes,
            p.deltas,
            record.bytes,
            p.anomalies,
            record.first_us,
            record.last_us,
            record.flags,
            hex(&details),
            hex(&engine),
        )?;
    }
    Ok(())
}
