//! The link against a tollgate that is only a socket.

mod rig;

use rig::{eventually, line_of, quick, Rig, Tollgate};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};
use tollgate_meter_link::{Event, Settings, Sync};

#[test]
fn a_list_has_the_live_streams() {
    let rig = Rig::new(quick());
    let one = rig.stream("one");
    let _two = rig.stream("two");
    one.entry.begin(None);
    one.entry.progress(11, 148, 5000);
    let (_, mut list) = Tollgate::listen(&rig.folder.socket()).welcome();
    list.sort();
    assert_eq!(list, ["s one r 11 148 5000", "s two w -1 -1 0"]);
}

#[test]
fn a_beat_has_what_changed() {
    let rig = Rig::new(quick());
    let (one, two) = (rig.stream("one"), rig.stream("two"));
    let (mut tollgate, _) = Tollgate::listen(&rig.folder.socket()).welcome();
    one.entry.begin(None);
    one.entry.progress(1, 2, 30);
    assert_eq!(tollgate.verb("s"), "s one r 1 2 30");
    two.entry.begin(None);
    two.entry.progress(4, 5, 60);
    assert_eq!(tollgate.verb("s"), "s two r 4 5 60");
}

#[test]
fn a_question_for_now_is_answered_at_once() {
    let slow = Duration::from_secs(3600);
    let rig = Rig::new(Settings {
        beat: slow,
        ..quick()
    });
    let one = rig.stream("one");
    let (mut tollgate, _) = Tollgate::listen(&rig.folder.socket()).welcome();
    one.entry.begin(None);
    one.entry.progress(1, 2, 30);
    tollgate.say("p");
    assert!(tollgate.until(".").contains(&"s one r 1 2 30".to_string()));
}

#[test]
fn an_end_waits_for_its_record() {
    let rig = Rig::new(Settings {
        hold: rig::LONG,
        ..quick()
    });
    let one = rig.stream("one");
    let (mut tollgate, _) = Tollgate::listen(&rig.folder.socket()).welcome();
    one.end(&rig.link);
    assert_eq!(tollgate.verb("e"), line_of("one"));
    one.no_event(Duration::from_millis(50));
    tollgate.say("a one");
    assert_eq!(one.event(), Event::Release);
    assert_eq!(rig.folder.spilled(), "");
    tollgate.say("a one"); // once more changes nothing
    one.no_event(Duration::from_millis(20));
}

#[test]
fn without_tollgate_an_end_goes_to_the_file_at_once() {
    for sync in [Sync::Process, Sync::Power] {
        let rig = Rig::with(
            Settings {
                hold: rig::LONG,
                ..quick()
            },
            sync,
        );
        let one = rig.stream("one");
        one.end(&rig.link);
        assert_eq!(one.event(), Event::Release);
        assert_eq!(rig.folder.spilled(), line_of("one") + "\n");
        let file = fs::metadata(rig.folder.0.join("meter-2a-1.spill")).expect("the file");
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
        // A tollgate that comes back gets it before the list is complete.
        let (mut tollgate, list) = Tollgate::listen(&rig.folder.socket()).welcome();
        assert_eq!(list, [line_of("one")]);
        tollgate.say("a one");
        eventually("the file is gone", || rig.folder.spilled().is_empty());
        one.no_event(Duration::from_millis(20));
    }
}

#[test]
fn a_lost_answer_is_asked_for_again() {
    let rig = Rig::new(Settings {
        hold: rig::LONG,
        ..quick()
    });
    let (one, two) = (rig.stream("one"), rig.stream("two"));
    let server = Tollgate::listen(&rig.folder.socket());
    let (mut tollgate, _) = server.welcome();
    one.end(&rig.link);
    two.end(&rig.link);
    tollgate.verb("e");
    tollgate.verb("e");
    drop(tollgate); // it has committed, and dies before it says so
    let (mut tollgate, list) = server.welcome();
    assert_eq!(list, [line_of("one"), line_of("two")]);
    tollgate.say("a two");
    tollgate.say("a one");
    // Meanwhile both may have gone by way of the file: once is enough.
    assert_eq!(one.event(), Event::Release);
    assert_eq!(two.event(), Event::Release);
    eventually("nothing waits", || rig.folder.spilled().is_empty());
}

