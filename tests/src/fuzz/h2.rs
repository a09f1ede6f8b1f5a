//! One byte of options, one for the size of pieces (0: whole), then steps: one byte for the kind, and what it needs.

use super::contract::Contract;
use super::frames::{PREFACE, block, frame};
use super::input::Input;
use mirror_daemon::drop_reason::DropReason;
use mirror_daemon::flow::{Chunk, CloseCause, Direction, FlowEvent, GapCause, Glimpse, SeqNumber, Timestamp};
use mirror_daemon::http::h2::frame::MAX_FRAME_BYTES;
use mirror_daemon::http::h2::{H2Flow, H2Options, MAX_BLOCK_BYTES, Synchronisation};
use mirror_daemon::http::{HttpEvent, RequestNumber};

/// One frame in pieces for each direction; a header block, its fields, streams, and the table.
pub(super) const MAX_ALLOCATED_BYTES: usize = 2 * MAX_FRAME_BYTES as usize + 8 * MAX_BLOCK_BYTES;

/// What one input may have of bytes that only pass the time: enough for both directions to be found again once, and not
/// so much that runs are slow.
const MAX_FILLER_BYTES: usize = 48 * 1024;

pub(super) fn run(input: &[u8]) {
    let mut input = Input(input);
    let Some([options, piece_bytes]) = input.array() else { return };
    let whole = play(options, None, input);
    if piece_bytes == 0 {
        return;
    }
    let pieces = play(options, Some(piece_bytes.into()), input);
    // What breaks the rules too often is given up at the end of a piece, so that pieces make a difference.
    if !whole.contract.is_passed_over && !pieces.contract.is_passed_over {
        assert_eq!(whole.told(), pieces.told());
    }
}

/// Runs the script that `input` is.
fn play(options: u8, piece_bytes: Option<usize>, mut input: Input<'_>) -> Wire {
    let mut wire = Wire::new(options, piece_bytes);
    while let Some(kind) = input.byte() {
        if wire.step(kind, &mut input).is_none() {
            break;
        }
        wire.check();
    }
    wire.event(&FlowEvent::Closed(CloseCause::Finished));
    wire.contract.check_end();
    wire
}

/// A connection under test.
struct Wire {
    flow: H2Flow,
    contract: Contract,
    /// Every event, with adjoining pieces of a body as one.
    all_told: Vec<Told>,
    /// The most bytes of one chunk.
    piece_bytes: Option<usize>,
    request: SeqNumber,
    answer: SeqNumber,
    now: Timestamp,
    filler_bytes_left: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Body(RequestNumber, Vec<u8>),
    Dropped(RequestNumber, DropReason),
    Other(String),
}

impl Wire {
    fn new(options: u8, piece_bytes: Option<usize>) -> Self {
        let h2_options = H2Options { tolerate_unknown_fields: options & 4 == 4, ..H2Options::default() };
        let (flow, first_number) = match options & 3 {
            0 | 1 => (H2Flow::at_start(h2_options), 0),
            2 => (H2Flow::joined(h2_options), 0),
            _ => (H2Flow::after_upgrade(h2_options, RequestNumber(1)), 1),
        };
        let mut wire = Self {
            flow,
            contract: Contract::from(first_number),
            all_told: Vec::new(),
            piece_bytes,
            request: SeqNumber(u32::MAX - 99),
            answer: SeqNumber(u32::MAX - 9),
            now: Timestamp(1),
            filler_bytes_left: MAX_FILLER_BYTES,
        };
        if options & 8 == 8 {
            wire.give(Direction::Request, PREFACE);
        }
        wire
    }

    /// Takes one step; `None` where the input ends.
    fn step(&mut self, kind: u8, input: &mut Input<'_>) -> Option<()> {
        match kind & 15 {
            0 | 1 => self.give(Direction::Request, input.counted()?),
            2 => self.give(Direction::Answer, input.counted()?),
            3 | 4 => {
                let frame = read_frame(input)?;
                self.give(Direction::Request, &frame);
            }
            5 => {
                let frame = read_frame(input)?;
                self.give(Direction::Answer, &frame);
            }
            6 => {
                let [choice, stream, flags] = input.array()?;
                self.give(Direction::Request, &frame(1, flags, stream, &block(choice)));
            }
            // So long that a window of the search passes.
            7 => {
                let [stream, length, flags] = input.array()?;
                let filler = frame(0, flags & 1, stream, &vec![0; 64 * usize::from(length)]);
                self.fill(Direction::Request, &filler);
            }
            8 => {
                let [stream, flags] = input.array()?;
                let direction = if kind & 16 == 16 { Direction::Request } else { Direction::Answer };
                let filler = frame(0, flags & 1, stream, &[0; 1500]);
                (0..kind >> 5).for_each(|_| self.fill(direction, &filler));
            }
            9 => {
                let [jump, shown] = input.array()?;
                let segment = read_frame(input)?;
                self.glimpse(jump as i8, shown, &segment);
            }
            10 => {
                let [jump, shown] = input.array()?;
                self.glimpse(jump as i8, shown, input.counted()?);
            }
            11 => self.gap(u16::from_be_bytes(input.array()?).into(), kind & 16 == 16),
            12 => {
                self.now.0 += u64::from(input.byte()?) << 28;
                let Self { flow, contract, all_told: told, now, .. } = self;
                flow.handle_timeout(*now, &mut |event| note(contract, told, &event));
            }
            13 => {
                let Self { flow, contract, all_told: told, .. } = self;
                flow.shed(&mut |event| note(contract, told, &event));
                assert_eq!(flow.synchronisation(), Synchronisation::Searching);
            }
            14 => self.flow.ignore_body(RequestNumber(input.byte()?.into())),
            _ => self.open_or_finish(kind >> 4),
        }
        Some(())
    }

