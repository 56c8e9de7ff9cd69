//! A link with its courier, and a tollgate that is only a socket.
#![allow(dead_code)] // each test file uses a part

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tollgate_meter_core::{Counts, End, Report, ANOMALIES};
use tollgate_meter_link::*;

/// Longer than anything takes that is not broken.
pub const LONG: Duration = Duration::from_secs(20);

/// A folder of its own that goes with the test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "tollgate-link-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    pub fn socket(&self) -> PathBuf {
        self.0.join("meter.sock")
    }

    /// What is in the spill file, "" where there is none.
    pub fn spilled(&self) -> String {
        fs::read_to_string(self.0.join("meter-2a-1.spill")).unwrap_or_default()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Settings that let a test see in milliseconds what takes seconds.
pub fn quick() -> Settings {
    Settings {
        hold: Duration::from_millis(300),
        beat: Duration::from_millis(20),
        ask: Duration::from_millis(50),
        redial: Duration::from_millis(5),
        redial_refused: Duration::from_millis(50),
        ..Settings::default()
    }
}

pub struct Rig {
    pub folder: Folder,
    pub link: Arc<Link>,
}

impl Rig {
    pub fn new(settings: Settings) -> Rig {
        Rig::with(settings, Sync::Process)
    }

    pub fn with(settings: Settings, sync: Sync) -> Rig {
        let folder = Folder::new();
        let identity = Identity {
            instance: "2a-1".into(),
            pid: 42,
            build: "9f2c41d07b3e".into(),
        };
        let link = Link::new(identity, settings);
        let spill = Spill::beside(&folder.socket(), "2a-1", sync);
        let courier = Courier::new(link.clone(), Box::new(UnixDial(folder.socket())), spill);
        // It lives as long as the process, as it does inside Envoy.
        thread::spawn(move || courier.run());
        Rig { folder, link }
    }

    pub fn stream(&self, lease: &str) -> TestStream {
        let (tx, events) = mpsc::channel();
        let waker = Box::new(TestWaker(Mutex::new(tx)));
        let entry = self.link.register(lease, waker).expect("a lease");
        TestStream { entry, events }
    }
}

struct TestWaker(Mutex<Sender<Event>>);

impl Waker for TestWaker {
    fn wake(&self, event: Event) {
        let _ = self.0.lock().expect("no panic").send(event);
    }
}

pub struct TestStream {
    pub entry: Arc<Entry>,
    events: Receiver<Event>,
}

impl TestStream {
    /// The next event; panics when none comes.
    pub fn event(&self) -> Event {
        self.events.recv_timeout(LONG).expect("an event")
    }

    /// No event comes for a while.
    pub fn no_event(&self, time: Duration) {
        assert_eq!(
            self.events.recv_timeout(time),
            Err(RecvTimeoutError::Timeout)
        );
    }

    pub fn end(&self, link: &Link) {
        link.ended(&self.entry, &record(self.entry.lease()), true);
    }
}

pub fn record(lease: &str) -> Record<'_> {
    Record {
        lease,
        why: Why::End,
        status: 200,
        report: Report {
            counts: Counts {
                prompt: 9,
                completion: 3,
                ..Counts::NONE
            },
            seen: true,
            is_final: true,
            end: End::Done,
            text_bytes: 17,
            deltas: 3,
            anomalies: [0; ANOMALIES],
        },
        encoded: false,
        unread: false,
        bytes: 1190,
        first_us: 9967,
        last_us: 10120,
        flags: 0,
        details: b"via_upstream",
        engine: b"127.0.0.1:8000",
    }
}

/// The line of [`record`], without its end.
pub fn line_of(lease: &str) -> String {
    format!("e {lease} end done 200 9 3 -1 -1 SF 17 3 1190 0,0,0,0,0,0,0,0,0 9967 10120 0 via_upstream 127.0.0.1:8000")
}

/// A tollgate that says only what the test wants.
pub struct Tollgate {
    listener: UnixListener,
}

impl Tollgate {
    pub fn listen(socket: &Path) -> Tollgate {
        let _ = fs::remove_file(socket);
        let listener = UnixListener::bind(socket).expect("a socket");
        Tollgate { listener }
    }

    /// The next connection, without a word on it.
    pub fn accept(&self) -> Session {
        let (stream, _) = self.listener.accept().expect("a connection");
        stream.set_read_timeout(Some(LONG)).expect("a timeout");
        let lines = BufReader::new(stream.try_clone().expect("a clone"));
        Session { stream, lines }
    }

    /// The next connection, welcomed, and the list that it begins with.
    pub fn welcome(&self) -> (Session, Vec<String>) {
        let mut session = self.accept();
        assert_eq!(session.line(), "hello 1 2a-1 42 9f2c41d07b3e");
        session.say("welcome 1");
        let list = session.until(".");
        (session, list)
    }
}

pub struct Session {
    pub stream: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Session {
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        assert_eq!(line.pop(), Some('\n'), "the connection has ended");
        line
    }

    /// The next line with that verb.
    pub fn verb(&mut self, verb: &str) -> String {
        loop {
            let line = self.line();
            if line.split(' ').next() == Some(verb) {
                return line;
            }
        }
    }

    /// The lines before the one that is `last`.
    pub fn until(&mut self, last: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = self.line();
            if line == last {
                return lines;
            }
            lines.push(line);
        }
    }

    /// Has the other side hung up?
    pub fn ended(&mut self) -> bool {
        let mut rest = String::new();
        while self.lines.read_line(&mut rest).is_ok_and(|n| n > 0) {}
        true
    }

    pub fn say(&mut self, line: &str) {
        writeln!(self.stream, "{line}").expect("a write");
    }
}

/// Waits for a condition.
pub fn eventually(what: &str, mut ok: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !ok() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

impl TestStream {
    /// Nobody can wake the stream any more.
    pub fn events_end(&self) {
        assert_eq!(
            self.events.recv_timeout(LONG),
            Err(RecvTimeoutError::Disconnected)
        );
    }
}
