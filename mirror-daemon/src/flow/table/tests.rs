#![expect(clippy::arithmetic_side_effects, reason = "tests")]

mod life;
mod order;
mod upkeep;

use super::*;
use crate::flow::{Chunk, Glimpse, SeqNumber};

const SEED: HashSeed = HashSeed([1, 2]);
const ISN: u32 = u32::MAX - 3;
const ANSWER_ISN: u32 = 7_000;

/// Events as text, so that a test reads as a transcript.
#[derive(Debug)]
struct Rig {
    table: FlowTable<u32>,
    now: Timestamp,
    log: Vec<String>,
    selected: Option<bool>,
}

impl Rig {
    fn new() -> Self {
        Self::with(FlowLimits::default(), Answers::Glimpsed)
    }

    fn with(limits: FlowLimits, answers: Answers) -> Self {
        Self {
            table: FlowTable::new(limits, answers, SEED),
            now: Timestamp(1_000_000_000),
            log: Vec::new(),
            selected: None,
        }
    }

    fn send(&mut self, mut segment: Segment<'_>) -> &mut Self {
        segment.at = self.now;
        segment.selected = self.selected;
        let log = &mut self.log;
        self.table.handle_segment(&segment, &mut |key, state, event| note(log, key, state, &event));
        self.assert_books();
        self
    }

    fn lifecycle(&mut self, lifecycle: Lifecycle) -> &mut Self {
        let (log, now) = (&mut self.log, self.now);
        self.table.handle_lifecycle(&key(1), lifecycle, now, &mut |key, state, event| {
            note(log, key, state, &event)
        });
        self.assert_books();
        self
    }

    fn pass_ms(&mut self, ms: u64) -> &mut Self {
        self.now = self.now.after(Duration::from_millis(ms));
        let log = &mut self.log;
        self.table.handle_timeout(self.now, &mut |key, state, event| note(log, key, state, &event));
        self.assert_books();
        if let Some(next) = self.table.next_timeout() {
            assert!(next > self.now, "a time-out that is due was not handled");
        }
        self
    }

    fn open(&mut self) -> &mut Self {
        self.send(syn(1, ISN)).send(syn_ack()).log.clear();
        self
    }

    fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    fn assert_books(&self) {
        let counters = self.table.counters();
        let held = u64::try_from(self.table.held_bytes()).unwrap();
        assert_eq!(
            counters.received_bytes,
            counters.forwarded_bytes + counters.duplicate_bytes + counters.dropped.total() + held,
            "{counters:?}, held {held}"
        );
        let live = self.table.slots.iter().filter(|slot| {
            matches!(slot.content, Content::Live(_)) && self.table.index.contains_key(&slot.key)
        });
        assert_eq!(counters.flows_opened, counters.closed.total() + u64::try_from(live.count()).unwrap());
    }
}

fn note(log: &mut Vec<String>, key: &FlowKey, state: &mut u32, event: &FlowEvent<'_>) {
    *state += 1;
    let side = |direction: &Direction| if *direction == Direction::Request { "req" } else { "ans" };
    let offset = |place: SeqNumber| place.0.wrapping_sub(ISN).wrapping_sub(1).cast_signed();
    let text = match event {
        FlowEvent::Opened { direction, joined } => {
            format!("opened {}{}", side(direction), if *joined { " joined" } else { "" })
        }
        FlowEvent::Chunk(Chunk { direction: Direction::Request, start, bytes, at_segment_start, .. }) => {
            let mark = if *at_segment_start { "^" } else { "" };
            format!("{mark}{}@{}", String::from_utf8_lossy(bytes), offset(*start))
        }
        FlowEvent::Chunk(Chunk { bytes, .. }) => format!("ans {}", String::from_utf8_lossy(bytes)),
        FlowEvent::Gap { direction: Direction::Request, start, bytes, cause } => {
            format!("gap {bytes}@{} {cause:?}", offset(*start))
        }
        FlowEvent::Gap { bytes, cause, .. } => format!("ans gap {bytes} {cause:?}"),
        FlowEvent::Glimpse(Glimpse { head, segment_bytes, offset_bytes, .. }) => {
            let place = if *offset_bytes > 0 { format!(" at {offset_bytes}") } else { String::new() };
            format!("glimpse {}/{segment_bytes}{place}", String::from_utf8_lossy(head))
        }
        FlowEvent::Finished { direction } => format!("finished {}", side(direction)),
        FlowEvent::Closed(cause) => format!("closed {cause:?} after {}", *state),
    };
    log.push(if key.remote_port == 1 { text } else { format!("{}: {text}", key.remote_port) });
}

fn key(remote_port: u16) -> FlowKey {
    FlowKey { remote_port, gateway_port: 80, ..FlowKey::default() }
}

fn request(port: u16, offset: i32, payload: &[u8]) -> Segment<'_> {
    Segment {
        key: key(port),
        direction: Direction::Request,
        seq: SeqNumber(ISN.wrapping_add(1).wrapping_add(offset.cast_unsigned())),
        ack: SeqNumber(ANSWER_ISN + 1),
        flags: TcpFlags::ACK,
        selected: None,
        at: Timestamp(0),
        segment_bytes: u32::try_from(payload.len()).unwrap(),
        offset_bytes: 0,
        payload,
    }
}

fn answer(offset: u32, acked: i32, payload: &[u8]) -> Segment<'_> {
    Segment {
        direction: Direction::Answer,
        seq: SeqNumber(ANSWER_ISN + 1 + offset),
        ack: SeqNumber(ISN.wrapping_add(1).wrapping_add(acked.cast_unsigned())),
        ..request(1, 0, payload)
    }
}

fn flagged(segment: Segment<'_>, flags: TcpFlags) -> Segment<'_> {
    Segment { flags: TcpFlags(segment.flags.0 | flags.0), ..segment }
}

fn syn(port: u16, isn: u32) -> Segment<'static> {
    Segment { seq: SeqNumber(isn), flags: TcpFlags::SYN, ..request(port, 0, b"") }
}

fn syn_ack() -> Segment<'static> {
    let flags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0);
    Segment { seq: SeqNumber(ANSWER_ISN), flags, ..answer(0, 0, b"") }
}
