//! Requests that ask to leave HTTP/1: held until their answer says whether they did (RFC 9110, 7.8 and 9.3.6).
//!
//! The answer is the first final one behind those of the requests before, sent when the head had been
//! received, and behind what the client had acknowledged when it sent the head. 101 needs no counting: only
//! this request can have caused it. Where the count of answers is in doubt (they hid in the middle of segments) the
//! request stays undecided and is dropped in the end. A refused CONNECT is dropped as well: there is nothing to
//! replay.

use super::answers::AnswerHead;
use super::framing::UpgradeKind;
use super::{Emit, Fate, HELD_TIMEOUT, Http1, Http2Start, MAX_HELD_BYTES, OpenRequest, Place, State};
use crate::drop_reason::DropReason;
use crate::flow::{SeqNumber, Timestamp};
use crate::http::{HttpEvent, RequestNumber};

/// What an undecided request waits for, and the bytes that wait with it.
#[derive(Debug)]
pub(super) struct UpgradeWait {
    kind: UpgradeKind,
    /// Final answers that come first.
    ahead: u32,
    /// Behind the request's head.
    head_end: SeqNumber,
    /// Where its answer can start at the earliest.
    answer_from: SeqNumber,
    since: Timestamp,
    held: Held,
}

/// Bytes behind an undecided request.
#[derive(Debug)]
enum Held {
    Nothing,
    Bytes(Vec<u8>, Place),
    /// More than [`MAX_HELD_BYTES`], or some were missed: what follows can't be framed.
    Lost,
}

impl UpgradeWait {
    pub(super) fn new(
        kind: UpgradeKind,
        ahead: u32,
        head_end: SeqNumber,
        answer_from: SeqNumber,
        since: Timestamp,
    ) -> Self {
        Self { kind, ahead, head_end, answer_from, since, held: Held::Nothing }
    }

    /// Bytes on the heap, this value's own included.
    pub(super) fn allocated_bytes(&self) -> usize {
        let held_bytes = match &self.held {
            Held::Bytes(bytes, _) => bytes.capacity(),
            Held::Nothing | Held::Lost => 0,
        };
        size_of::<Self>().saturating_add(held_bytes)
    }

    /// Whether `head` decides, and how: true when HTTP/1 was left.
    fn decide(&mut self, head: AnswerHead, ack: SeqNumber) -> Option<bool> {
        if head.is_interim() {
            return None;
        }
        let is_behind = !ack.is_before(self.head_end) && !head.start.is_before(self.answer_from);
        if self.ahead > 0 && !(head.status == 101 && is_behind) {
            self.ahead = self.ahead.saturating_sub(1);
            return None;
        }
        is_behind.then(|| self.kind.is_switched_by(head.status))
    }
}

impl Http1 {
    /// Holds an answer's head against the request that may be upgraded, if there is one.
    pub(super) fn hold_against_upgrade(&mut self, head: AnswerHead, ack: SeqNumber, emit: &mut Emit<'_>) {
        let (State::Body(request, _) | State::Undecided(request)) = &mut self.state else { return };
        let Some(wait) = &mut request.upgrade else { return };
        match wait.decide(head, ack) {
            None => {}
            Some(true) if wait.kind == UpgradeKind::Http2 => self.left_for_http2(emit),
            Some(true) => {
                let number = (request.fate != Fate::Dropped).then_some(request.number);
                self.switched(number, emit);
            }
            Some(false) => self.refused(emit),
        }
    }

    /// HTTP/1 was left: nothing that follows is of interest.
    pub(super) fn switched(&mut self, number: Option<RequestNumber>, emit: &mut Emit<'_>) {
        self.state = State::Over;
        self.resync = None;
        if let Some(number) = number {
            emit(HttpEvent::Dropped { number, reason: DropReason::Upgrade });
        }
        emit(HttpEvent::PassOver { reason: DropReason::Upgrade });
    }