#[test]
fn a_tollgate_that_hangs_costs_the_hold_and_no_more() {
    let rig = Rig::new(quick());
    let one = rig.stream("one");
    let (mut tollgate, _) = Tollgate::listen(&rig.folder.socket()).welcome();
    let start = Instant::now();
    one.end(&rig.link);
    tollgate.verb("e");
    assert_eq!(one.event(), Event::Release);
    assert!(start.elapsed() >= quick().hold);
    assert_eq!(rig.folder.spilled(), line_of("one") + "\n");
    tollgate.say("a one");
    eventually("the file is gone", || rig.folder.spilled().is_empty());
}

#[test]
fn a_tollgate_that_reads_nothing_is_given_up() {
    let rig = Rig::new(quick());
    let (mut tollgate, _) = Tollgate::listen(&rig.folder.socket()).welcome();
    // More than the socket takes.
    let streams: Vec<_> = (0..20_000)
        .map(|i| rig.stream(&format!("lease-{i:030}")))
        .collect();
    for s in &streams {
        s.end(&rig.link);
    }
    for s in &streams {
        assert_eq!(s.event(), Event::Release);
    }
    assert!(tollgate.ended());
    let file = rig.folder.spilled();
    assert_eq!(
        file.lines().filter(|l| l.starts_with("e ")).count(),
        streams.len()
    );
}

#[test]
fn a_tollgate_that_does_not_welcome_gets_no_list() {
    let rig = Rig::new(quick());
    let server = Tollgate::listen(&rig.folder.socket());
    let mut silent = server.accept();
    assert!(silent.line().starts_with("hello 1 "));
    let one = rig.stream("one");
    one.end(&rig.link);
    assert_eq!(one.event(), Event::Release); // by way of the file
    assert!(!rig.link.is_up());
    silent.say("welcome 1");
    assert_eq!(silent.until("."), [line_of("one")]);
    assert!(rig.link.is_up());
}

#[test]
fn a_tollgate_that_refuses_the_version_gets_no_more_requests() {
    let rig = Rig::new(quick());
    let server = Tollgate::listen(&rig.folder.socket());
    let mut tollgate = server.accept();
    assert!(tollgate.line().starts_with("hello 1 "));
    assert_eq!(rig.link.instance(), Some("2a-1"));
    tollgate.say("bye too%20old");
    assert!(tollgate.ended());
    assert_eq!(rig.link.instance(), None);
    let (_session, _) = server.welcome(); // the next one serves it
    assert_eq!(rig.link.instance(), Some("2a-1"));
}

#[test]
fn a_cut_reaches_its_stream() {
    let rig = Rig::new(quick());
    let (one, two) = (rig.stream("one"), rig.stream("two"));
    let (mut tollgate, _) = Tollgate::listen(&rig.folder.socket()).welcome();
    tollgate.say("c nobody");
    tollgate.say("c two");
    assert_eq!(two.event(), Event::Cut);
    one.no_event(Duration::from_millis(20));
    rig.link.forget(&two.entry);
    tollgate.say("c two"); // it is gone: nobody may wake it
    two.events_end();
}

#[test]
fn a_quota_is_asked_for() {
    let rig = Rig::new(Settings {
        ask: rig::LONG,
        ..quick()
    });
    let one = rig.stream("one");
    one.entry.begin(Some(100));
    let (mut tollgate, _) = Tollgate::listen(&rig.folder.socket()).welcome();
    rig.link.ask(&one.entry, 101);
    assert_eq!(tollgate.verb("q"), "q one 101");
    tollgate.say("g one 356 101");
    assert_eq!(one.event(), Event::Grant);
    assert_eq!((one.entry.total(), one.entry.answered()), (356, 101));
    tollgate.say("g one 200 90"); // an older answer takes nothing back
    assert_eq!(one.event(), Event::Grant);
    assert_eq!((one.entry.total(), one.entry.answered()), (356, 101));
    tollgate.say("g one - 0");
    assert_eq!(one.event(), Event::Grant);
    assert_eq!(one.entry.total(), i64::MAX);
}

#[test]
fn a_quota_that_nobody_answers_for_is_not_enforced() {
    let rig = Rig::new(quick());
    let one = rig.stream("one");
    one.entry.begin(Some(100));
    let (mut tollgate, _) = Tollgate::listen(&rig.folder.socket()).welcome();
    rig.link.ask(&one.entry, 101);
    assert_eq!(tollgate.verb("q"), "q one 101");
    assert_eq!(one.event(), Event::Grant);
    assert!(one.entry.unenforced());
    tollgate.say("g one 300 101");
    assert_eq!(one.event(), Event::Grant);
    assert!(!one.entry.unenforced());
}

