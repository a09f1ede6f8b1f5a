//! One byte of options, then steps: one byte for the kind, one for a length, then as many bytes.

use super::contract::Contract;
use super::frames::{PREFACE, block, frame};
use super::h2::MAX_ALLOCATED_BYTES;
use super::input::Input;
use mirror_daemon::flow::{Chunk, CloseCause, Direction, FlowEvent, GapCause, Glimpse, SeqNumber, Timestamp};
use mirror_daemon::http::h2::H2Options;
use mirror_daemon::http::{HttpFlow, HttpOptions, MAX_HEAD_BYTES};

/// A head in pieces, and what grows to take it, where the connection is none of HTTP/2.
const MAX_HTTP1_BYTES: usize = 2 * MAX_HEAD_BYTES + 1024;

pub(super) fn run(input: &[u8]) {
    let mut input = Input(input);
    let Some(options) = input.byte() else { return };
    let mut wire = Wire::new(options);
    while let Some([kind, length]) = input.array() {
        wire.step(kind, length, input.bytes(length.into()));
        wire.check();
    }
    wire.event(&FlowEvent::Closed(CloseCause::Finished));
    wire.contract.check_end();
    assert_eq!(wire.flow.allocated_bytes(), 0, "nothing is held behind the end");
}

/// A connection under test.
struct Wire {
    flow: HttpFlow,
    contract: Contract,
    request: SeqNumber,
    answer: SeqNumber,
    now: u64,
}

impl Wire {
    fn new(options: u8) -> Self {
        let http2 = H2Options { tolerate_unknown_fields: options & 4 == 4, ..H2Options::default() };
        let flow = HttpFlow::new(HttpOptions { proxy_protocol: options & 2 == 2, http2 });
        let (request, answer) = (SeqNumber(u32::MAX - 9), SeqNumber(7));
        let mut wire = Self { flow, contract: Contract::default(), request, answer, now: 0 };
        wire.event(&FlowEvent::Opened { direction: Direction::Request, joined: options & 1 == 1 });
        wire
    }

    fn step(&mut self, kind: u8, length: u8, bytes: &[u8]) {
        self.now += 1 << 28;
        match kind % 16 {
            kind @ 0..=2 => self.give(kind < 2, bytes),
            kind @ (3 | 4) => self.answer(if kind == 3 { bytes.len() } else { bytes.len() / 2 }, bytes),
            5 => {
                let (start, cause, direction) = (self.request, GapCause::Timeout, Direction::Request);
                self.request = start.add(length.into());
                self.event(&FlowEvent::Gap { direction, start, bytes: length.into(), cause });
            }
            6 => self.flow.ignore_body(),
            7 => {
                let Self { flow, contract, now, .. } = self;
                flow.handle_timeout(Timestamp(*now), &mut |event| contract.note(&event));
            }
            8 => {
                let Self { flow, contract, .. } = self;
                flow.shed(&mut |event| contract.note(&event));
            }
            9 => self.event(&FlowEvent::Finished { direction: Direction::Request }),
            10 => self.give(true, PREFACE),
            11 => self.give(true, &frame(1, kind >> 4, length, &block(bytes.first().copied().unwrap_or(1)))),
            12 => self.give(true, &frame(kind >> 4, 0, length, bytes)),
            13 => self.answer_frame(&frame(kind >> 4, 5, length, bytes)),
            // So long that the search for frames ends.
            14 => (0..kind >> 4).for_each(|_| self.give(true, &frame(0, 0, length, &[0; 1500]))),
            _ => (0..kind >> 4).for_each(|_| self.answer_frame(&frame(0, 0, length, &[0; 1500]))),
        }
    }

    /// What holds at any moment.
    fn check(&mut self) {
        let is_http2 = self.flow.synchronisation().is_some();
        let allowed = if is_http2 { MAX_ALLOCATED_BYTES } else { MAX_HTTP1_BYTES };
        let allocated_bytes = self.flow.allocated_bytes();
        assert!(allocated_bytes <= allowed, "{allocated_bytes}");
        assert!(is_http2 || !self.flow.wants_whole_answers());
        let _ = self.flow.take_http2_counters();
    }

    /// Request bytes in order.
    fn give(&mut self, at_segment_start: bool, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let (start, ack, at, direction) =
            (self.request, self.answer, Timestamp(self.now), Direction::Request);
        self.request = start.add(bytes.len() as u32);
        self.event(&FlowEvent::Chunk(Chunk { direction, start, at_segment_start, ack, at, bytes }));
    }

    fn answer_frame(&mut self, bytes: &[u8]) {
        self.answer(bytes.len(), bytes);
    }

    /// A segment of the answer, of which the first `shown` bytes were copied.
    fn answer(&mut self, shown: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let (start, ack, at) = (self.answer, self.request, Timestamp(self.now));
        let segment_bytes = bytes.len() as u32;
        self.answer = start.add(segment_bytes);
        let head = &bytes[..shown];
        self.event(&FlowEvent::Glimpse(Glimpse { start, offset_bytes: 0, ack, at, segment_bytes, head }));
    }

    fn event(&mut self, event: &FlowEvent<'_>) {
        let Self { flow, contract, .. } = self;
        flow.handle_event(event, &mut |event| contract.note(&event));
    }
}
