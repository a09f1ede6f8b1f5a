//! The passive decoder of one HTTP/2 connection.

mod answers;
mod requests;

pub use requests::MAX_BLOCK_BYTES;

use super::counters::{H2Counters, Incident};
use super::frame::{DEFAULT_FRAME_BYTES, FrameError, FrameKind};
use super::frame::{Frame, Piece, SettingId, Settings, StreamId, flag};
use super::side::{Boundary, Side, Sight};
use crate::drop_reason::DropReason;
use crate::flow::{Chunk, CloseCause, Direction, FlowEvent, Timestamp};
use crate::http::{HttpEvent, RequestNumber};
use answers::{AnswerCursor, ProofBudget};
use requests::Requests;
use std::time::Duration;

/// A held request whose answer has not been seen for this long is dropped.
const HELD_TIMEOUT: Duration = Duration::from_secs(60);
/// Violations by a connection whose boundaries are certain, before it is given up: what breaks the rules so
/// often is no HTTP/2, or is no use.
const MAX_VIOLATIONS: u32 = 64;

/// Where events go.
pub(super) type Emit<'e> = dyn for<'a> FnMut(HttpEvent<'a>) + 'e;

/// How a connection is decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct H2Options {
    /// Mirror a request although ordinary fields of it are unknown (joined late); they are left out.
    pub tolerate_unknown_fields: bool,
    /// Largest frame that a sender may make although its peer's SETTINGS were not seen, in bytes, at most
    /// [`MAX_FRAME_BYTES`](super::frame::MAX_FRAME_BYTES); `None`: 16 KiB, which needs no setting. Boundaries that were
    /// lost are certain behind a stretch that is longer.
    pub largest_frame_bytes: Option<u32>,
}

impl H2Options {
    fn sides(self, make: fn(Direction, Option<u32>) -> Side) -> (Side, Side) {
        (
            make(Direction::Request, self.largest_frame_bytes),
            make(Direction::Answer, self.largest_frame_bytes),
        )
    }
}

/// How far the requests of a connection can be trusted; for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Synchronisation {
    /// No frame boundary is known; nothing is decoded.
    Searching,
    /// Requests are decoded and held until one is answered.
    Unproven,
    /// Requests are decoded and told of at once.
    Synchronised,
}

/// The passive decoder of one HTTP/2 connection.
///
/// Feed it every [`FlowEvent`] of the connection, in order. Requests need the request direction only, as
/// long as it is whole from its start. After a join or a loss across frame headers, decoding starts at the
/// first frame header that is proven, and requests are held until an answer was seen on the stream of one of
/// them; for that, the bytes of answers must come whole ([`wants_whole_answers`](Self::wants_whole_answers)), as
/// chunks or as glimpses. Cancellations by the server, and its settings, are seen where the glimpses show them.
///
/// Bounds: [`MAX_STREAMS`](super::MAX_STREAMS) streams, [`MAX_BLOCK_BYTES`] of a header block,
/// [`MAX_TABLE_BYTES`](super::hpack::MAX_TABLE_BYTES) of table, one frame of at most
/// [`MAX_FRAME_BYTES`](super::frame::MAX_FRAME_BYTES) that came in pieces. No body is kept.
#[derive(Debug)]
pub struct H2Flow {
    /// As in [`H2Options`].
    largest_frame_bytes: Option<u32>,
    request: Side,
    answer: Side,
    answer_cursor: AnswerCursor,
    proof_budget: ProofBudget,
    /// The server's SETTINGS must come first.
    settings_due: bool,
    requests: Requests,
    /// Counts that were not taken yet.
    counters: Box<H2Counters>,
    violations: u32,
    passed_over: bool,
}

impl H2Flow {
    /// At the start of a connection, before the preface (prior knowledge, or ALPN).
    #[must_use]
    pub fn at_start(options: H2Options) -> Self {
        let sides = options.sides(Side::at_start);
        Self::new(options, sides, Requests::at_start(options, StreamId::ZERO))
    }

    /// Behind an HTTP/1 request that was answered with `101` and `Upgrade: h2c` (RFC 7540, 3.2): before the
    /// client's preface, and behind the head of the answer. Stream 1 is that request, which was told of as
    /// HTTP/1; `next_number` is for the next one.
    #[must_use]
    pub fn after_upgrade(options: H2Options, next_number: RequestNumber) -> Self {
        let mut requests = Requests::at_start(options, StreamId::new(1));
        requests.number_from(next_number);
        let sides = options.sides(Side::at_start);
        Self::new(options, sides, requests)
    }

