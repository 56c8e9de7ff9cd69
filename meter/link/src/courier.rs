//! The thread that talks to tollgate.

use crate::entry::{Entry, Event};
use crate::line::{push_number, MAX_LINE};
use crate::link::Link;
use crate::list::push_standings;
use crate::outbox::{Heard, Line};
use crate::socket::{Dial, Stream};
use crate::spill::Spill;
use crate::Counters;
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// What Envoy gets to pass a last event on before its stream is cut.
const SPENT_WAIT: Duration = Duration::from_millis(50);

/// How long a spill file that cannot be written is let alone.
const SPILL_RETRY: Duration = Duration::from_millis(50);

/// Does for a [`Link`] all that may take its time.
pub struct Courier {
    link: Arc<Link>,
    dial: Box<dyn Dial>,
    spill: Spill,
    connection: Option<Connection>,
    redial_at: Instant,
    beat_at: Instant,
    /// Until when it goes on to look for streams after the last one.
    linger: Instant,
    /// tollgate has been there: what happens while it is away is of use to it.
    met: bool,
    /// The spill file could not be written.
    spill_fails: bool,
    questions: VecDeque<(Instant, Arc<Entry>)>,
    /// Streams that have got their last event.
    spent: VecDeque<(Instant, Arc<Entry>)>,
    told: String,
}

struct Connection {
    stream: Box<dyn Stream>,
    /// tollgate has welcomed us, and has the list.
    up: bool,
}

impl Courier {
    pub fn new(link: Arc<Link>, dial: Box<dyn Dial>, spill: Spill) -> Courier {
        let now = Instant::now();
        Courier {
            link,
            dial,
            spill,
            connection: None,
            redial_at: now,
            beat_at: now,
            linger: now,
            met: false,
            spill_fails: false,
            questions: VecDeque::new(),
            spent: VecDeque::new(),
            told: String::new(),
        }
    }

    /// Works for as long as the process lives.
    pub fn run(mut self) -> ! {
        loop {
            let until = self.turn(Instant::now());
            self.link.sleep(until);
        }
    }

    /// Does what is due, and says when the next thing is; none = when woken.
    pub(crate) fn turn(&mut self, now: Instant) -> Option<Instant> {
        let poll = self.link.outbox(|o| {
            o.wake = false;
            std::mem::take(&mut o.poll)
        });
        self.listen(now);
        self.dial(now);
        let mut out = String::new();
        if self.is_up() {
            self.link.outbox(|o| o.take_unsent(&mut out));
        }
        self.ask(now, &mut out);
        self.spill(now);
        if self.link.registry.len() > 0 {
            self.linger = now + self.link.settings.beat;
        }
        let due = now >= self.beat_at && self.beats(now);
        if due {
            self.beat_at = now + self.link.settings.beat;
        }
        if poll || due {
            self.beat(poll, &mut out);
        }
        self.send(&out, now);
        self.next(now)
    }

    fn is_up(&self) -> bool {
        self.connection.as_ref().is_some_and(|c| c.up)
    }

    /// Takes what the connection's reader has heard.
    fn listen(&mut self, now: Instant) {
        if self.connection.is_none() {
            return;
        }
        match self.link.outbox(|o| std::mem::take(&mut o.heard)) {
            Heard::Nothing => {}
            Heard::Welcome => self.welcomed(now),
            Heard::Bye => {
                self.link.set_refused(true);
                self.hang_up(now + self.link.settings.redial_refused);
            }
            // At once: a new tollgate may be listening already.
            Heard::End => self.hang_up(now),
        }
    }

    fn dial(&mut self, now: Instant) {
        if self.connection.is_some() || now < self.redial_at {
            return;
        }
        self.redial_at = now + self.link.settings.redial;
        let Ok(stream) = self.dial.dial() else {
            return;
        };
        if let Err(stream) = self.introduce(stream) {
            let mut stream = stream;
            stream.close();
        }
    }

