//! The passive decoder of one connection, fed any events: never panics, ends every request exactly once, keeps its
//! memory within bounds.
//!
//! The input is a list of records: one byte for the kind, one for a length, then as many bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mirror_daemon::flow::{Chunk, CloseCause, Direction, FlowEvent, GapCause, Glimpse, SeqNumber, Timestamp};
use mirror_daemon::http::{HttpEvent, HttpFlow, HttpOptions, MAX_HEAD_BYTES, RequestNumber};

fuzz_target!(|input: &[u8]| {
    let Some((options, mut rest)) = input.split_first() else { return };
    let mut wire = Wire::new(options & 1 == 1, options & 2 == 2);
    while let [kind, length, tail @ ..] = rest {
        let (bytes, behind) = tail.split_at(tail.len().min(usize::from(*length)));
        rest = behind;
        wire.step(*kind, *length, bytes);
    }
    wire.event(&FlowEvent::Closed(CloseCause::Finished));
    assert!(wire.ends.iter().all(|is_ended| *is_ended));
});

struct Wire {
    flow: HttpFlow,
    /// Whether each request has ended.
    ends: Vec<bool>,
    request: SeqNumber,
    answer: SeqNumber,
    now: u64,
}

impl Wire {
    fn new(joined: bool, proxy_protocol: bool) -> Self {
        let flow = HttpFlow::new(HttpOptions { proxy_protocol });
        let (request, answer) = (SeqNumber(u32::MAX - 9), SeqNumber(7));
        let mut wire = Self { flow, ends: Vec::new(), request, answer, now: 0 };
        wire.event(&FlowEvent::Opened { direction: Direction::Request, joined });
        wire
    }

    fn step(&mut self, kind: u8, length: u8, bytes: &[u8]) {
        self.now += 1 << 28;
        let at = Timestamp(self.now);
        let count = u32::try_from(bytes.len()).unwrap();
        match kind % 8 {
            0..=2 if count > 0 => {
                let (start, ack, at_segment_start) = (self.request, self.answer, kind % 8 < 2);
                self.request = start.add(count);
                let direction = Direction::Request;
                let chunk = Chunk { direction, start, at_segment_start, ack, at, bytes };
                self.event(&FlowEvent::Chunk(chunk));
            }
            3 | 4 if count > 0 => {
                let start = self.answer;
                self.answer = start.add(count);
                let glimpse = Glimpse { start, ack: self.request, at, segment_bytes: count, head: bytes };
                self.event(&FlowEvent::Glimpse(glimpse));
            }
            5 => {
                let (start, cause, direction) = (self.request, GapCause::Timeout, Direction::Request);
                self.request = start.add(length.into());
                self.event(&FlowEvent::Gap { direction, start, bytes: length.into(), cause });
            }
            6 => self.flow.ignore_body(),
            7 => {
                let Self { flow, ends, .. } = self;
                flow.handle_timeout(at, &mut |event| note(ends, &event));
            }
            _ => {}
        }
        assert!(self.flow.allocated_bytes() <= 2 * MAX_HEAD_BYTES + 1024);
    }

    fn event(&mut self, event: &FlowEvent<'_>) {
        let Self { flow, ends, .. } = self;
        flow.handle_event(event, &mut |event| note(ends, &event));
    }
}

fn note(ends: &mut Vec<bool>, event: &HttpEvent<'_>) {
    let still_open = |ends: &[bool], number: &RequestNumber| {
        assert_eq!(ends.get(number.0 as usize), Some(&false));
    };
    match event {
        HttpEvent::Request { number, .. } => {
            assert_eq!(number.0 as usize, ends.len());
            ends.push(false);
        }
        HttpEvent::Body { number, .. }
        | HttpEvent::Trailers { number, .. }
        | HttpEvent::Released { number } => still_open(ends, number),
        HttpEvent::Complete { number } | HttpEvent::Dropped { number, .. } => {
            if matches!(event, HttpEvent::Dropped { .. }) && number.0 as usize == ends.len() {
                ends.push(false);
            }
            still_open(ends, number);
            ends[number.0 as usize] = true;
        }
        HttpEvent::Client { .. } | HttpEvent::PassOver { .. } => {}
    }
}