    /// The connection goes on in HTTP/2. The request that asked for it is whole, and like any other.
    fn left_for_http2(&mut self, emit: &mut Emit<'_>) {
        let State::Undecided(request) = &mut self.state else {
            // The answer came before the request was at its end: where HTTP/2 begins is not known.
            let number = match &self.state {
                State::Body(request, _) if request.fate != Fate::Dropped => Some(request.number),
                _ => None,
            };
            return self.switched(number, emit);
        };
        let OpenRequest { number, fate, .. } = *request;
        let held = request.upgrade.take().map(|wait| wait.held);
        if fate != Fate::Dropped {
            emit(HttpEvent::Released { number });
            emit(HttpEvent::Complete { number });
        }
        let held = match held {
            Some(Held::Bytes(bytes, place)) => Some((bytes, place)),
            Some(Held::Nothing) => None,
            Some(Held::Lost) | None => return self.switched(None, emit),
        };
        self.state = State::Over;
        self.http2 = Some(Box::new(Http2Start { next_number: RequestNumber(self.next_number), held }));
    }

    /// The upgrade was refused: the request is like any other, and what follows is HTTP/1.
    fn refused(&mut self, emit: &mut Emit<'_>) {
        match &mut self.state {
            State::Body(request, _) => {
                if let Some(wait) = request.upgrade.take() {
                    settle(request, wait.kind, emit);
                }
            }
            State::Undecided(request) => {
                let Some(wait) = request.upgrade.take() else { return };
                settle(request, wait.kind, emit);
                if request.fate != Fate::Dropped {
                    emit(HttpEvent::Complete { number: request.number });
                }
                let is_last = request.is_last;
                match wait.held {
                    Held::Nothing => self.await_next(is_last, self.cursor.unwrap_or(wait.head_end)),
                    Held::Bytes(bytes, place) => {
                        self.await_next(is_last, place.seq);
                        self.run(&bytes, place, emit);
                    }
                    Held::Lost => {
                        self.state = State::head();
                        self.lose_framing(DropReason::Gap, emit);
                    }
                }
            }
            _ => {}
        }
    }

    /// Keeps bytes behind an undecided request.
    pub(super) fn hold(&mut self, rest: &[u8], place: Place) -> usize {
        if let State::Undecided(OpenRequest { upgrade: Some(wait), .. }) = &mut self.state {
            match &mut wait.held {
                Held::Nothing if rest.len() <= MAX_HELD_BYTES => {
                    wait.held = Held::Bytes(rest.to_vec(), place);
                }
                Held::Bytes(bytes, _) if bytes.len().saturating_add(rest.len()) <= MAX_HELD_BYTES => {
                    bytes.extend_from_slice(rest);
                }
                held => *held = Held::Lost,
            }
        }
        rest.len()
    }

    /// Bytes behind an undecided request were missed; false when there is none.
    pub(super) fn lose_held(&mut self) -> bool {
        if let State::Undecided(OpenRequest { upgrade: Some(wait), .. }) = &mut self.state {
            wait.held = Held::Lost;
            return true;
        }
        false
    }

    pub(super) fn upgrade_timeout(&self) -> Option<Timestamp> {
        match &self.state {
            State::Body(request, _) | State::Undecided(request) if request.fate != Fate::Dropped => {
                request.upgrade.as_ref().map(|wait| wait.since.after(HELD_TIMEOUT))
            }
            _ => None,
        }
    }

    /// Drops an undecided request. Its answer still decides how the connection goes on.
    pub(super) fn drop_undecided(&mut self, emit: &mut Emit<'_>) {
        if let State::Body(request, _) | State::Undecided(request) = &mut self.state
            && request.upgrade.is_some()
            && request.fate != Fate::Dropped
        {
            request.fate = Fate::Dropped;
            emit(HttpEvent::Dropped { number: request.number, reason: DropReason::Upgrade });
        }
    }
}

/// Releases a request whose upgrade was refused, or drops it where there is nothing to replay.
fn settle(request: &mut OpenRequest, kind: UpgradeKind, emit: &mut Emit<'_>) {
    let number = request.number;
    match (request.fate, kind) {
        (Fate::Dropped, _) => {}
        (_, UpgradeKind::Upgrade | UpgradeKind::Http2) => emit(HttpEvent::Released { number }),
        (_, UpgradeKind::Connect) => {
            request.fate = Fate::Dropped;
            emit(HttpEvent::Dropped { number, reason: DropReason::Upgrade });
        }
    }
}
