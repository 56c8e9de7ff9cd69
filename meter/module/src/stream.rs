//! The states of one stream, from its request to the record of its end.

use crate::answer::{coded, kind_of, size_of, status_of, Kind, LONGEST_ERROR};
use crate::host::Host;
use crate::quota::{Stall, Watch};
use std::sync::Arc;
use std::time::Instant;
use tollgate_meter_core::{Counts, End, Format, Meter, Options, Report, ANOMALIES};
use tollgate_meter_link::{headers, Counters, Entry, Event, Link, Plan, Record, Terms, Why};

/// Where a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The answer has not come.
    Waiting,
    /// The answer passes.
    Running,
    /// An error of the engine is collected: its shape may have to change.
    Collecting,
    /// Its end waits to be on record. With true it ends by force then.
    Held(bool),
    /// What comes now is nobody's: the stream is being cut.
    Cut,
    /// Nothing is to be done any more: its record is written, or it is not ours.
    Done,
}

/// What becomes of the bytes that a hook was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    GoOn,
    /// Envoy keeps them until the stream goes on.
    Hold,
    /// They are gone.
    Drop,
}

/// One stream with its meter.
pub(crate) struct Stream {
    pub(crate) link: Arc<Link>,
    pub(crate) state: State,
    /// None: the stream has no lease, or another meter.
    pub(crate) entry: Option<Arc<Entry>>,
    /// Read once.
    pub(crate) plan: Option<Plan>,
    /// An answer of the engine needs no lease: tollgate knows of no meter here.
    pub(crate) unknown: bool,
    pub(crate) meter: Option<Box<Meter>>,
    /// The body passes unread.
    pub(crate) opaque: bool,
    pub(crate) watch: Option<Watch>,
    pub(crate) stall: Option<Stall>,
    pub(crate) responded: bool,
    pub(crate) recorded: bool,
    pub(crate) status: u16,
    pub(crate) engine: Vec<u8>,
    pub(crate) bytes: i64,
    /// The error that is collected.
    pub(crate) error: Vec<u8>,
    pub(crate) began: Instant,
    pub(crate) first: Option<Instant>,
}

/// The report of an answer that never came.
const NOTHING: Report = Report {
    counts: Counts::NONE,
    seen: false,
    is_final: false,
    end: End::Open,
    text_bytes: 0,
    deltas: 0,
    anomalies: [0; ANOMALIES],
};

impl Stream {
    pub(crate) fn new(link: Arc<Link>) -> Stream {
        Stream {
            link,
            state: State::Waiting,
            entry: None,
            plan: None,
            unknown: false,
            meter: None,
            opaque: false,
            watch: None,
            stall: None,
            responded: false,
            recorded: false,
            status: 0,
            engine: Vec::new(),
            bytes: 0,
            error: Vec::new(),
            began: Instant::now(),
            first: None,
        }
    }

    /// The request has passed the check. Registers it under its lease, and tells
    /// tollgate by way of ext_proc that it has a meter, and which.
    pub(crate) fn request(&mut self, host: &impl Host) -> Next {
        // Without a lease (a CONNECT, say) it is ext_proc that refuses.
        let Some(lease) = host.metadata("envoy.filters.http.ext_authz", "lease") else {
            return Next::GoOn;
        };
        let link = self.link.clone();
        let Some(instance) = link.instance() else {
            self.unknown = true;
            return Next::GoOn;
        };
        if link.is_full() {
            Counters::add(&link.counters().refused);
            host.refuse(503, &[], "meter_full");
            return Next::Hold;
        }
        let lease = String::from_utf8_lossy(&lease);
        self.entry = link.register(&lease, host.waker());
        if self.entry.is_some() {
            host.set_metadata("tollgate.meter.by", "instance", instance);
        }
        Next::GoOn
    }