    /// Says who we are and starts to listen. The list waits for the welcome: a
    /// tollgate that hangs must not be written to, again and again.
    fn introduce(&mut self, mut stream: Box<dyn Stream>) -> Result<(), Box<dyn Stream>> {
        let id = &self.link.identity;
        let hello = format!("hello 1 {} {} {}\n", id.instance, id.pid, id.build);
        if stream.send(hello.as_bytes()).is_err() {
            return Err(stream);
        }
        let Ok(receiver) = stream.receiver() else {
            return Err(stream);
        };
        let number = self.link.outbox(|o| {
            o.connection += 1;
            o.heard = Heard::Nothing;
            o.connection
        });
        let link = self.link.clone();
        let reader = thread::Builder::new().name("tollgate-acks".into());
        if reader.spawn(move || read(&link, receiver, number)).is_err() {
            return Err(stream);
        }
        self.connection = Some(Connection { stream, up: false });
        Ok(())
    }

    /// Sends the list: all live streams, then the records that tollgate may not
    /// have. In this order: a stream that ends meanwhile is in both, never in none.
    fn welcomed(&mut self, now: Instant) {
        let mut list = String::new();
        push_standings(&mut list, &self.link.registry, true);
        self.link.outbox(|o| {
            o.send_all_again();
            o.take_unsent(&mut list);
        });
        list.push_str(".\n");
        if let Some(c) = &mut self.connection {
            c.up = true;
        }
        self.met = true;
        self.told.clear();
        self.link.set_refused(false);
        self.link.set_up(true);
        self.send(&list, now);
    }

    fn hang_up(&mut self, redial_at: Instant) {
        if let Some(mut c) = self.connection.take() {
            c.stream.close();
        }
        self.link.set_up(false);
        // Its reader, which has not heard of the end yet, speaks of no connection.
        self.link.outbox(|o| o.connection += 1);
        self.redial_at = redial_at;
    }

    fn send(&mut self, lines: &str, now: Instant) {
        if lines.is_empty() || !self.is_up() {
            return;
        }
        let sent = |c: &mut Connection| c.stream.send(lines.as_bytes()).is_ok();
        if !self.connection.as_mut().is_some_and(sent) {
            self.hang_up(now);
        }
    }

    /// Sends the questions for more of a quota, and gives up those that were not
    /// answered.
    fn ask(&mut self, now: Instant, out: &mut String) {
        let fresh = self.link.outbox(|o| std::mem::take(&mut o.questions));
        for entry in fresh {
            let used = entry.open_question();
            if self.is_up() && used > 0 {
                out.push_str("q ");
                out.push_str(&entry.lease);
                out.push(' ');
                push_number(out, used);
                out.push('\n');
            }
            self.questions
                .push_back((now + self.link.settings.ask, entry));
        }
        while self
            .questions
            .front()
            .is_some_and(|(t, _)| !self.is_up() || *t <= now)
        {
            let given_up = self.questions.pop_front();
            if given_up.is_some_and(|(_, entry)| entry.unanswered()) {
                Counters::add(&self.link.counters.unenforced);
            }
        }
        let spent = self.link.outbox(|o| std::mem::take(&mut o.spent));
        self.spent
            .extend(spent.into_iter().map(|entry| (now + SPENT_WAIT, entry)));
        while self.spent.front().is_some_and(|(t, _)| *t <= now) {
            if let Some((_, entry)) = self.spent.pop_front() {
                entry.wake(Event::Spent);
            }
        }
    }

    /// Appends to the file what tollgate has not confirmed in time, lets the ends
    /// go that waited for it, and clears the file once nothing needs it.
    fn spill(&mut self, now: Instant) {
        let hold = self.link.settings.hold;
        let late = now.checked_sub(hold);
        let due = match (self.is_up(), late) {
            (true, None) => Vec::new(),
            (true, late) => self.link.outbox(|o| o.late(late)),
            (false, _) => self.link.outbox(|o| o.late(None)),
        };
        if due.is_empty() {
            self.spill_fails = false;
            if self.is_up() && self.link.outbox(|o| o.is_empty()) {
                self.spill.clear();
            }
            return;
        }
        let lines: String = due.iter().map(|(_, line)| &**line).collect();
        self.spill_fails = self.spill.append(&lines).is_err();
        if self.spill_fails {
            self.give_up(&due, late);
            return;
        }
        for (entry, time) in self.link.outbox(|o| o.spilled(&due, now)) {
            Counters::add(&self.link.counters.spilled);
            self.link.counters.hold(time);
            entry.wake(Event::Release);
        }
    }

