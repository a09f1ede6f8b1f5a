//! The answer direction: read for what it says of requests. That there is an answer, cancellations, settings; no
//! fields, no bodies.
//!
//! It comes in order as chunks, or as glimpses: then of most segments only the beginning, and those that overtook
//! others not at all. Where a hole hides frame headers, the boundaries are lost.
//!
//! - While requests must be proven, boundaries are found again as in requests, with certainty.
//! - Otherwise the beginning of a segment that looks like frames is taken for one. What may be wrong then is the end
//!   of a request under way that the server seems to cancel; it is dropped and counted.

use super::super::frame::{Frame, FrameHead, FrameKind, Piece, SettingId, Settings, flag};
use super::super::hpack::INITIAL_TABLE_BYTES;
use super::super::side::{Boundary, Side, Sight};
use super::requests::Requests;
use super::{Emit, H2Flow, HELD_TIMEOUT, frame_limit, setting};
use crate::flow::{Glimpse, SeqNumber, Timestamp};
use std::time::Duration;

/// Most bytes of answers that are asked for in [`PROOF_PERIOD`] to prove requests: where no proof comes of them, none
/// is likely to, and copying them costs the gateway's machine.
pub(super) const MAX_PROOF_BYTES: u64 = 16 * 1024 * 1024;
/// As long as a request is held.
const PROOF_PERIOD: Duration = HELD_TIMEOUT;

/// How much has been copied of answers without a proof.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ProofBudget {
    /// When the period began.
    since: Timestamp,
    spent_bytes: u64,
}

impl ProofBudget {
    fn spend(&mut self, bytes: usize, at: Timestamp) {
        if at.since(self.since) >= PROOF_PERIOD {
            *self = Self { since: at, spent_bytes: 0 };
        }
        self.spent_bytes = self.spent_bytes.saturating_add(bytes as u64);
    }

    pub(super) fn is_spent(&self) -> bool {
        self.spent_bytes > MAX_PROOF_BYTES
    }
}

/// Where the next glimpse should begin.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AnswerCursor {
    next: Option<SeqNumber>,
}

impl AnswerCursor {
    /// The bytes missing before this glimpse, and those of it that are new; `None` when none is.
    fn place<'a>(&mut self, glimpse: &Glimpse<'a>) -> Option<(u32, &'a [u8])> {
        let start = glimpse.start.add(glimpse.offset_bytes);
        let end = start.add(u32::try_from(glimpse.head.len()).ok()?);
        let next = self.next.unwrap_or(start);
        if !end.is_after(next) {
            return None;
        }
        self.next = Some(end);
        let seen_bytes = usize::try_from(next.bytes_since(start)).ok()?;
        Some((start.bytes_since(next), glimpse.head.get(seen_bytes..)?))
    }
}

impl H2Flow {
    pub(super) fn handle_glimpse(&mut self, glimpse: &Glimpse<'_>, emit: &mut Emit<'_>) {
        let Some((missing_bytes, bytes)) = self.answer_cursor.place(glimpse) else { return };
        if missing_bytes > 0 {
            self.answer.handle_gap(missing_bytes);
        }
        if self.answer.is_guessed() && !self.requests.is_trusted() {
            self.answer.lose();
        }
        let is_beginning = glimpse.offset_bytes == 0 && bytes.len() == glimpse.head.len();
        if self.answer.is_reading() || !self.requests.is_trusted() {
            self.handle_answer_bytes(bytes, glimpse.at, emit);
        } else if is_beginning {
            self.read_answers(false, emit, |answer, see| answer.guess(bytes, see));
        }
    }

    /// Bytes of the answer direction that follow on those before.
    pub(super) fn handle_answer_bytes(&mut self, bytes: &[u8], at: Timestamp, emit: &mut Emit<'_>) {
        if self.requests.has_held() {
            self.proof_budget.spend(bytes.len(), at);
        }
        let is_certain = !self.answer.is_guessed();
        self.read_answers(is_certain, emit, |answer, see| answer.handle_chunk(bytes, see));
    }

    fn read_answers(
        &mut self,
        is_certain: bool,
        emit: &mut Emit<'_>,
        read: impl FnOnce(&mut Side, &mut dyn FnMut(Sight<'_>) -> Boundary),
    ) {
        let Self { request, answer, requests, counters, settings_due, .. } = self;
        let is_whole = answer.is_whole();
        let mut hold_against = |sight: Sight<'_>| match sight {
            // The first segment was missed, and what came first begins anywhere.
            sight if std::mem::take(settings_due) && is_whole && !is_settings(&sight) => Boundary::Wrong,
            Sight::Piece(Piece::Broken(error)) => {
                if is_certain {
                    counters.count_frame(error);
                }
                Boundary::Wrong
            }
            Sight::Piece(Piece::DataEnd(head)) => {
                if head.has(flag::END_STREAM) {
                    requests.handle_answer_end(head.stream, emit);
                }
                Boundary::Right
            }
            Sight::Piece(Piece::Whole(head, payload)) => {
                match Frame::parse(head, payload) {
                    Ok(Some(Frame::Settings(settings))) if is_certain && !settings.is_ack() => {
                        note_server_settings(&settings, is_whole, request, requests);
                    }
                    Ok(Some(frame)) if is_certain => handle_frame(head, frame, requests, emit),
                    Ok(Some(frame)) => handle_hint(head, frame, requests, emit),
                    Ok(None) => {}
                    Err(error) => counters.count_frame(error),
                }
                Boundary::Right
            }
            Sight::Piece(_) | Sight::Found => Boundary::Right,
        };
        read(answer, &mut hold_against);
    }
}

/// What a server says first (RFC 9113, 3.4).
fn is_settings(sight: &Sight<'_>) -> bool {
    matches!(sight, Sight::Piece(Piece::Whole(head, _)) if head.kind == FrameKind::Settings && !head.has(flag::ACK))
}

/// What the server allows the client to send.
fn note_server_settings(
    settings: &Settings<'_>,
    is_whole: bool,
    request: &mut Side,
    requests: &mut Requests,
) {
    if let Some(bytes) = frame_limit(settings, is_whole) {
        request.limit_frames(bytes);
    }
    let table_bytes = setting(settings, SettingId::HeaderTableSize);
    if let Some(bytes) = table_bytes.or(is_whole.then_some(INITIAL_TABLE_BYTES)) {
        requests.bound_size_updates(bytes);
    }
}

fn handle_frame(head: FrameHead, frame: Frame<'_>, requests: &mut Requests, emit: &mut Emit<'_>) {
    match frame {
        Frame::Headers { .. } => requests.handle_answer(head.stream, emit),
        Frame::GoAway { last_stream, .. } => requests.cancel_above(last_stream, emit),
        _ => {}
    }
    handle_hint(head, frame, requests, emit);
}

/// What may be believed of a frame whose place is a guess.
fn handle_hint(head: FrameHead, frame: Frame<'_>, requests: &mut Requests, emit: &mut Emit<'_>) {
    match frame {
        Frame::Headers { end_stream: true, .. } => requests.handle_answer_end(head.stream, emit),
        Frame::RstStream { .. } => {
            requests.cancel(head.stream, emit);
            requests.handle_answer_end(head.stream, emit);
        }
        _ => {}
    }
}