    /// The headers of an answer, of the engine or of Envoy itself.
    pub(crate) fn head(&mut self, host: &impl Host, last: bool) -> Next {
        let details = host.details();
        let spoke = details == b"via_upstream";
        let Some(entry) = self.entry.clone() else {
            if spoke && !self.unknown {
                return self.refuse(host, 503, "meter_no_lease");
            }
            return Next::GoOn;
        };
        let terms = match self.plan(host) {
            None if spoke => return self.refuse(host, 503, "meter_no_plan"),
            None => return Next::GoOn, // refused before it was anybody's
            Some(Plan::HandsOff) => {
                self.leave();
                return Next::GoOn;
            }
            Some(Plan::Meter(terms)) => terms,
        };
        self.responded = true;
        if let Some(changes) = host.metadata("tollgate.meter", "headers") {
            for (name, value) in headers(&changes) {
                host.set_header(name, value);
            }
        }
        if self.recorded {
            return Next::GoOn; // it is our own refusal
        }
        self.status = host.header(":status").map_or(0, |s| status_of(&s));
        self.engine = host.engine();
        if !spoke {
            self.record(host, Why::Local, false);
            return Next::GoOn;
        }
        if !(200..300).contains(&self.status) {
            if self.status == 503 && host.header("retry-after").is_none() {
                host.set_header(b"retry-after", Some(b"1"));
            }
            self.record(host, Why::Refused, false);
            self.collect(host, last);
            return Next::GoOn;
        }
        self.answer(host, &entry, terms, last)
    }

    /// A short error in JSON is looked at: what a server around vLLM says of an
    /// unknown route is not the error that clients read.
    fn collect(&mut self, host: &impl Host, last: bool) {
        let kind = host.header("content-type").map(|t| kind_of(&t));
        let size = host.header("content-length").map_or(0, |n| size_of(&n));
        if last || kind != Some(Kind::Json) || !(1..=LONGEST_ERROR).contains(&size) {
            return;
        }
        host.set_header(b"content-length", None); // it may change
        self.state = State::Collecting;
    }

    /// The headers of an answer that has to be metered.
    fn answer(&mut self, host: &impl Host, entry: &Arc<Entry>, terms: Terms, last: bool) -> Next {
        let kind = host.header("content-type");
        let kind = kind.map_or(Kind::Unreadable, |t| kind_of(&t));
        if kind == Kind::Unreadable || kind == Kind::Binary && !terms.binary {
            self.status = 502;
            self.record(host, Why::Unreadable, false);
            return self.refuse(host, 502, "meter_unreadable");
        }
        let coding = host.header("content-encoding");
        let encoded = coding.is_some_and(|c| coded(&c));
        let sse = kind == Kind::EventStream;
        let mut meter = Meter::new(Options {
            format: terms.format,
            sse,
            choices: terms.choices,
            prompts: terms.prompts,
            strip_final: terms.strip_final,
            strip_running: terms.strip_running,
            encoded,
        });
        self.opaque = encoded || kind == Kind::Binary || terms.format == Format::Free;
        if kind == Kind::Binary && !encoded {
            // vLLM says there what a JSON body would have said.
            if let Some(said) = host.header("metadata") {
                meter.feed(&said, true);
            }
        }
        if sse && terms.format != Format::Free {
            // Events may be taken out, so a length is no longer true; and nginx,
            // and what has learned it from it, must pass them on as they come.
            host.set_header(b"content-length", None);
            host.set_header(b"x-accel-buffering", Some(b"no"));
        }
        self.watch = terms.quota.map(|q| Watch::new(q, NOTHING));
        entry.begin(terms.quota.map(|q| q.allowance));
        self.meter = Some(Box::new(meter));
        self.state = State::Running;
        if last {
            return self.end(host);
        }
        Next::GoOn
    }

    /// The trailers of an answer.
    pub(crate) fn trailers(&mut self, host: &impl Host) -> Next {
        if let Some(stall) = &mut self.stall {
            stall.ended = true;
            return Next::Hold;
        }
        match self.state {
            State::Running => self.end(host),
            State::Held(_) | State::Cut => Next::Hold,
            State::Waiting | State::Collecting | State::Done => Next::GoOn,
        }
    }

    /// The answer has ended: what ends it waits until that is on record.
    pub(crate) fn end(&mut self, host: &impl Host) -> Next {
        self.record(host, Why::End, true);
        self.state = State::Held(false);
        Next::Hold
    }