    /// Cuts the streams whose record has been nowhere for too long.
    fn give_up(&mut self, due: &[Line], late: Option<Instant>) {
        let Some(late) = late else {
            return;
        };
        for entry in self.link.outbox(|o| o.give_up(due, late)) {
            entry.wake(Event::Unrecorded);
        }
    }

    /// Is there somebody to tell about? A beat after the last stream there may be
    /// one again: under short answers none has to wake the courier.
    fn beats(&self, now: Instant) -> bool {
        self.link.registry.len() > 0
            || now < self.linger
            || self.is_up() && self.told != self.counters()
    }

    fn counters(&self) -> String {
        let waiting = self.link.outbox(|o| o.len());
        let live = self.link.registry.len();
        self.link.counters.line(waiting, live)
    }

    /// Says which streams have changed; while tollgate is away, to the file: Envoy
    /// may die too.
    fn beat(&mut self, always: bool, out: &mut String) {
        let at = out.len();
        if !self.is_up() {
            if self.met {
                self.note();
            }
            return;
        }
        let start = Instant::now();
        push_standings(out, &self.link.registry, false);
        self.link.beat_took(start.elapsed());
        if always || out.len() > at {
            out.push_str(".\n");
        }
        let counters = self.counters();
        if counters != self.told {
            out.push_str(&counters);
            self.told = counters;
        }
    }

    fn note(&mut self) {
        if self.spill.size() > self.link.settings.spill_size {
            let mut all = self.link.outbox(|o| o.all_spilled());
            push_standings(&mut all, &self.link.registry, true);
            let _ = self.spill.replace(&all); // the long file is as good
            return;
        }
        let mut lines = String::new();
        push_standings(&mut lines, &self.link.registry, false);
        if !lines.is_empty() {
            let _ = self.spill.append(&lines); // the next beat says it again
        }
    }

    /// When the next thing is due.
    fn next(&mut self, now: Instant) -> Option<Instant> {
        let mut next = None;
        let mut at = |t: Instant| next = Some(next.map_or(t, |n: Instant| n.min(t)));
        if self.connection.is_none() {
            at(self.redial_at);
        }
        let beats = self.beats(now);
        let (used, up) = (self.spill.in_use(), self.is_up());
        let (beats, clear) = self.link.outbox(|o| {
            // A stream that begins after this finds that it must wake the courier.
            o.beating = beats || self.link.registry.len() > 0;
            o.spilling = used;
            (o.beating, used && up && o.is_empty())
        });
        if clear {
            at(now);
        }
        if beats {
            at(self.beat_at.max(now));
        }
        for (t, _) in [self.questions.front(), self.spent.front()]
            .into_iter()
            .flatten()
        {
            at(*t);
        }
        if self.spill_fails {
            at(now + SPILL_RETRY);
        } else if let Some(since) = self.link.outbox(|o| o.oldest_unspilled()) {
            at(if up {
                since + self.link.settings.hold
            } else {
                now
            });
        }
        next
    }
}

/// Hears what comes on a connection until that ends.
fn read(link: &Link, receiver: Box<dyn Read + Send>, connection: u64) {
    let mut receiver = BufReader::new(receiver);
    let mut line = Vec::new();
    while let Ok(true) = read_line(&mut receiver, &mut line) {
        link.hear(&line, connection);
    }
    link.heard(Heard::End, connection);
}

/// Reads one line, without its end. False: there is none, or it is too long.
fn read_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    from.take(MAX_LINE as u64).read_until(b'\n', line)?;
    Ok(line.pop() == Some(b'\n'))
}
