//! HTTP/1.0 and HTTP/1.1 (RFC 9112): the requests of one connection, and as much of its answers as deciding
//! upgrades and finding lost framing again needs.
//!
//! ```text
//!         ┌────────────────(end of message)────────────────┐
//!         ▼                                                │
//!       Head ──▶ Body(length | chunked | trailers) ────────┤
//!         ▲                                                └─(upgrade asked)─▶ Undecided ──▶ Over
//!         └───────────────────(answered, not upgraded)────────────────────────────┘
//!
//!  any ──(framing lost)──▶ Seeking ──▶ Head ─▶ Body ─▶ AwaitingProof ──(proven)──▶ Head, trusted
//!                             ▲──(not proven)──┴────────┴─────┘
//! ```
//!
//! Behind a request that closes the connection (`Connection: close`, HTTP/1.0) no server reads another one: what
//! comes there counts as framing lost, and is replayed only when it was answered after all.
//!
//! Where a message is dropped although its end is known for certain (a gap wholly inside a body of known
//! length), framing goes on. Where the end is in doubt, it is lost, and nothing is guessed: [`resync`].
//!
//! `Expect: 100-continue` changes no framing: behind a head with a length, either the body follows or the
//! connection closes, whatever the answer was (RFC 9110, 10.1.1).
//!
//! Memory: nothing is allocated while heads come whole in a chunk. A head or trailer section in pieces takes
//! at most [`MAX_HEAD_BYTES`](super::MAX_HEAD_BYTES), bytes behind an undecided upgrade at most
//! [`MAX_HELD_BYTES`].

mod answer;
mod answers;
mod blank_line;
mod chunked;
mod framing;
mod head;
mod loss;
mod message;
mod request_line;
mod resync;
mod tls;
mod upgrade;

pub use answer::{AnswerDecoder, AnswerError, AnswerProgress, AnswerSummary};
pub(super) use request_line::{Plausible, request_line};

use self::answers::{AnswerHeads, AnswerSight, Sighting};
use self::blank_line::Section;
use self::chunked::ChunkedDecoder;
use self::resync::Resync;
use self::upgrade::UpgradeWait;
use super::{HttpEvent, RequestNumber};
use crate::flow::{Chunk, Direction, Glimpse, SeqNumber, Timestamp};
use std::time::Duration;

/// A held request whose answer has not been seen for this long is dropped.
pub const HELD_TIMEOUT: Duration = Duration::from_secs(60);
/// Most bytes kept behind a request that may be upgraded, until its answer; with more, framing is lost.
pub const MAX_HELD_BYTES: usize = 64 * 1024;

/// Where events go. Not generic: one call per message part, and the code is there once.
pub(super) type Emit<'e> = dyn for<'a> FnMut(HttpEvent<'a>) + 'e;

/// The request side of one HTTP/1 connection.
#[derive(Debug)]
pub(super) struct Http1 {
    state: State,
    /// Where the next byte belongs; `None` before the first.
    cursor: Option<SeqNumber>,
    next_number: u64,
    answers: AnswerSight,
    /// Requests whose final answer has not been seen. Too high where answers hide in the middle of segments.
    unanswered: u32,
    /// Set while framing is not trusted.
    resync: Option<Box<Resync>>,
    /// Set when the connection goes on in HTTP/2.
    http2: Option<Box<Http2Start>>,
}

/// Where a connection goes on in HTTP/2, behind `Upgrade: h2c`.
#[derive(Debug)]
pub(super) struct Http2Start {
    /// The number of its next request.
    pub(super) next_number: RequestNumber,
    /// What came behind the request before the answer was seen.
    held: Option<(Vec<u8>, Place)>,
}

impl Http2Start {
    /// The first bytes in HTTP/2, as far as they came already.
    pub(super) fn held_chunk(&self) -> Option<Chunk<'_>> {
        let (bytes, place) = self.held.as_ref()?;
        let Place { seq: start, at_segment_start, ack, at } = *place;
        Some(Chunk { direction: Direction::Request, start, at_segment_start, ack, at, bytes })
    }
}

