//! A parser that says what it may not: it is given up, and whatever was attached for it goes.

use super::message::{Call, Note, Reply, Verdict, Want, decode};
use super::server::{Terms, attend};
use super::socket::{CallSocket, send_packet};
use super::*;
use crate::capture::Expected;
use crate::config::CaptureConfig;
use mirror_common::FlowKey;
use proptest::prelude::*;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// A session with an attacher.
struct Session {
    calls: CallSocket,
    raw: UnixStream,
    given_up: Receiver<()>,
    ended: Receiver<()>,
}

impl Session {
    fn new() -> Self {
        let (near, far) = UnixStream::pair().unwrap();
        let (given_up_tx, given_up) = channel();
        let (ended_tx, ended) = channel();
        let give_up = move || {
            let _ = given_up_tx.send(());
        };
        let terms = Terms { give_up: Some(Arc::new(give_up)), ..Terms::default() };
        std::thread::spawn(move || {
            attend(far.into(), terms);
            drop(ended_tx);
        });
        let raw = near.try_clone().unwrap();
        Self { calls: OwnedFd::from(near).into(), raw, given_up, ended }
    }

    fn greeted() -> Self {
        let session = Self::new();
        assert!(matches!(session.call(&Call::Hello), Some((Reply::Welcome { restarts: 0 }, _))));
        session
    }

    /// `None` when the attacher hangs up instead.
    fn call(&self, call: &Call) -> Option<(Reply, Vec<OwnedFd>)> {
        self.calls.send(call, &[]).ok()?;
        self.calls.receive().ok().flatten()
    }

    #[track_caller]
    fn assert_given_up(&self) {
        self.given_up.recv_timeout(SOON).expect("the parser is given up");
        let _ = self.ended.recv_timeout(SOON);
    }
}

fn open() -> Call {
    Call::Open { wanted: (&CaptureConfig::default()).into(), drop_one_in: 0, nice: 0 }
}

fn try_out() -> Call {
    Call::TryOut((&CaptureConfig::default()).into())
}

fn get_ready() -> Call {
    Call::GetReady(Expected { cgroups: true, interfaces: true })
}

#[test]
fn bytes_that_are_no_message_end_the_session() {
    for garbage in [
        &b"\x05\x00\x00\x00GET /"[..],
        // Longer than any message may be.
        &[0xff; 64],
        // A message with something behind it.
        &[2, 0, 0, 0, 0, 0],
        // An empty one.
        &[0; 4],
    ] {
        let session = Session::new();
        (&session.raw).write_all(garbage).unwrap();
        session.assert_given_up();
    }
}

