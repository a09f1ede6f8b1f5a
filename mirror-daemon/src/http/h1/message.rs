//! Reading heads and bodies of requests, trusted ones and candidates alike.

use super::blank_line::{Section, SectionStep};
use super::chunked::{ChunkedDecoder, ChunkedPiece};
use super::head::{self, HeadTraits};
use super::resync::Resync;
use super::upgrade::UpgradeWait;
use super::{BodyFraming, Emit, Fate, Http1, OpenRequest, Place, Plausible, State, request_line};
use crate::drop_reason::DropReason;
use crate::flow::SeqNumber;
use crate::http::{BodyLength, HttpEvent, MAX_HEAD_BYTES, RequestNumber};

/// A head in pieces is held against the grammar of its first line while it has at most so many bytes, lest
/// another protocol is taken for a head until that is too large.
const MAX_EARLY_CHECK_BYTES: usize = 1024;

impl Http1 {
    /// Reads on in a head; the number of bytes used.
    pub(super) fn read_head(&mut self, rest: &[u8], place: Place, emit: &mut Emit<'_>) -> usize {
        let State::Head(section) = &mut self.state else { return rest.len() };
        if section.is_empty() {
            // RFC 9112, 2.2: empty lines before a request line are ignored.
            let empty = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            if empty > 0 {
                return empty;
            }
            if request_line(rest) == Plausible::No {
                self.refuse_head(rest, DropReason::Malformed, emit);
                return rest.len();
            }
        }
        let buffered;
        let (end, head) = match section.push(rest, MAX_HEAD_BYTES) {
            SectionStep::Partial => {
                let is_early = section.bytes().len() <= MAX_EARLY_CHECK_BYTES;
                if is_early && request_line(section.bytes()) == Plausible::No {
                    let start = section.take();
                    self.refuse_head(&start, DropReason::Malformed, emit);
                }
                return rest.len();
            }
            SectionStep::TooLarge => {
                let start = section.take();
                self.refuse_head(&start, DropReason::HeadTooLarge, emit);
                return rest.len();
            }
            SectionStep::InPlace(end) => (end, rest.get(..end).unwrap_or_default()),
            SectionStep::Buffered(end) => {
                buffered = section.take();
                (end, buffered.as_slice())
            }
        };
        match self.begin_request(head, behind(place, end), emit) {
            Ok(()) => end,
            Err(reason) => {
                self.refuse_head(head, reason, emit);
                rest.len()
            }
        }
    }

    /// The head that begins with `start` is no right one: framing is lost. What never looked like HTTP from
    /// the first byte of the connection on is another protocol.
    fn refuse_head(&mut self, start: &[u8], reason: DropReason, emit: &mut Emit<'_>) {
        // Taken away first, so that losing framing doesn't count the half head once more.
        self.state = State::Seeking;
        if self.resync.is_none() {
            if self.next_number == 0 && request_line(start) == Plausible::No {
                self.state = State::Over;
                emit(HttpEvent::PassOver { reason: DropReason::NotHttp });
                return;
            }
            let number = self.take_number();
            emit(HttpEvent::Dropped { number, reason });
        }
        self.lose_framing(reason, emit);
    }

    /// Tells of a whole head, and sets the state behind it.
    fn begin_request(&mut self, bytes: &[u8], place: Place, emit: &mut Emit<'_>) -> Result<(), DropReason> {
        let number = RequestNumber(self.next_number);
        let is_candidate = self.resync.is_some();
        let traits = head::read(bytes, |head, traits| {
            let held = is_candidate || traits.upgrade.is_some();
            emit(HttpEvent::Request { number, head, held });
        })?;
        self.take_number();
        let upgrade = if is_candidate {
            self.count_candidate(number, traits);
            None
        } else {
            let ahead = self.unanswered;
            self.unanswered = ahead.saturating_add(1);
            traits.upgrade.map(|kind| Box::new(UpgradeWait::new(kind, ahead, place.seq, place.ack, place.at)))
        };
        let request = OpenRequest { number, fate: Fate::Told, upgrade, is_last: traits.is_last };
        match traits.body {
            BodyLength::None | BodyLength::Known(0) => self.end_request(request, place.seq, emit),
            BodyLength::Known(bytes) => self.state = State::Body(request, BodyFraming::Length(bytes)),
            BodyLength::Chunked => {
                self.state = State::Body(request, BodyFraming::Chunked(ChunkedDecoder::default()));
            }
        }
        Ok(())
    }