    /// Another thread has something to say.
    pub(crate) fn woken(&mut self, host: &impl Host, event: Event) {
        match (event, self.state) {
            (Event::Release, State::Held(by_force)) => {
                self.state = if by_force { State::Cut } else { State::Done };
                host.go_on();
                if let (true, Some(entry)) = (by_force, &self.entry) {
                    self.link.spent(entry);
                }
            }
            (Event::Grant, _) => self.granted(host),
            (Event::Spent, State::Cut) => self.cut(host, "meter_quota"),
            (Event::Unrecorded, State::Held(_)) => self.cut(host, "meter_unrecorded"),
            (Event::Cut, State::Waiting | State::Running) if !self.recorded => {
                if let Some(Plan::Meter(_)) = self.plan(host) {
                    self.record(host, Why::Cut, false);
                }
                Counters::add(&self.link.counters().cuts);
                self.cut(host, "meter_cut");
            }
            _ => {}
        }
    }

    pub(crate) fn cut(&mut self, host: &impl Host, details: &str) {
        self.stall = None;
        if self.responded {
            self.state = State::Cut;
            return host.reset(details);
        }
        self.refuse(host, 503, details);
    }

    /// The stream is over, well or badly.
    pub(crate) fn complete(&mut self, host: &impl Host) {
        let Some(entry) = self.entry.clone() else {
            return;
        };
        if self.recorded {
            return;
        }
        match self.plan(host) {
            Some(Plan::Meter(_)) => self.record(host, Why::Gone, false),
            Some(Plan::HandsOff) => {}
            None => self.link.unplanned(&entry),
        }
    }

    /// The filter broke. What it has counted goes on record.
    pub(crate) fn broken(&mut self, host: &impl Host) {
        Counters::add(&self.link.counters().panics);
        self.state = State::Cut;
        if self.entry.is_some() && matches!(self.plan, Some(Plan::Meter(_))) {
            self.record(host, Why::Panic, false);
        }
        host.reset("meter_panic");
    }

    /// The filter goes: nobody may wake it any more.
    pub(crate) fn leave(&mut self) {
        self.state = State::Done;
        if let Some(entry) = self.entry.take() {
            self.link.forget(&entry);
        }
    }

    /// What tollgate has said at the request's body.
    fn plan(&mut self, host: &impl Host) -> Option<Plan> {
        if self.plan.is_none() {
            let text = host.metadata("tollgate.meter", "plan");
            self.plan = text.and_then(|t| Plan::parse(&t));
            if self.plan == Some(Plan::HandsOff) {
                self.unknown = true;
            }
        }
        self.plan
    }

    /// Answers the client instead of the engine, with the headers of the plan.
    fn refuse(&mut self, host: &impl Host, status: u16, details: &str) -> Next {
        self.state = State::Done;
        let changes = host.metadata("tollgate.meter", "headers");
        let changes = changes.unwrap_or_default();
        let set = headers(&changes).filter_map(|(name, value)| Some((name, value?)));
        host.refuse(status, &set.collect::<Vec<_>>(), details);
        Next::Hold
    }

    /// Writes the stream's record, once.
    pub(crate) fn record(&mut self, host: &impl Host, why: Why, held: bool) {
        let Some(entry) = &self.entry else {
            return;
        };
        if std::mem::replace(&mut self.recorded, true) {
            return;
        }
        let meter = self.meter.as_deref();
        let mut report = match (&self.watch, meter) {
            // What was kept back was not delivered.
            (Some(watch), _) if self.stall.is_some() || why == Why::Quota => watch.report,
            (_, Some(m)) => m.report(),
            _ => NOTHING,
        };
        if why == Why::End && self.opaque {
            report.end = End::Done;
        }
        let kept = self.stall.as_ref().and_then(|s| s.marks.front());
        let since = |t: Instant| t.duration_since(self.began).as_micros() as i64;
        let record = Record {
            lease: entry.lease(),
            why,
            status: self.status,
            report,
            encoded: report.anomalies[tollgate_meter_core::Anomaly::Encoded as usize] > 0,
            unread: meter.is_some_and(Meter::unread),
            bytes: kept.map_or(self.bytes, |m| m.bytes),
            first_us: self.first.map_or(-1, since),
            last_us: since(Instant::now()),
            flags: host.flags(),
            details: &host.details(),
            engine: &self.engine,
        };
        self.link.ended(entry, &record, held);
    }
}