#[test]
fn half_a_message_ends_the_session_with_the_parser() {
    let Session { calls, raw, given_up, ended } = Session::greeted();
    (&raw).write_all(&[200, 0, 0, 0, 1]).unwrap();
    drop((calls, raw));
    given_up.recv_timeout(SOON).expect("what it began to say is no message");
    assert_eq!(ended.recv_timeout(SOON), Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
}

#[test]
fn calls_out_of_turn_end_the_session() {
    let calls = [
        open(),
        try_out(),
        Call::Commit { trial: 1 },
        Call::Abandon { trial: 0 },
        Call::Check,
        get_ready(),
        Call::Close,
    ];
    for call in &calls {
        let session = Session::new();
        assert!(session.call(call).is_none(), "before a greeting: {call:?}");
        session.assert_given_up();
    }
    for call in calls.iter().skip(1).chain([&Call::Hello]) {
        let session = Session::greeted();
        assert!(session.call(call).is_none(), "before maps: {call:?}");
        session.assert_given_up();
    }
}

/// With maps. `None` where they can't be made: without privileges.
fn opened() -> Option<(Session, Vec<OwnedFd>)> {
    let session = Session::greeted();
    match session.call(&open()) {
        Some((Reply::Opened { rings: 1 }, descriptors)) => Some((session, descriptors)),
        Some((Reply::Failed(_), _)) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn calls_out_of_turn_end_an_open_session_too() {
    for call in [open(), Call::Hello, Call::Commit { trial: 1 }, Call::Abandon { trial: 7 }] {
        let Some((session, _lines)) = opened() else { return };
        assert!(session.call(&call).is_none(), "{call:?}");
        session.assert_given_up();
    }
    let Some((session, _lines)) = opened() else { return };
    let Some((Reply::Tried { trial, .. }, _)) = session.call(&try_out()) else { panic!("no trial") };
    assert!(matches!(session.call(&Call::Commit { trial }), Some((Reply::Done { .. }, _))));
    assert!(session.call(&Call::Commit { trial }).is_none(), "twice");
    session.assert_given_up();
}

#[test]
fn programs_for_later_points_are_loaded_again_and_again_and_attached_nowhere() {
    let Some((session, _lines)) = opened() else { return };
    for _ in 0..2 {
        let Some((Reply::Done { points, fault }, _)) = session.call(&get_ready()) else {
            panic!("no answer")
        };
        assert_eq!((points, fault), (None, None));
    }
}

#[test]
fn notes_on_the_wrong_line_and_beyond_their_bounds_end_the_session() {
    let verdict = Verdict::new(&FlowKey::default(), Want::Ignore);
    // In the order in which the lines come, behind the two rings.
    let wrong = [
        (2, Note::Beat { number: 1, shed_level: 0 }),
        (2, Note::Verdicts(vec![verdict; MAX_VERDICTS + 1])),
        (3, Note::Asleep { number: 1 }),
        (3, Note::Counters { number: 1 }),
        (4, Note::Stop { number: 1 }),
        (4, Note::Verdicts(vec![verdict])),
        (5, Note::Settle { number: 1 }),
        // No socket comes with it.
        (5, Note::Mark { number: 1 }),
    ];
    for (line, note) in wrong {
        let Some((session, lines)) = opened() else { return };
        send_packet(&lines[line], &note, None).unwrap();
        session.given_up.recv_timeout(SOON).unwrap_or_else(|_| panic!("{note:?} on line {line}"));
    }
    for garbage in [&b"\xff\xff\xff"[..], &[0; super::message::MAX_NOTE_BYTES + 9]] {
        let Some((session, lines)) = opened() else { return };
        rustix::net::send(&lines[3], garbage, rustix::net::SendFlags::empty()).unwrap();
        session.given_up.recv_timeout(SOON).expect("garbage");
    }
}

#[test]
fn desk_lives_on_when_nobody_reads_its_answers_and_when_a_mark_is_for_no_socket() {
    let Some((session, lines)) = opened() else { return };
    for number in 0..10_000 {
        // Full when the desk has not come to it.
        let _ = send_packet(&lines[4], &Note::Counters { number }, None);
    }
    let file = tempfile::tempfile().unwrap();
    let mark = Note::Mark { number: 3 };
    send_packet(&lines[5], &mark, Some(std::os::fd::AsFd::as_fd(&file))).unwrap();
    let refused = loop {
        match receive_packet::<Answer>(&lines[5]) {
            Ok(Some((answer, _))) => break answer,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::thread::yield_now(),
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(refused, Answer::Done { number: 3, fault: Some(_) }), "{refused:?}");
    assert!(session.call(&Call::Check).is_some() && session.given_up.try_recv().is_err());
}

#[test]
fn nothing_is_attached_for_a_parser_that_is_not_admitted() {
    let (near, far) = UnixStream::pair().unwrap();
    let admit = || Err("it may still load programs".to_owned());
    let terms = Terms { admit: Some(Box::new(admit)), ..Terms::default() };
    let attacher = std::thread::spawn(move || attend(far.into(), terms));
    let calls = CallSocket::from(OwnedFd::from(near));
    let call = |call: &Call| {
        calls.send(call, &[]).unwrap();
        calls.receive::<Reply>().ok().flatten()
    };
    assert!(call(&Call::Hello).is_some());
    if let Some((Reply::Opened { .. }, _)) = call(&open()) {
        assert!(call(&try_out()).is_none());
        attacher.join().unwrap();
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode::<Call>(&bytes);
        let _ = decode::<Note>(&bytes);
    }
}
