//! What holes and ends of the connection cost.

use super::{BodyFraming, Emit, Fate, Http1, State};
use crate::drop_reason::DropReason;
use crate::flow::{CloseCause, SeqNumber};
use crate::http::HttpEvent;

impl Http1 {
    /// `bytes` bytes from `start` on are missing.
    pub(in crate::http) fn handle_gap(&mut self, start: SeqNumber, bytes: u32, emit: &mut Emit<'_>) {
        let end = start.add(bytes);
        self.cursor = Some(end);
        if self.lose_held() || matches!(self.state, State::Over) {
            return;
        }
        let is_trusted = self.resync.is_none();
        match &mut self.state {
            State::Body(request, BodyFraming::Length(remaining))
                if is_trusted && bytes > 0 && *remaining >= u64::from(bytes) =>
            {
                *remaining = remaining.saturating_sub(bytes.into());
                let is_last = *remaining == 0;
                if request.fate == Fate::Told {
                    request.fate = Fate::Dropped;
                    emit(HttpEvent::Dropped { number: request.number, reason: DropReason::Gap });
                }
                if is_last {
                    self.end_body(end, emit);
                }
            }
            _ => self.lose_framing(DropReason::Gap, emit),
        }
    }

    /// Frees what is kept of a head or trailer section in pieces, or behind an undecided upgrade.
    pub(in crate::http) fn shed(&mut self, emit: &mut Emit<'_>) {
        if !self.lose_held() && !matches!(self.state, State::Over) {
            self.lose_framing(DropReason::BufferFull, emit);
        }
    }

    /// Where the next message starts is no longer known. Drops what is open.
    pub(super) fn lose_framing(&mut self, reason: DropReason, emit: &mut Emit<'_>) {
        if self.resync.is_some() {
            self.drop_candidate(emit);
            return;
        }
        self.drop_open(reason, emit);
        self.resync = Some(Box::default());
        self.answers.forget();
        self.state = State::Seeking;
    }

    /// The request direction ended with FIN. Answers may still decide what is whole.
    pub(in crate::http) fn handle_finished(&mut self, emit: &mut Emit<'_>) {
        match &self.state {
            State::Undecided(_) | State::AwaitingProof => {}
            _ => {
                self.drop_open(DropReason::Truncated, emit);
                self.state = State::Over;
            }
        }
    }

    /// The connection is over.
    pub(in crate::http) fn handle_closed(&mut self, cause: CloseCause, emit: &mut Emit<'_>) {
        let reason = match (cause, &self.state) {
            (CloseCause::Reset, _) => DropReason::Reset,
            (CloseCause::Evicted, _) => DropReason::FlowEvicted,
            // Whole, but nobody will ever know what its answer was.
            (_, State::Undecided(_)) => DropReason::Upgrade,
            _ => DropReason::Truncated,
        };
        self.drop_open(reason, emit);
        self.state = State::Over;
    }

    /// Drops the request or candidate that is open, a half head included.
    fn drop_open(&mut self, reason: DropReason, emit: &mut Emit<'_>) {
        if self.resync.is_some() {
            self.drop_candidate(emit);
            return;
        }
        let number = match &self.state {
            State::Head(section) if !section.is_empty() => self.take_number(),
            State::Body(request, _) | State::Undecided(request) if request.fate != Fate::Dropped => {
                request.number
            }
            _ => return,
        };
        emit(HttpEvent::Dropped { number, reason });
    }
}
