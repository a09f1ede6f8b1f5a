//! Finding the next message boundary, after a join in mid-connection or once framing was lost.
//!
//! Bytes inside an upload can look like a request. So a *candidate* is a segment that starts with a request line,
//! and it is released only when proven:
//!
//! - **before**: the server's last answer was seen from its head on, is final, was sent when exactly the bytes
//!   before the candidate had been received, and the client had received all of it when it sent the candidate
//!   ([`AnswerSight::turn_is_over`](super::answers::AnswerSight::turn_is_over));
//! - **after**: the very next bytes of the answer stream are a final answer head, sent when exactly the
//!   candidate's last byte had been received.
//!
//! One such exchange is not enough: had the client pipelined a request and the head of an upload, the answer to
//! that request would be the *before* of a candidate at the start of the upload's body, and the upload's own
//! answer its *after*. So [`PROOFS_WANTED`] such exchanges in a row are asked for, each starting where the one
//! before ended, and the last is released.
//!
//! A candidate without *before* is followed to its end all the same, so that requests within its body
//! are not taken for candidates, and so that it is counted. What follows a candidate directly, in the same
//! segment, is one too; it takes over its *before*, since then the server answers them together.
//! Every candidate whose head was whole and that is not proven ends as
//! [`UnprovenBoundary`](crate::drop_reason::DropReason::UnprovenBoundary), whatever ended it.
//!
//! # What risk remains
//! A request inside an upload is still released when (1) the server answers an upload early, keeps the
//! connection and reads on, and the embedded Content-Length spans the rest of the upload and all of the next
//! request; or (2) the server sends within one answer's content, without Content-Length, segments that
//! themselves look like final answers, in step with the upload's segments (a tunnel of HTTP in HTTP); or (3)
//! a client pipelines at least three requests, is joined behind the head of the last, an upload of nothing
//! but embedded requests, and each earlier answer comes between two segments of that upload. (1) and (2) need
//! a client that aims at it or a tunnel, and gain nothing that the client could not send outright.

use super::answers::{AnswerHeads, Sighting};
use super::framing::UpgradeKind;
use super::request_line::{Plausible, request_line};
use super::tls::TlsTrail;
use super::{Emit, HELD_TIMEOUT, Http1, Place, State};
use crate::drop_reason::DropReason;
use crate::flow::{Glimpse, SeqNumber, Timestamp};
use crate::http::{HttpEvent, RequestNumber};

/// Proven exchanges in a row that make framing trusted again.
pub(super) const PROOFS_WANTED: u8 = 2;

/// What is known while framing is not.
#[derive(Debug, Default)]
pub(super) struct Resync {
    /// Proven exchanges in a row so far, below [`PROOFS_WANTED`].
    proofs: u8,
    /// Where the last followed message ended: what comes there is a candidate too.
    boundary: Option<Boundary>,
    /// The candidate being read, or waiting for its answer.
    pub(super) candidate: Option<Candidate>,
    /// What speaks for a connection that carries no HTTP at all.
    tls: TlsTrail,
}

#[derive(Clone, Copy, Debug)]
struct Boundary {
    at: SeqNumber,
    /// Nothing was answered since the *before* of the message that ends here.
    has_before: bool,
    /// The message that ends here was proven.
    is_proven: bool,
}

/// A message that may be a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Set once its head is whole: from then on it counts.
    pub(super) number: Option<RequestNumber>,
    pub(super) upgrade: Option<UpgradeKind>,
    pub(super) expects_continue: bool,
    /// The server must read no request behind it.
    pub(super) is_last: bool,
    /// Behind its last byte, once that was seen.
    pub(super) end: Option<SeqNumber>,
    start: SeqNumber,
    has_before: bool,
    since: Timestamp,
}

/// What an answer segment says of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Open,
    Refuted,
    Proven { status: u16 },
}

impl Resync {
    /// Behind a message that ended at `at`, where none should follow.
    pub(super) fn behind(at: SeqNumber) -> Self {
        let boundary = Boundary { at, has_before: false, is_proven: false };
        Self { boundary: Some(boundary), ..Self::default() }
    }
}

impl Candidate {
    pub(super) fn timeout(&self) -> Timestamp {
        self.since.after(HELD_TIMEOUT)
    }

    fn judge(&mut self, sighting: Sighting, glimpse: &Glimpse<'_>) -> Verdict {
        let mut heads = AnswerHeads::of(glimpse);
        let first = heads.next();
        if !self.has_before {
            // Nothing can prove it, but a final answer before its end says that it is wrong.
            let is_answered =
                first.is_some_and(|head| !head.is_interim()) && glimpse.ack.is_after(self.start);
            return if is_answered { Verdict::Refuted } else { Verdict::Open };
        }
        let Some(head) = first.filter(|_| sighting == Sighting::Follows) else { return Verdict::Refuted };
        if head.is_interim() {
            // Only the one that was asked for, alone in its segment.
            let is_alone =
                heads.ends().0.and_then(|end| u32::try_from(end).ok()) == Some(glimpse.segment_bytes);
            let is_awaited = std::mem::take(&mut self.expects_continue);
            return if is_alone && is_awaited { Verdict::Open } else { Verdict::Refuted };
        }
        if self.end == Some(glimpse.ack) { Verdict::Proven { status: head.status } } else { Verdict::Refuted }
    }
}