    /// What holds at any moment.
    fn check(&mut self) {
        let allocated_bytes = self.flow.allocated_bytes();
        assert!(allocated_bytes <= MAX_ALLOCATED_BYTES, "{allocated_bytes}");
        let is_trusted = self.flow.synchronisation() == Synchronisation::Synchronised;
        assert!(!(is_trusted && self.flow.wants_whole_answers()), "answers are wanted that prove nothing");
        let _ = self.flow.take_counters();
        assert_eq!(self.flow.take_counters(), None, "counted twice");
    }

    /// What was told, without the bodies of requests that were dropped: how much of such a one is told of is of no
    /// meaning.
    fn told(&self) -> Vec<&Told> {
        let is_dropped = |number: &RequestNumber| {
            self.all_told.iter().any(|told| matches!(told, Told::Dropped(dropped, _) if dropped == number))
        };
        let is_of_meaning = |told: &&Told| !matches!(told, Told::Body(number, _) if is_dropped(number));
        self.all_told.iter().filter(is_of_meaning).collect()
    }

    fn open_or_finish(&mut self, choice: u8) {
        let direction = if choice & 1 == 1 { Direction::Request } else { Direction::Answer };
        match choice & 2 {
            0 => self.event(&FlowEvent::Opened { direction, joined: choice & 4 == 4 }),
            _ => self.event(&FlowEvent::Finished { direction }),
        }
    }

    fn gap(&mut self, bytes: u32, is_request: bool) {
        let (direction, place) = match is_request {
            true => (Direction::Request, &mut self.request),
            false => (Direction::Answer, &mut self.answer),
        };
        let start = *place;
        *place = start.add(bytes);
        self.event(&FlowEvent::Gap { direction, start, bytes, cause: GapCause::Timeout });
    }

    /// Gives a frame as long as there is room for such.
    fn fill(&mut self, direction: Direction, frame: &[u8]) {
        if let Some(left) = self.filler_bytes_left.checked_sub(frame.len()) {
            self.filler_bytes_left = left;
            self.give(direction, frame);
        }
    }

    /// Bytes in order. Those of answers always come whole: where they begin means something.
    fn give(&mut self, direction: Direction, bytes: &[u8]) {
        let most = match direction {
            Direction::Request => self.piece_bytes.unwrap_or(bytes.len()),
            Direction::Answer => bytes.len(),
        };
        for (index, bytes) in pieces(bytes, most.max(1)).enumerate() {
            let (start, ack) = match direction {
                Direction::Request => (self.request, self.answer),
                Direction::Answer => (self.answer, self.request),
            };
            let end = start.add(bytes.len() as u32);
            match direction {
                Direction::Request => self.request = end,
                Direction::Answer => self.answer = end,
            }
            let (at_segment_start, at) = (index == 0, self.now);
            self.event(&FlowEvent::Chunk(Chunk { direction, start, at_segment_start, ack, at, bytes }));
        }
    }

    /// A segment of answers, `jump` bytes away from its place, of which the first `shown` bytes were copied; with
    /// 255 all of it, in two pieces.
    fn glimpse(&mut self, jump: i8, shown: u8, segment: &[u8]) {
        if segment.is_empty() {
            return;
        }
        let start = SeqNumber(self.answer.0.wrapping_add_signed(jump.into()));
        let segment_bytes = segment.len() as u32;
        self.answer = start.add(segment_bytes);
        let (head, tail) = segment.split_at(usize::from(shown).min(segment.len()));
        let (ack, at) = (self.request, self.now);
        let offset_bytes = head.len() as u32;
        self.event(&FlowEvent::Glimpse(Glimpse { start, offset_bytes: 0, ack, at, segment_bytes, head }));
        if shown == 255 && !tail.is_empty() {
            let rest = Glimpse { start, offset_bytes, ack, at, segment_bytes, head: tail };
            self.event(&FlowEvent::Glimpse(rest));
        }
    }

    fn event(&mut self, event: &FlowEvent<'_>) {
        let Self { flow, contract, all_told: told, .. } = self;
        flow.handle_event(event, &mut |event| note(contract, told, &event));
    }
}

/// The first bytes in pieces of so many, where headers are, and the rest whole: one byte after the other is slow.
fn pieces(bytes: &[u8], piece_bytes: usize) -> impl Iterator<Item = &[u8]> {
    const PIECES: usize = 32;
    let (cut, rest) = bytes.split_at(bytes.len().min(piece_bytes.saturating_mul(PIECES)));
    cut.chunks(piece_bytes).chain(rest.chunks(rest.len().max(1)))
}

/// A frame whose header is right.
fn read_frame(input: &mut Input<'_>) -> Option<Vec<u8>> {
    let [kind, flags, stream] = input.array()?;
    Some(frame(kind % 12, flags, stream, input.counted()?))
}

fn note(contract: &mut Contract, told: &mut Vec<Told>, event: &HttpEvent<'_>) {
    contract.note(event);
    match (event, told.last_mut()) {
        (HttpEvent::Body { number, bytes }, Some(Told::Body(last, body))) if last == number => {
            body.extend_from_slice(bytes);
        }
        (HttpEvent::Body { number, bytes }, _) => told.push(Told::Body(*number, bytes.to_vec())),
        (HttpEvent::Dropped { number, reason }, _) => told.push(Told::Dropped(*number, *reason)),
        _ => told.push(Told::Other(format!("{event:?}"))),
    }
}
