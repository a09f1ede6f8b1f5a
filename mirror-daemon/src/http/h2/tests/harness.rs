//! Writing connections and reading events, for tests.

use super::super::frame::PREFACE;
use super::super::hpack::tests::encoder::integer;
use super::super::{H2Flow, H2Options};
use crate::drop_reason::DropReason;
use crate::flow::{Chunk, CloseCause, Direction, FlowEvent, GapCause, SeqNumber, Timestamp};
use crate::http::{BodyLength, HttpEvent};
use std::collections::BTreeMap;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;

/// One request as it came out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) fields: Vec<(String, Vec<u8>)>,
    pub(super) body_length: Option<BodyLength>,
    pub(super) held: bool,
    pub(super) released: bool,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Vec<(String, Vec<u8>)>,
    pub(super) complete: bool,
    pub(super) dropped: Option<DropReason>,
    pub(super) cancelled: bool,
    pub(super) answered: bool,
}

impl Seen {
    /// Whether it would be replayed.
    pub(super) fn is_mirrored(&self) -> bool {
        self.complete && self.dropped.is_none() && (!self.held || self.released)
    }
}

/// A flow under test, which checks the order of events.
pub(super) struct Probe {
    pub(super) flow: H2Flow,
    pub(super) seen: BTreeMap<u64, Seen>,
    pub(super) passed_over: Option<DropReason>,
    pub(super) events: usize,
}

impl Probe {
    pub(super) fn new(flow: H2Flow) -> Self {
        Self { flow, seen: BTreeMap::new(), passed_over: None, events: 0 }
    }

    pub(super) fn at_start() -> Self {
        let mut probe = Self::new(H2Flow::at_start(H2Options::default()));
        probe.answer(&settings());
        probe
    }

    pub(super) fn joined() -> Self {
        Self::new(H2Flow::joined(H2Options::default()))
    }

    pub(super) fn request(&mut self, bytes: &[u8]) {
        self.chunk(Direction::Request, bytes, true);
    }

    pub(super) fn answer(&mut self, bytes: &[u8]) {
        self.chunk(Direction::Answer, bytes, true);
    }

    pub(super) fn chunk(&mut self, direction: Direction, bytes: &[u8], at_segment_start: bool) {
        if !bytes.is_empty() {
            self.event(&FlowEvent::Chunk(Chunk {
                direction,
                start: SeqNumber(0),
                at_segment_start,
                ack: SeqNumber(0),
                at: Timestamp(1),
                bytes,
            }));
        }
    }

    pub(super) fn gap(&mut self, direction: Direction, bytes: usize) {
        let bytes = bytes as u32;
        self.event(&FlowEvent::Gap { direction, start: SeqNumber(0), bytes, cause: GapCause::Timeout });
    }

    pub(super) fn close(&mut self) {
        self.event(&FlowEvent::Closed(CloseCause::Finished));
        for (number, seen) in &self.seen {
            assert!(seen.complete ^ seen.dropped.is_some(), "request {number} ended once: {seen:?}");
            assert!(!seen.complete || !seen.held || seen.released, "request {number}: {seen:?}");
        }
    }

    pub(super) fn event(&mut self, event: &FlowEvent<'_>) {
        let Self { flow, seen, passed_over, events } = self;
        flow.handle_event(event, &mut |event| {
            *events += 1;
            note(seen, passed_over, &event);
        });
    }

    pub(super) fn drops(&self) -> Vec<DropReason> {
        self.seen.values().filter_map(|seen| seen.dropped).collect()
    }

    pub(super) fn mirrored(&self) -> Vec<&Seen> {
        self.seen.values().filter(|seen| seen.is_mirrored()).collect()
    }
}

fn note(seen: &mut BTreeMap<u64, Seen>, passed_over: &mut Option<DropReason>, event: &HttpEvent<'_>) {
    let open = |seen: &Seen| !seen.complete && seen.dropped.is_none();
    match event {
        HttpEvent::Request { number, head, held } => {
            let fields = head.fields.iter().map(|f| (f.name.to_owned(), f.value.to_vec())).collect();
            let entry = Seen {
                method: head.method.to_owned(),
                target: head.target.to_owned(),
                fields,
                body_length: Some(head.body),
                held: *held,
                ..Seen::default()
            };
            assert_eq!(seen.insert(number.0, entry), None, "told of twice");
        }
        HttpEvent::Body { number, bytes } => {
            let entry = seen.get_mut(&number.0).expect("a head first");
            assert!(open(entry) && !bytes.is_empty() && entry.trailers.is_empty());
            entry.body.extend_from_slice(bytes);
        }
        HttpEvent::Trailers { number, fields } => {
            let entry = seen.get_mut(&number.0).expect("a head first");
            assert!(open(entry) && entry.trailers.is_empty());
            entry.trailers = fields.iter().map(|f| (f.name.to_owned(), f.value.to_vec())).collect();
        }
        HttpEvent::Released { number } => {
            let entry = seen.get_mut(&number.0).expect("a head first");
            assert!(entry.held && !entry.released && open(entry));
            entry.released = true;
        }
        HttpEvent::Complete { number } => {
            let entry = seen.get_mut(&number.0).expect("a head first");
            assert!(open(entry) && (!entry.held || entry.released));
            entry.complete = true;
        }
        HttpEvent::Dropped { number, reason } => {
            let entry = seen.entry(number.0).or_default();
            assert!(open(entry), "dropped behind its end");
            entry.dropped = Some(*reason);
        }
        HttpEvent::Cancelled { number } => {
            let entry = seen.get_mut(&number.0).expect("a head first");
            assert!(entry.complete && !entry.cancelled && !entry.answered);
            entry.cancelled = true;
        }
        HttpEvent::Answered { number } => {
            let entry = seen.get_mut(&number.0).expect("a head first");
            assert!(entry.complete && !entry.cancelled && !entry.answered);
            entry.answered = true;
        }
        HttpEvent::PassOver { reason } => {
            assert_eq!(*passed_over, None);
            *passed_over = Some(*reason);
        }
        HttpEvent::Client { .. } => panic!("no PROXY header here"),
    }
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

pub(super) fn settings() -> Vec<u8> {
    frame(4, 0, 0, &[])
}

/// Preface and SETTINGS.
pub(super) fn hello() -> Vec<u8> {
    [PREFACE.as_slice(), &settings()].concat()
}

/// A block of literals that are never inserted.
pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(text.len(), 7, 0, &mut block);
            block.extend(text.bytes());
        }
    }
    block
}

pub(super) fn get(path: &str) -> Vec<(&str, &str)> {
    vec![(":method", "GET"), (":scheme", "http"), (":authority", "h"), (":path", path)]
}

pub(super) fn headers(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(1, flags, stream, &block(fields))
}

/// A whole request without body.
pub(super) fn get_frame(stream: u32, path: &str) -> Vec<u8> {
    headers(stream, END_STREAM | END_HEADERS, &get(path))
}

/// The head of an answer.
pub(super) fn answer_frame(stream: u32) -> Vec<u8> {
    frame(1, END_STREAM | END_HEADERS, stream, &[0x88])
}
