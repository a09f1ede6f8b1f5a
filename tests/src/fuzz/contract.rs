//! What a decoder promises of its events (`mirror_daemon::http`).

use mirror_daemon::http::{BodyLength, HttpEvent, RequestNumber};
use std::collections::BTreeMap;

/// The requests of one connection so far.
#[derive(Debug, Default)]
pub(super) struct Contract {
    requests: BTreeMap<u64, Request>,
    /// What the next one is called.
    next_number: u64,
    pub(super) is_passed_over: bool,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Open {
        held: bool,
        body: BodyLength,
        told_bytes: u64,
        has_trailers: bool,
    },
    /// `may_be_cancelled`: it has not been.
    Complete {
        may_be_cancelled: bool,
    },
    Dropped,
}

impl Contract {
    /// Requests are counted from `next_number` on.
    pub(super) fn from(next_number: u64) -> Self {
        Self { next_number, ..Self::default() }
    }

    /// Holds `event` against the contract.
    pub(super) fn note(&mut self, event: &HttpEvent<'_>) {
        match event {
            HttpEvent::Request { number, head, held } => {
                assert!(!self.is_passed_over, "a request behind the end of interest");
                self.add(
                    *number,
                    Request::Open { held: *held, body: head.body, told_bytes: 0, has_trailers: false },
                );
            }
            HttpEvent::Body { number, bytes } => self.note_body(*number, bytes.len() as u64),
            HttpEvent::Trailers { number, .. } => {
                let Request::Open { has_trailers, .. } = self.of(*number) else {
                    panic!("trailers too late")
                };
                assert!(!std::mem::replace(has_trailers, true), "trailers twice");
            }
            HttpEvent::Released { number } => match self.of(*number) {
                Request::Open { held, .. } => assert!(std::mem::take(held), "released what was not held"),
                other => panic!("released {other:?}"),
            },
            HttpEvent::Complete { number } => self.complete(*number),
            HttpEvent::Dropped { number, .. } => match self.requests.contains_key(&number.0) {
                false => self.add(*number, Request::Dropped),
                true => {
                    let request = self.of(*number);
                    assert!(matches!(request, Request::Open { .. }), "dropped {request:?}");
                    *request = Request::Dropped;
                }
            },
            HttpEvent::Cancelled { number } => match self.of(*number) {
                Request::Complete { may_be_cancelled } => {
                    assert!(std::mem::take(may_be_cancelled), "cancelled twice");
                }
                other => panic!("cancelled {other:?}"),
            },
            HttpEvent::Answered { number } => match self.of(*number) {
                Request::Complete { may_be_cancelled } => {
                    assert!(std::mem::take(may_be_cancelled), "answered behind its end");
                }
                other => panic!("answered {other:?}"),
            },
            HttpEvent::PassOver { .. } => {
                assert!(!std::mem::replace(&mut self.is_passed_over, true), "passed over twice");
            }
            HttpEvent::Client { .. } => assert_eq!(self.next_number, 0, "a PROXY header comes first"),
        }
    }

    /// The connection is over, and everything in it.
    pub(super) fn check_end(&self) {
        for (number, request) in &self.requests {
            assert!(!matches!(request, Request::Open { .. }), "request {number} never ended");
        }
    }

    fn add(&mut self, number: RequestNumber, request: Request) {
        assert_eq!(number.0, self.next_number, "requests are numbered in the order of their appearance");
        self.next_number += 1;
        self.requests.insert(number.0, request);
    }

    fn of(&mut self, number: RequestNumber) -> &mut Request {
        self.requests.get_mut(&number.0).expect("an event of a request that was never told of")
    }

    fn note_body(&mut self, number: RequestNumber, bytes: u64) {
        assert!(bytes > 0, "an empty piece of a body");
        let Request::Open { body, told_bytes, has_trailers: false, .. } = self.of(number) else {
            panic!("a body too late")
        };
        *told_bytes += bytes;
        match *body {
            BodyLength::None => panic!("a body where there is none"),
            BodyLength::Known(length) => assert!(*told_bytes <= length, "a body longer than it says"),
            BodyLength::Chunked => {}
        }
    }

    fn complete(&mut self, number: RequestNumber) {
        let request = self.of(number);
        assert!(matches!(request, Request::Open { .. }), "completed {request:?}");
        *request = Request::Complete { may_be_cancelled: true };
    }
}
