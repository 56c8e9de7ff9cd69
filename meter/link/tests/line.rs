//! The lines: what is written can be read, and nothing that is read can break us.

mod rig;

use rig::{line_of, record};
use tollgate_meter_core::Format;
use tollgate_meter_link::{escape, headers, valid_lease, Command, Plan, Quota, Terms, MAX_LINE};

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
        (self.next() % n as u64) as usize
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most)).map(|_| self.next() as u8).collect()
    }
}

#[test]
fn a_record_is_the_line_of_the_page() {
    assert_eq!(record("one").line(), line_of("one") + "\n");
}

#[test]
fn every_record_is_one_line_of_nineteen_words() {
    let mut r = Random(7);
    for _ in 0..20_000 {
        let (details, engine) = (r.bytes(300), r.bytes(300));
        let mut rec = record("a-lease");
        rec.details = &details;
        rec.engine = &engine;
        rec.bytes = r.next() as i64;
        rec.flags = r.next();
        rec.report.counts.prompt = i64::MIN + r.below(9) as i64;
        rec.report.anomalies = [u32::MAX; 9];
        let line = rec.line();
        assert!(line.len() <= MAX_LINE && line.is_ascii() && line.ends_with('\n'));
        let words: Vec<_> = line.trim_end_matches('\n').split(' ').collect();
        assert_eq!(words.len(), 19, "{line}");
        assert!(words.iter().all(|w| !w.is_empty()));
        for (word, text) in [(words[17], &details), (words[18], &engine)] {
            assert_eq!(unescape(word), text[..text.len().min(200)]);
        }
    }
}

/// Reads a word back as the other side does.
fn unescape(word: &str) -> Vec<u8> {
    if word == "-" {
        return Vec::new();
    }
    let (b, mut out, mut i) = (word.as_bytes(), Vec::new(), 0);
    while i < b.len() {
        if b[i] == b'%' {
            out.push(u8::from_str_radix(&word[i + 1..i + 3], 16).expect("two hex digits"));
            i += 3;
        } else {
            out.push(b[i]);
            i += 1;
        }
    }
    out
}

#[test]
fn texts_are_one_word() {
    for (text, want) in [
        (&b""[..], "-"),
        (b"-", "%2D"),
        (b"--", "--"),
        (b"a b", "a%20b"),
        (b"100%", "100%25"),
        (b"\n\xff\x00", "%0A%FF%00"),
    ] {
        let mut word = String::new();
        escape(&mut word, text);
        assert_eq!(word, want);
    }
}

#[test]
fn commands_are_read() {
    let grant = |total, asked| Command::Grant {
        lease: "one",
        total,
        asked,
    };
    for (line, want) in [
        ("welcome 1", Command::Welcome),
        ("welcome 1 and more", Command::Welcome),
        ("welcome 2", Command::Malformed),
        ("welcome", Command::Malformed),
        ("bye", Command::Bye),
        ("bye too%20old", Command::Bye),
        ("a one", Command::Ack("one")),
        ("a one more", Command::Ack("one")),
        ("a", Command::Malformed),
        ("a ", Command::Malformed),
        ("a -", Command::Malformed),
        ("a  one", Command::Malformed),
        ("a on/e", Command::Malformed),
        ("c one", Command::Cut("one")),
        ("c", Command::Malformed),
        ("g one 300 101", grant(Some(300), 101)),
        ("g one - 0", grant(None, 0)),
        ("g one 300", Command::Malformed),
        ("g one -1 0", Command::Malformed),
        ("g one +1 0", Command::Malformed),
        ("g one 9223372036854775808 0", Command::Malformed),
        ("p", Command::Poll),
        ("p now", Command::Poll),
        ("", Command::Unknown),
        ("A one", Command::Unknown),
        ("s one r 1 2 3", Command::Unknown),
    ] {
        assert_eq!(Command::parse(line.as_bytes()), want, "{line:?}");
    }
    assert_eq!(Command::parse(b"a \xff"), Command::Malformed);
}

#[test]
fn nothing_that_is_read_breaks_us() {
    let mut r = Random(11);
    let words = [
        "a", "c", "g", "p", "bye", "welcome", "1", "-", "0", " ", "one", "plan",
    ];
    for _ in 0..200_000 {
        let mut line = Vec::new();
        for _ in 0..r.below(6) {
            line.extend_from_slice(words[r.below(words.len())].as_bytes());
            line.push(b' ');
        }
        line.extend(r.bytes(8));
        if let Command::Ack(lease) | Command::Cut(lease) | Command::Grant { lease, .. } =
            Command::parse(&line)
        {
            assert!(valid_lease(lease));
        }
        if let Some(Plan::Meter(t)) = Plan::parse(&line) {
            assert!(t.prompts >= 1 && t.prompts <= t.choices && t.choices <= 1 << 20);
        }
        assert!(headers(&line).all(|(name, _)| !name.contains(&b'\n')));
    }
}

#[test]
fn leases() {
    let longest = "x".repeat(64);
    for good in ["a", "01a214b95fed384560688c87945b9521", "a-b_C9", &longest] {
        assert!(valid_lease(good), "{good}");
    }
    let long = "x".repeat(65);
    for bad in ["", "-", "a b", "a\n", "ä", &long] {
        assert!(!valid_lease(bad), "{bad}");
    }
}

#[test]
fn plans() {
    let terms = Terms {
        format: Format::Chat,
        choices: 6,
        prompts: 2,
        strip_final: true,
        strip_running: true,
        binary: false,
        anthropic: false,
        quota: None,
    };
    let meter = |t| Some(Plan::Meter(t));
    for (text, want) in [
        ("0", Some(Plan::HandsOff)),
        ("1 chat 6 2 fr - -", meter(terms)),
        ("1 chat 6 2 frz - - more", meter(terms)),
        (
            "1 pooling 1 1 ba 300 7",
            meter(Terms {
                format: Format::Pooling,
                choices: 1,
                prompts: 1,
                strip_final: false,
                strip_running: false,
                binary: true,
                anthropic: true,
                quota: Some(Quota {
                    allowance: 300,
                    prompt: 7,
                }),
            }),
        ),
        ("", None),
        ("2 chat 6 2 fr - -", None),
        ("1 talk 6 2 fr - -", None),
        ("1 chat 0 0 fr - -", None),
        ("1 chat 2 3 fr - -", None),
        ("1 chat 1048577 1 fr - -", None),
        ("1 chat 6 2 fr", None),
        ("1 chat 6 2 fr 300 -", None),
        ("1 chat -6 2 fr - -", None),
    ] {
        assert_eq!(Plan::parse(text.as_bytes()), want, "{text}");
    }
}

#[test]
fn header_lines_set_and_remove() {
    let got: Vec<_> = headers(b"x-a: 1\nx-b: a: b\nx-c\n\nx-d: ").collect();
    let want: [(&[u8], Option<&[u8]>); 4] = [
        (b"x-a", Some(b"1")),
        (b"x-b", Some(b"a: b")),
        (b"x-c", None),
        (b"x-d", Some(b"")),
    ];
    assert_eq!(got, want);
}