#[derive(Debug)]
enum State {
    Head(Section),
    Body(OpenRequest, BodyFraming),
    /// The request is whole; whether it is HTTP/1 that follows depends on its answer.
    Undecided(OpenRequest),
    /// Framing is lost.
    Seeking,
    /// The candidate is whole; its answer is to prove it.
    AwaitingProof,
    /// Nothing of interest can follow.
    Over,
}

impl State {
    fn head() -> Self {
        Self::Head(Section::head())
    }
}

/// A request whose end has not been seen, or not been decided.
#[derive(Debug)]
struct OpenRequest {
    number: RequestNumber,
    fate: Fate,
    /// Set when the request may leave HTTP/1.
    upgrade: Option<Box<UpgradeWait>>,
    /// The server must read no request behind this one.
    is_last: bool,
}

/// What is to be told of an open request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// All of it.
    Told,
    /// Its end, but not its body.
    BodyIgnored,
    /// Nothing: it has been dropped.
    Dropped,
}

#[derive(Debug)]
enum BodyFraming {
    /// Bytes to come.
    Length(u64),
    Chunked(ChunkedDecoder),
    Trailers(Section),
}

/// Where bytes come from.
#[derive(Clone, Copy, Debug)]
struct Place {
    seq: SeqNumber,
    at_segment_start: bool,
    ack: SeqNumber,
    at: Timestamp,
}

impl Http1 {
    /// A connection that is known from its first byte.
    pub(super) fn from_start() -> Self {
        Self::new(State::head(), None)
    }

    /// A connection that was joined somewhere.
    pub(super) fn joined() -> Self {
        Self::new(State::Seeking, Some(Box::default()))
    }

    /// The same, where requests were told of before.
    pub(super) fn numbered_from(mut self, next: RequestNumber) -> Self {
        self.next_number = next.0;
        self
    }

    /// The number of the request that is told of next.
    pub(super) fn next_number(&self) -> RequestNumber {
        RequestNumber(self.next_number)
    }

    fn new(state: State, resync: Option<Box<Resync>>) -> Self {
        Self {
            state,
            cursor: None,
            next_number: 0,
            answers: AnswerSight::default(),
            unanswered: 0,
            resync,
            http2: None,
        }
    }

    /// Bytes of the request direction.
    pub(super) fn handle_chunk(&mut self, chunk: &Chunk<'_>, emit: &mut Emit<'_>) {
        if let Some(cursor) = self.cursor.filter(|cursor| *cursor != chunk.start) {
            // The flow stage announces every hole; should it ever not, the bytes are missing all the same.
            self.handle_gap(cursor, chunk.start.bytes_since(cursor), emit);
        }
        let place = Place {
            seq: chunk.start,
            at_segment_start: chunk.at_segment_start,
            ack: chunk.ack,
            at: chunk.at,
        };
        self.run(chunk.bytes, place, emit);
    }

    /// A segment of the answer direction. Gives the bytes of it that were used up, where HTTP/2 follows behind them.
    pub(super) fn handle_glimpse(&mut self, glimpse: &Glimpse<'_>, emit: &mut Emit<'_>) -> Option<usize> {
        // Later pieces of a segment say nothing that HTTP/1 asks for.
        if matches!(self.state, State::Over) || glimpse.offset_bytes > 0 {
            return None;
        }
        let sighting = self.answers.observe(glimpse, self.resync.is_some());
        if sighting == Sighting::Repeated {
            return None;
        }
        if self.resync.is_some() {
            self.judge_candidate(sighting, glimpse, emit);
            return None;
        }
        let mut heads = AnswerHeads::of(glimpse);
        while self.unanswered > 0
            && let Some(head) = heads.next()
        {
            if !head.is_interim() {
                self.unanswered = self.unanswered.saturating_sub(1);
            }
            self.hold_against_upgrade(head, glimpse.ack, emit);
            if self.http2.is_some() {
                return heads.ends().0;
            }
        }
        None
    }