#[test]
fn a_stream_whose_plan_never_came_is_told() {
    let rig = Rig::new(quick());
    let one = rig.stream("one");
    let (mut tollgate, _) = Tollgate::listen(&rig.folder.socket()).welcome();
    rig.link.unplanned(&one.entry);
    assert_eq!(tollgate.verb("x"), "x one");
    tollgate.say("a one");
    one.no_event(Duration::from_millis(20));
}

#[test]
fn a_full_outbox_is_said() {
    let rig = Rig::new(Settings {
        capacity: 2,
        hold: rig::LONG,
        ..quick()
    });
    let (mut tollgate, _) = Tollgate::listen(&rig.folder.socket()).welcome();
    let (one, two) = (rig.stream("one"), rig.stream("two"));
    one.end(&rig.link);
    assert!(!rig.link.is_full());
    two.end(&rig.link);
    assert!(rig.link.is_full());
    tollgate.say("a one");
    eventually("there is room", || !rig.link.is_full());
}

#[test]
fn without_tollgate_and_without_a_file_an_end_is_no_end() {
    let rig = Rig::new(quick());
    fs::remove_dir_all(&rig.folder.0).expect("removed");
    let one = rig.stream("one");
    let start = Instant::now();
    one.end(&rig.link);
    assert_eq!(one.event(), Event::Unrecorded);
    assert!(start.elapsed() >= quick().hold);
    // Its record is kept for the tollgate that comes.
    fs::create_dir_all(&rig.folder.0).expect("made");
    let (_session, list) = Tollgate::listen(&rig.folder.socket()).welcome();
    assert_eq!(list, [line_of("one")]);
}

#[test]
fn running_counts_go_to_the_file_while_tollgate_is_away() {
    let rig = Rig::new(quick());
    let one = rig.stream("one");
    one.entry.begin(None);
    one.entry.progress(1, 2, 30);
    let server = Tollgate::listen(&rig.folder.socket());
    let (tollgate, _) = server.welcome();
    drop((tollgate, server));
    one.entry.progress(1, 3, 40);
    eventually("the file has it", || {
        rig.folder.spilled().contains("s one r 1 3 40\n")
    });
    let (_session, list) = Tollgate::listen(&rig.folder.socket()).welcome();
    assert_eq!(list, ["s one r 1 3 40"]);
    eventually("the file is gone", || rig.folder.spilled().is_empty());
}

#[test]
fn what_is_torn_in_the_file_spoils_nothing_behind_it() {
    let settings = Settings {
        redial: rig::LONG,
        ..quick()
    };
    let torn = line_of("torn");
    for size in 0..=torn.len() {
        let rig = Rig::new(settings);
        let file = rig.folder.0.join("meter-2a-1.spill");
        fs::write(&file, &torn.as_bytes()[..size]).expect("written");
        let one = rig.stream("one");
        one.end(&rig.link);
        assert_eq!(one.event(), Event::Release);
        let now = rig.folder.spilled();
        assert!(now.ends_with(&format!("{}\n", line_of("one"))));
        let whole = now.lines().filter(|l| *l == line_of("one")).count();
        assert_eq!(whole, 1, "torn at {size}: {now:?}");
    }
}

#[test]
fn a_long_file_is_written_anew_with_what_counts() {
    let rig = Rig::new(Settings {
        spill_size: 2000,
        ..quick()
    });
    let server = Tollgate::listen(&rig.folder.socket());
    let (tollgate, _) = server.welcome();
    drop((tollgate, server));
    let (done, live) = (rig.stream("done"), rig.stream("live"));
    done.end(&rig.link);
    assert_eq!(done.event(), Event::Release);
    live.entry.begin(None);
    let mut longest = 0;
    for n in 0..1000 {
        live.entry.progress(1, n, n);
        longest = longest.max(rig.folder.spilled().len());
        std::thread::sleep(Duration::from_millis(1));
    }
    live.entry.progress(1, 1000, 1000);
    eventually("the file has the last", || {
        rig.folder.spilled().contains("s live r 1 1000 1000\n")
    });
    assert!(rig.folder.spilled().contains(&line_of("done")));
    assert!(longest < 3000, "it came to {longest} bytes");
}