impl Http1 {
    /// Looks for a candidate at the start of `rest`; the number of bytes that are none.
    pub(super) fn seek(&mut self, rest: &[u8], place: Place) -> usize {
        let Some(resync) = &mut self.resync else { return rest.len() };
        let boundary = resync.boundary.take().filter(|boundary| boundary.at == place.seq);
        if !(place.at_segment_start || boundary.is_some()) || request_line(rest) == Plausible::No {
            resync.proofs = 0;
            resync.tls.handle_bytes(rest, place);
            return rest.len();
        }
        let is_over = place.at_segment_start && self.answers.turn_is_over(place.seq, place.ack);
        let has_before = is_over || boundary.is_some_and(|boundary| boundary.has_before);
        if !(has_before && boundary.is_some_and(|boundary| boundary.is_proven || boundary.has_before)) {
            resync.proofs = 0;
        }
        resync.candidate = Some(Candidate {
            number: None,
            upgrade: None,
            expects_continue: false,
            is_last: false,
            end: None,
            start: place.seq,
            has_before,
            since: place.at,
        });
        self.state = State::head();
        0
    }

    /// The candidate's last byte was seen: without *before* there is nothing to wait for.
    pub(super) fn candidate_ended(&mut self, end: SeqNumber, emit: &mut Emit<'_>) {
        let Some(candidate) = self.resync.as_mut().and_then(|resync| resync.candidate.as_mut()) else {
            return;
        };
        candidate.end = Some(end);
        self.state = State::AwaitingProof;
        if !candidate.has_before {
            self.follow_candidate(emit);
        }
    }

    /// Gives up a candidate whose end is known, and takes what comes there for the next one.
    pub(super) fn follow_candidate(&mut self, emit: &mut Emit<'_>) {
        let Some(resync) = &mut self.resync else { return };
        let (proofs, candidate) = (resync.proofs, resync.candidate);
        self.drop_candidate(emit);
        let Some((candidate, resync)) = candidate.zip(self.resync.as_mut()) else { return };
        if let Some(at) = candidate.end {
            let has_before = candidate.has_before;
            resync.boundary = Some(Boundary { at, has_before, is_proven: false });
            resync.proofs = proofs;
        }
    }

    /// Gives up the candidate, if there is one, and seeks on.
    pub(super) fn drop_candidate(&mut self, emit: &mut Emit<'_>) {
        let Some(resync) = &mut self.resync else { return };
        self.state = State::Seeking;
        resync.proofs = 0;
        resync.boundary = None;
        if let Some(number) = resync.candidate.take().and_then(|candidate| candidate.number) {
            emit(HttpEvent::Dropped { number, reason: DropReason::UnprovenBoundary });
        }
    }

    /// Holds an answer segment against the candidate.
    pub(super) fn judge_candidate(&mut self, sighting: Sighting, glimpse: &Glimpse<'_>, emit: &mut Emit<'_>) {
        let Some(resync) = &mut self.resync else { return };
        resync.tls.handle_answer(glimpse.head);
        let Some(candidate) = &mut resync.candidate else {
            self.leave_tls(emit);
            return;
        };
        match candidate.judge(sighting, glimpse) {
            Verdict::Open => {}
            Verdict::Refuted => self.drop_candidate(emit),
            Verdict::Proven { status } => self.candidate_proven(status, emit),
        }
    }

    /// Passes a connection over that proved to carry TLS.
    pub(super) fn leave_tls(&mut self, emit: &mut Emit<'_>) {
        if self.resync.as_ref().is_some_and(|resync| resync.candidate.is_none() && resync.tls.is_tls()) {
            self.state = State::Over;
            self.resync = None;
            emit(HttpEvent::PassOver { reason: DropReason::NotHttp });
        }
    }

    fn candidate_proven(&mut self, status: u16, emit: &mut Emit<'_>) {
        let Some(resync) = &mut self.resync else { return };
        let Some((candidate, at)) = resync.candidate.and_then(|candidate| Some((candidate, candidate.end?)))
        else {
            return;
        };
        let proofs = resync.proofs.saturating_add(1);
        if candidate.upgrade.is_some_and(|kind| kind.is_switched_by(status)) {
            self.switched(candidate.number, emit);
            return;
        }
        if proofs < PROOFS_WANTED {
            self.drop_candidate(emit);
            if let Some(resync) = &mut self.resync {
                resync.proofs = proofs;
                resync.boundary = Some(Boundary { at, has_before: false, is_proven: true });
            }
            return;
        }
        self.resync = None;
        self.unanswered = 0;
        self.await_next(candidate.is_last, at);
        let Some(number) = candidate.number else { return };
        if candidate.upgrade == Some(UpgradeKind::Connect) {
            emit(HttpEvent::Dropped { number, reason: DropReason::Upgrade });
        } else {
            emit(HttpEvent::Released { number });
            emit(HttpEvent::Complete { number });
        }
    }
}