    fn count_candidate(&mut self, number: RequestNumber, traits: HeadTraits) {
        if let Some(candidate) = self.resync.as_mut().and_then(|resync| resync.candidate.as_mut()) {
            candidate.number = Some(number);
            candidate.upgrade = traits.upgrade;
            candidate.expects_continue = traits.expects_continue;
            candidate.is_last = traits.is_last;
        }
    }

    /// Reads on in a body; the number of bytes used.
    pub(super) fn read_body(&mut self, rest: &[u8], place: Place, emit: &mut Emit<'_>) -> usize {
        let State::Body(request, framing) = &mut self.state else { return rest.len() };
        let number = request.number;
        let mut tell = |bytes: &[u8], fate: Fate| {
            if fate == Fate::Told {
                emit(HttpEvent::Body { number, bytes });
            }
        };
        match framing {
            BodyFraming::Length(remaining) => {
                let used = usize::try_from(*remaining).unwrap_or(usize::MAX).min(rest.len());
                *remaining = remaining.saturating_sub(used as u64);
                let is_last = *remaining == 0;
                tell(rest.get(..used).unwrap_or_default(), request.fate);
                if is_last {
                    self.end_body(behind(place, used).seq, emit);
                }
                used
            }
            BodyFraming::Chunked(decoder) => match decoder.step(rest) {
                Ok((used, ChunkedPiece::Framing)) => used,
                Ok((used, ChunkedPiece::Content(content))) => {
                    tell(content, request.fate);
                    used
                }
                Ok((used, ChunkedPiece::Last)) => {
                    *framing = BodyFraming::Trailers(Section::trailers());
                    used
                }
                Err(_) => {
                    self.lose_framing(DropReason::Smuggling, emit);
                    rest.len()
                }
            },
            BodyFraming::Trailers(section) => {
                let (used, result) = match section.push(rest, MAX_HEAD_BYTES) {
                    SectionStep::Partial => return rest.len(),
                    SectionStep::TooLarge => (rest.len(), Err(DropReason::HeadTooLarge)),
                    SectionStep::InPlace(end) => {
                        (end, tell_trailers(request, rest.get(..end).unwrap_or_default(), emit))
                    }
                    SectionStep::Buffered(end) => {
                        let bytes = section.take();
                        (end, tell_trailers(request, &bytes, emit))
                    }
                };
                match result {
                    Ok(()) => {
                        self.end_body(behind(place, used).seq, emit);
                        used
                    }
                    Err(reason) => {
                        self.lose_framing(reason, emit);
                        rest.len()
                    }
                }
            }
        }
    }

    /// The body that was being read is over at `end`.
    pub(super) fn end_body(&mut self, end: SeqNumber, emit: &mut Emit<'_>) {
        if let State::Body(request, _) = std::mem::replace(&mut self.state, State::head()) {
            self.end_request(request, end, emit);
        }
    }

    fn end_request(&mut self, request: OpenRequest, end: SeqNumber, emit: &mut Emit<'_>) {
        if self.resync.is_some() {
            self.candidate_ended(end, emit);
        } else if request.upgrade.is_some() {
            self.state = State::Undecided(request);
        } else {
            self.await_next(request.is_last, end);
            if request.fate != Fate::Dropped {
                emit(HttpEvent::Complete { number: request.number });
            }
        }
    }

    /// The next message starts at `end`. Behind a last request it has to prove itself.
    pub(super) fn await_next(&mut self, is_last: bool, end: SeqNumber) {
        self.state = State::head();
        if is_last {
            self.state = State::Seeking;
            self.resync = Some(Box::new(Resync::behind(end)));
            self.answers.forget();
        }
    }

    pub(super) fn take_number(&mut self) -> RequestNumber {
        let number = RequestNumber(self.next_number);
        self.next_number = self.next_number.wrapping_add(1);
        number
    }
}

fn behind(place: Place, bytes: usize) -> Place {
    Place { seq: place.seq.add(u32::try_from(bytes).unwrap_or(u32::MAX)), ..place }
}

fn tell_trailers(request: &OpenRequest, bytes: &[u8], emit: &mut Emit<'_>) -> Result<(), DropReason> {
    let (number, fate) = (request.number, request.fate);
    head::read_trailers(bytes, |fields| {
        if fate == Fate::Told {
            emit(HttpEvent::Trailers { number, fields });
        }
    })
}