    /// In the middle of a connection.
    #[must_use]
    pub fn joined(options: H2Options) -> Self {
        let sides = options.sides(Side::joined);
        Self::new(options, sides, Requests::joined(options))
    }

    /// The same, where requests were told of before, in whatever version.
    pub(in crate::http) fn numbered_from(mut self, next: RequestNumber) -> Self {
        self.requests.number_from(next);
        self
    }

    /// The number of the request that is told of next.
    pub(in crate::http) fn next_number(&self) -> RequestNumber {
        self.requests.next_number()
    }

    fn new(options: H2Options, (request, answer): (Side, Side), requests: Requests) -> Self {
        Self {
            largest_frame_bytes: options.largest_frame_bytes,
            request,
            answer,
            answer_cursor: AnswerCursor::default(),
            proof_budget: ProofBudget::default(),
            settings_due: true,
            requests,
            counters: Box::default(),
            violations: 0,
            passed_over: false,
        }
    }

    /// Takes one event of the connection.
    pub fn handle_event(&mut self, event: &FlowEvent<'_>, on_event: &mut impl FnMut(HttpEvent<'_>)) {
        if self.passed_over {
            return;
        }
        match event {
            FlowEvent::Opened { direction, joined: true } => self.handle_join(*direction, on_event),
            FlowEvent::Chunk(chunk) => self.handle_chunk(chunk, on_event),
            FlowEvent::Gap { direction, bytes, .. } if *bytes > 0 => {
                self.handle_gap(*direction, *bytes, on_event);
            }
            FlowEvent::Finished { direction: Direction::Request } => {
                self.drop_half_head(DropReason::Truncated, on_event);
                self.requests.end_open(DropReason::Truncated, on_event);
            }
            FlowEvent::Closed(cause) => {
                self.drop_half_head(close_reason(*cause), on_event);
                self.requests.end_all(close_reason(*cause), on_event);
                self.passed_over = true;
            }
            FlowEvent::Glimpse(glimpse) => self.handle_glimpse(glimpse, on_event),
            FlowEvent::Opened { .. } | FlowEvent::Gap { .. } | FlowEvent::Finished { .. } => {}
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout); `None`: not before more events.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Timestamp> {
        Some(self.requests.oldest_held()?.after(HELD_TIMEOUT))
    }

    /// Drops what has been held for too long.
    pub fn handle_timeout(&mut self, now: Timestamp, on_event: &mut impl FnMut(HttpEvent<'_>)) {
        self.requests.drop_held(|since| now.since(since) >= HELD_TIMEOUT, on_event);
    }

    /// Says that the rest of this request's body is of no interest: it is told no more, and bytes missing in
    /// it are no loss. The request still ends in `Complete` or `Dropped`.
    pub fn ignore_body(&mut self, number: RequestNumber) {
        self.requests.ignore_body(number);
    }

    /// How far the requests can be trusted.
    #[must_use]
    pub fn synchronisation(&self) -> Synchronisation {
        match (self.requests.is_trusted(), self.request.is_reading()) {
            (_, false) => Synchronisation::Searching,
            (false, true) => Synchronisation::Unproven,
            (true, true) => Synchronisation::Synchronised,
        }
    }

    /// True when every entry of the requests' dynamic table is known.
    #[must_use]
    pub fn is_table_whole(&self) -> bool {
        self.requests.is_table_whole()
    }

    /// Counts since the last call; `None` when there are none.
    pub fn take_counters(&mut self) -> Option<H2Counters> {
        (!self.counters.is_empty()).then(|| std::mem::take(&mut *self.counters))
    }

    /// Whether answers are to be copied whole: while requests wait for one that proves them, and not too much was
    /// copied in vain (16 MiB a minute). Otherwise the beginnings
    /// of segments will do, for what they still tell is welcome and not needed.
    #[must_use]
    pub fn wants_whole_answers(&self) -> bool {
        self.requests.has_held() && !self.proof_budget.is_spent()
    }

    /// There is no room for what [`allocated_bytes`](Self::allocated_bytes) counts: gives it up. Requests under way
    /// are dropped, and the boundaries have to be found again.
    pub fn shed(&mut self, on_event: &mut impl FnMut(HttpEvent<'_>)) {
        self.counters.count(Incident::LostBoundaries);
        self.drop_half_head(DropReason::BufferFull, on_event);
        self.requests.shed(on_event);
        self.request.lose();
        self.answer.lose();
    }

    /// Bytes allocated behind this value, for the caller's total bound.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        let sides = self.request.allocated_bytes().saturating_add(self.answer.allocated_bytes());
        sides.saturating_add(self.requests.allocated_bytes()).saturating_add(size_of::<H2Counters>())
    }

    fn handle_join(&mut self, direction: Direction, emit: &mut Emit<'_>) {
        match direction {
            Direction::Request => {
                self.request = Side::joined(Direction::Request, self.largest_frame_bytes);
                self.requests.lose_boundaries(DropReason::UnprovenBoundary, emit);
            }
            Direction::Answer => {
                self.answer = Side::joined(Direction::Answer, self.largest_frame_bytes);
            }
        }
    }

    fn handle_chunk(&mut self, chunk: &Chunk<'_>, emit: &mut Emit<'_>) {
        match chunk.direction {
            Direction::Request => self.handle_request_chunk(chunk, emit),
            Direction::Answer => self.handle_answer_bytes(chunk.bytes, chunk.at, emit),
        }
        if self.violations > MAX_VIOLATIONS {
            self.pass_over(DropReason::Malformed, emit);
        }
    }

    fn handle_request_chunk(&mut self, chunk: &Chunk<'_>, emit: &mut Emit<'_>) {
        let Self { request, answer, requests, counters, violations, .. } = self;
        let mut bad_preface = false;
        let is_whole = request.is_whole();
        requests.set_now(chunk.at);
        request.handle_chunk(chunk.bytes, &mut |sight| {
            let seen = match sight {
                Sight::Piece(piece) => {
                    note_client_settings(&piece, is_whole, answer);
                    requests.handle_piece(piece, counters, emit)
                }
                Sight::Found => {
                    counters.count(Incident::FoundBoundaries);
                    return Boundary::Right;
                }
            };
            let Err(error) = seen else { return Boundary::Right };
            bad_preface |= error == FrameError::BadPreface;
            if requests.is_trusted() {
                counters.count_frame(error);
                counters.count(Incident::LostBoundaries);
                *violations = violations.saturating_add(1);
                requests.lose_boundaries(DropReason::Malformed, emit);
            } else {
                counters.count(Incident::WrongBoundaries);
                requests.lose_boundaries(DropReason::UnprovenBoundary, emit);
            }
            Boundary::Wrong
        });
        if bad_preface {
            self.pass_over(DropReason::NotHttp, emit);
        }
    }

    fn handle_gap(&mut self, direction: Direction, bytes: u32, emit: &mut Emit<'_>) {
        if direction == Direction::Answer {
            self.answer.handle_gap(bytes);
            return;
        }
        let half = self.request.half_headers();
        match self.request.handle_gap(bytes) {
            Some(head) => self.requests.handle_lost_payload(head, &mut self.counters, emit),
            None => {
                self.counters.count(Incident::LostBoundaries);
                self.requests.drop_half_head(half, DropReason::Gap, emit);
                self.requests.lose_boundaries(DropReason::Gap, emit);
            }
        }
    }

    /// The head of a request that has begun will not end.
    fn drop_half_head(&mut self, reason: DropReason, emit: &mut Emit<'_>) {
        self.requests.drop_half_head(self.request.half_headers(), reason, emit);
    }

    fn pass_over(&mut self, reason: DropReason, emit: &mut Emit<'_>) {
        self.requests.end_all(DropReason::Malformed, emit);
        self.passed_over = true;
        emit(HttpEvent::PassOver { reason });
    }
}

/// What the client allows the server to send.
fn note_client_settings(piece: &Piece<'_>, is_whole: bool, answer: &mut Side) {
    if let Piece::Whole(head, payload) = piece
        && head.kind == FrameKind::Settings
        && !head.has(flag::ACK)
        && let Ok(Some(Frame::Settings(settings))) = Frame::parse(*head, payload)
        && let Some(bytes) = frame_limit(&settings, is_whole)
    {
        answer.limit_frames(bytes);
    }
}

/// The largest frame that `settings` allow. `None`: they do not say, and others may have said it before.
fn frame_limit(settings: &Settings<'_>, is_whole: bool) -> Option<u32> {
    setting(settings, SettingId::MaxFrameSize).or(is_whole.then_some(DEFAULT_FRAME_BYTES))
}

/// The last value of `wanted`; `None`: not in there.
fn setting(settings: &Settings<'_>, wanted: SettingId) -> Option<u32> {
    settings.iter().filter(|(id, _)| *id == wanted).map(|(_, value)| value).last()
}

fn close_reason(cause: CloseCause) -> DropReason {
    match cause {
        CloseCause::Reset => DropReason::Reset,
        CloseCause::Evicted => DropReason::FlowEvicted,
        CloseCause::Finished
        | CloseCause::Idle
        | CloseCause::Reused
        | CloseCause::NotGateway
        | CloseCause::CaptureEnded => DropReason::Truncated,
    }
}
