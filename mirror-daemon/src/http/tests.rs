//! Tests of the whole decoder: events of a flow in, requests out.

#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

mod decoding;
mod http2;
mod joining;
mod properties;
mod tls;
mod upgrading;

use super::*;
use crate::flow::{Chunk, CloseCause, Direction, FlowEvent, GapCause, Glimpse, SeqNumber, Timestamp};
use std::collections::BTreeMap;

/// A request as its events told it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    start: String,
    lines: String,
    body: Vec<u8>,
    trailers: String,
    held: bool,
    released: bool,
    end: Option<Result<(), DropReason>>,
}

impl Seen {
    /// Every byte was seen, and it may be replayed.
    fn may_go(&self) -> bool {
        self.end == Some(Ok(())) && (self.released || !self.held)
    }
}

/// Keeps events, and checks that they keep their order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Log {
    requests: BTreeMap<u64, Seen>,
    clients: Vec<IpAddr>,
    passed_over: Vec<DropReason>,
}

impl Log {
    fn note(&mut self, event: HttpEvent<'_>) {
        let open = |log: &mut Self, number: RequestNumber, write: &dyn Fn(&mut Seen)| {
            let seen = log.requests.get_mut(&number.0).expect("a request that was told");
            assert_eq!(seen.end, None, "nothing follows the end: {seen:?}");
            write(seen);
        };
        match event {
            HttpEvent::Client { ip } => self.clients.push(ip),
            HttpEvent::Request { number, head, held } => {
                assert_eq!(number.0, self.requests.len() as u64, "numbers are counted up");
                let start = format!("{} {} {:?}", head.method, head.target, head.body);
                let lines = head.fields.iter().map(|field| text(field.line)).collect();
                self.requests.insert(number.0, Seen { start, lines, held, ..Seen::default() });
            }
            HttpEvent::Body { number, bytes } => {
                assert!(!bytes.is_empty());
                open(self, number, &|seen| {
                    assert_eq!(seen.trailers, "");
                    seen.body.extend_from_slice(bytes);
                });
            }
            HttpEvent::Trailers { number, fields } => open(self, number, &|seen| {
                seen.trailers = fields.iter().map(|field| text(field.line)).collect();
            }),
            HttpEvent::Released { number } => open(self, number, &|seen| {
                assert!(seen.held && !seen.released);
                seen.released = true;
            }),
            HttpEvent::Complete { number } => open(self, number, &|seen| seen.end = Some(Ok(()))),
            HttpEvent::Dropped { number, reason } => {
                if number.0 == self.requests.len() as u64 {
                    self.requests.insert(number.0, Seen::default());
                }
                open(self, number, &|seen| seen.end = Some(Err(reason)));
            }
            HttpEvent::Cancelled { .. } => panic!("nothing is cancelled behind its end here"),
            HttpEvent::Answered { .. } => {}
            HttpEvent::PassOver { reason } => self.passed_over.push(reason),
        }
    }

    /// Request line and end of each request.
    fn ends(&self) -> Vec<(&str, Option<Result<(), DropReason>>)> {
        self.requests.values().map(|seen| (seen.start.as_str(), seen.end)).collect()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A connection under test: keeps the numbers of both streams.
#[derive(Debug)]
struct Wire {
    flow: HttpFlow,
    log: Log,
    request_seq: SeqNumber,
    answer_seq: SeqNumber,
}

/// Near the wrap, so that every test crosses it.
const FIRST_REQUEST_SEQ: SeqNumber = SeqNumber(u32::MAX - 20);
const FIRST_ANSWER_SEQ: SeqNumber = SeqNumber(u32::MAX - 50);

impl Wire {
    fn open(joined: bool) -> Self {
        Self::with(HttpOptions::default(), joined)
    }

    fn with(options: HttpOptions, joined: bool) -> Self {
        let mut wire = Self {
            flow: HttpFlow::new(options),
            log: Log::default(),
            request_seq: FIRST_REQUEST_SEQ,
            answer_seq: FIRST_ANSWER_SEQ,
        };
        wire.event(&FlowEvent::Opened { direction: Direction::Request, joined });
        wire
    }

    fn event(&mut self, event: &FlowEvent<'_>) {
        let Self { flow, log, .. } = self;
        flow.handle_event(event, &mut |event| log.note(event));
    }

    /// A segment of requests, sent when every answer so far had been received.
    fn request(&mut self, bytes: impl AsRef<[u8]>) {
        self.piece(bytes.as_ref(), true);
    }

    fn piece(&mut self, bytes: &[u8], at_segment_start: bool) {
        let chunk = Chunk {
            direction: Direction::Request,
            start: self.request_seq,
            at_segment_start,
            ack: self.answer_seq,
            at: Timestamp(0),
            bytes,
        };
        self.event(&FlowEvent::Chunk(chunk));
        self.request_seq = self.request_seq.add(bytes.len() as u32);
    }

    /// A segment of answers, sent when every request byte so far had been received.
    fn answer(&mut self, bytes: impl AsRef<[u8]>) {
        let head = bytes.as_ref();
        let segment_bytes = head.len() as u32;
        let glimpse = Glimpse {
            start: self.answer_seq,
            offset_bytes: 0,
            ack: self.request_seq,
            at: Timestamp(0),
            segment_bytes,
            head,
        };
        self.event(&FlowEvent::Glimpse(glimpse));
        self.answer_seq = self.answer_seq.add(segment_bytes);
    }

    fn gap(&mut self, bytes: u32) {
        let start = self.request_seq;
        self.request_seq = start.add(bytes);
        let (direction, cause) = (Direction::Request, GapCause::Acknowledged);
        self.event(&FlowEvent::Gap { direction, start, bytes, cause });
    }

    fn close(mut self, cause: CloseCause) -> Log {
        self.event(&FlowEvent::Closed(cause));
        for seen in self.log.requests.values() {
            assert!(seen.end.is_some(), "every request ends: {seen:?}");
        }
        self.log
    }
}

const GET: &str = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET_SEEN: &str = "GET /a None";

fn post(target: &str, body: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// The log of one connection that carries `bytes` and ends.
fn decode(bytes: &[u8]) -> Log {
    decode_pieces(&[bytes])
}

fn decode_pieces(pieces: &[&[u8]]) -> Log {
    let mut wire = Wire::open(false);
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        wire.request(piece);
    }
    wire.event(&FlowEvent::Finished { direction: Direction::Request });
    wire.close(CloseCause::Finished)
}