    /// Where the connection went on in HTTP/2; once.
    pub(super) fn take_http2(&mut self) -> Option<Box<Http2Start>> {
        self.http2.take()
    }

    /// Nothing is known of where messages begin, and nothing looks like it: a connection that was joined or has lost
    /// its framing.
    pub(super) fn is_seeking(&self) -> bool {
        matches!(self.state, State::Seeking)
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub(super) fn next_timeout(&self) -> Option<Timestamp> {
        let candidate = self.resync.as_ref().and_then(|resync| resync.candidate);
        candidate.map(|candidate| candidate.timeout()).or_else(|| self.upgrade_timeout())
    }

    /// Drops the held request whose time is up.
    pub(super) fn handle_timeout(&mut self, now: Timestamp, emit: &mut Emit<'_>) {
        if self.next_timeout().is_some_and(|due| due <= now) {
            self.drop_candidate(emit);
            self.drop_undecided(emit);
        }
    }

    /// Behind the last byte of the body being read, if its length is known. For bodies of more than 1 GiB a
    /// place 1 GiB ahead, since places further off could not be told from places behind.
    pub(super) fn body_end(&self) -> Option<SeqNumber> {
        const FURTHEST_BYTES: u32 = 1 << 30;
        match &self.state {
            State::Body(_, BodyFraming::Length(remaining)) => {
                let bytes = u32::try_from(*remaining).unwrap_or(FURTHEST_BYTES).min(FURTHEST_BYTES);
                self.cursor.map(|cursor| cursor.add(bytes))
            }
            _ => None,
        }
    }

    /// Tells nothing more of the body being read but the request's end.
    pub(super) fn ignore_body(&mut self) {
        if let State::Body(request, _) = &mut self.state
            && request.fate == Fate::Told
        {
            request.fate = Fate::BodyIgnored;
        }
    }

    /// Bytes on the heap.
    pub(super) fn allocated_bytes(&self) -> usize {
        let resync_bytes = self.resync.as_ref().map_or(0, |resync| size_of_val(resync.as_ref()));
        let upgrade_bytes =
            |request: &OpenRequest| request.upgrade.as_ref().map_or(0, |wait| wait.allocated_bytes());
        let state_bytes = match &self.state {
            State::Head(section) => section.allocated_bytes(),
            State::Body(request, BodyFraming::Trailers(section)) => {
                section.allocated_bytes().saturating_add(upgrade_bytes(request))
            }
            State::Body(request, _) | State::Undecided(request) => upgrade_bytes(request),
            State::Seeking | State::AwaitingProof | State::Over => 0,
        };
        state_bytes.saturating_add(resync_bytes)
    }

    /// Takes bytes through the states.
    fn run(&mut self, bytes: &[u8], place: Place, emit: &mut Emit<'_>) {
        let mut used = 0_usize;
        while let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
            let offset = u32::try_from(used).unwrap_or(u32::MAX);
            let here = Place {
                seq: place.seq.add(offset),
                at_segment_start: place.at_segment_start && used == 0,
                ..place
            };
            self.cursor = Some(here.seq);
            used = used.saturating_add(self.step(rest, here, emit));
        }
        self.cursor = Some(place.seq.add(u32::try_from(bytes.len()).unwrap_or(u32::MAX)));
    }

    /// Takes a first part of `rest` and says how long it was; 0 only where the state changed towards `Head`.
    fn step(&mut self, rest: &[u8], place: Place, emit: &mut Emit<'_>) -> usize {
        match &mut self.state {
            State::Head(_) => self.read_head(rest, place, emit),
            State::Body(..) => self.read_body(rest, place, emit),
            State::Undecided(_) => self.hold(rest, place),
            State::Seeking => {
                let none_bytes = self.seek(rest, place);
                self.leave_tls(emit);
                none_bytes
            }
            State::AwaitingProof => {
                self.follow_candidate(emit);
                0
            }
            State::Over => rest.len(),
        }
    }
}
