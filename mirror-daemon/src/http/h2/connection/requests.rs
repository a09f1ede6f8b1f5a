//! The requests of one connection: from frames to events.
//!
//! Header blocks are decoded whether their request is wanted or not, for the dynamic table is shared.
//! An error in a header block costs its request and the table, which is unknown from there on; the
//! connection goes on.

mod blocks;

pub use blocks::MAX_BLOCK_BYTES;

use super::Emit;
use crate::drop_reason::DropReason;
use crate::flow::Timestamp;
use crate::http::h2::H2Options;
use crate::http::h2::counters::{H2Counters, Incident};
use crate::http::h2::frame::{Frame, FrameError, FrameHead, FrameKind, Piece, StreamId, flag};
use crate::http::h2::head::HeadError;
use crate::http::h2::hpack::{FieldBlock, FieldLimits, HpackDecoder, INITIAL_TABLE_BYTES};
use crate::http::h2::stream::{Answering, Stream, StreamState, Streams};
use crate::http::{Field, HttpEvent, MAX_FIELDS, MAX_HEAD_BYTES, RequestNumber};
use blocks::Block;

const FIELD_LIMITS: FieldLimits = FieldLimits { list_bytes: MAX_HEAD_BYTES, count: MAX_FIELDS };

/// Requests of one connection.
#[derive(Debug)]
pub(in crate::http::h2) struct Requests {
    options: H2Options,
    hpack: HpackDecoder,
    /// Decoded fields, and lines borrowing them: kept for their memory.
    fields: FieldBlock,
    lines: Vec<Field<'static>>,
    block: Block,
    block_bytes: Vec<u8>,
    streams: Streams,
    answering: Answering,
    next_number: u64,
    /// The highest stream that was opened, as far as seen.
    highest: StreamId,
    /// `highest` while the boundaries were last certain.
    highest_certain: StreamId,
    /// Every stream that was opened has been seen, so that `highest` tells idle streams.
    sees_all: bool,
    trust: Trust,
    /// The server acts on no stream above this one.
    last_accepted: StreamId,
    /// SETTINGS must come first.
    settings_due: bool,
    setting_bytes: Option<u32>,
    now: Timestamp,
}

/// Whether requests go at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// Yes.
    Full,
    /// Not before an answer on the stream of a held request was seen.
    None,
}

impl Requests {
    /// Streams up to `highest` are known to have been opened.
    pub(in crate::http::h2) fn at_start(options: H2Options, highest: StreamId) -> Self {
        let mut requests = Self::joined(options);
        requests.hpack = HpackDecoder::new(FIELD_LIMITS);
        requests.trust = Trust::Full;
        requests.sees_all = true;
        requests.settings_due = true;
        requests.highest = highest;
        requests.highest_certain = highest;
        requests
    }

    pub(in crate::http::h2) fn joined(options: H2Options) -> Self {
        Self {
            options,
            hpack: HpackDecoder::joined(FIELD_LIMITS),
            fields: FieldBlock::default(),
            lines: Vec::new(),
            block: Block::None,
            block_bytes: Vec::new(),
            streams: Streams::default(),
            answering: Answering::default(),
            next_number: 0,
            highest: StreamId::ZERO,
            highest_certain: StreamId::ZERO,
            sees_all: false,
            trust: Trust::None,
            last_accepted: StreamId::new(u32::MAX),
            settings_due: false,
            setting_bytes: None,
            now: Timestamp::default(),
        }
    }

    pub(in crate::http::h2) fn number_from(&mut self, next: RequestNumber) {
        self.next_number = next.0;
    }

    pub(in crate::http::h2) fn next_number(&self) -> RequestNumber {
        RequestNumber(self.next_number)
    }

    pub(in crate::http::h2) fn set_now(&mut self, now: Timestamp) {
        self.now = now;
    }

    pub(in crate::http::h2) fn is_trusted(&self) -> bool {
        self.trust == Trust::Full
    }

    pub(in crate::http::h2) fn is_table_whole(&self) -> bool {
        self.hpack.is_whole()
    }

    pub(in crate::http::h2) fn allocated_bytes(&self) -> usize {
        let lines = self.lines.capacity().saturating_mul(size_of::<Field<'_>>());
        [
            self.hpack.allocated_bytes(),
            self.fields.allocated_bytes(),
            lines,
            self.block_bytes.capacity(),
            self.streams.allocated_bytes(),
            self.answering.allocated_bytes(),
        ]
        .iter()
        .fold(0, |sum: usize, bytes| sum.saturating_add(*bytes))
    }

    /// The server's SETTINGS_HEADER_TABLE_SIZE. Never lowered: it is not known when a lower value came into
    /// force.
    pub(in crate::http::h2) fn bound_size_updates(&mut self, setting_bytes: u32) {
        let bytes = setting_bytes.max(self.setting_bytes.unwrap_or(INITIAL_TABLE_BYTES));
        self.setting_bytes = Some(bytes);
        self.hpack.bound_size_updates(bytes);
    }

    /// Takes one piece of the request direction.
    ///
    /// # Errors
    /// A violation that concerns the whole connection.
    pub(in crate::http::h2) fn handle_piece(
        &mut self,
        piece: Piece<'_>,
        counters: &mut H2Counters,
        emit: &mut Emit<'_>,
    ) -> Result<(), FrameError> {
        match piece {
            Piece::Preface => Ok(()),
            Piece::Broken(error) => Err(error),
            Piece::DataStart(head) => {
                self.check_order(head)?;
                self.check_idle(head)
            }
            Piece::Data(head, bytes) => {
                self.handle_data(head.stream, bytes, counters, emit);
                Ok(())
            }
            Piece::DataEnd(head) => {
                if head.has(flag::END_STREAM) {
                    self.end_stream(head.stream, counters, emit);
                }
                Ok(())
            }
            Piece::Ignored(head) => {
                counters.count(Incident::UnknownFrame);
                self.check_order(head)
            }
            Piece::Whole(head, payload) => {
                self.check_order(head)?;
                self.handle_whole(head, payload, counters, emit)
            }
        }
    }

    /// A part of the payload behind `head` is missing; all frames behind it are found without doubt.
    pub(in crate::http::h2) fn handle_lost_payload(
        &mut self,
        head: FrameHead,
        counters: &mut H2Counters,
        emit: &mut Emit<'_>,
    ) {
        match head.kind {
            FrameKind::Data => {
                let ignored = self.streams.find(head.stream).is_some_and(|stream| stream.body_ignored);
                if !ignored {
                    self.drop_open(head.stream, DropReason::Gap, emit);
                }
            }
            FrameKind::Headers | FrameKind::Continuation => {
                self.forget_table(counters);
                self.skip_block(head);
                self.drop_block(head.stream, DropReason::Gap, emit);
            }
            FrameKind::RstStream => self.cancel_by_client(head.stream, emit),
            _ => {}
        }
    }

    /// A request whose head has begun, in a header block of several frames or in the frame `half`, is lost. Where
    /// boundaries are not certain it may be none.
    pub(in crate::http::h2) fn drop_half_head(
        &mut self,
        half: Option<FrameHead>,
        reason: DropReason,
        emit: &mut Emit<'_>,
    ) {
        let stream = match self.block {
            Block::Collecting { stream, .. } => stream,
            Block::None => half.map_or(StreamId::ZERO, |head| head.stream),
            // That one is counted.
            Block::Lost { .. } => return,
        };
        if self.trust == Trust::Full && stream > self.highest {
            self.drop_block(stream, reason, emit);
        }
    }

    /// The boundaries are lost, or never were right: what has begun cannot end.
    pub(in crate::http::h2) fn lose_boundaries(&mut self, reason: DropReason, emit: &mut Emit<'_>) {
        self.drop_half_head(None, reason, emit);
        self.streams.remove_where(
            |_| true,
            |stream| {
                let reason = if stream.held { DropReason::UnprovenBoundary } else { reason };
                emit(HttpEvent::Dropped { number: stream.number, reason });
            },
        );
        self.hpack.forget();
        self.block = Block::None;
        self.settings_due = false;
        self.sees_all = false;
        self.trust = Trust::None;
        self.highest = self.highest_certain;
        self.answering = Answering::default();
    }

    /// An answer was seen on `stream`.
    pub(in crate::http::h2) fn handle_answer(&mut self, stream: StreamId, emit: &mut Emit<'_>) {
        if self.trust == Trust::Full {
            return;
        }
        if self.streams.find(stream).is_some_and(|stream| stream.held) {
            self.release_all(emit);
        }
    }

    /// RST_STREAM from either side: a request that has not ended never will.
    pub(in crate::http::h2) fn cancel(&mut self, stream: StreamId, emit: &mut Emit<'_>) {
        self.drop_open(stream, DropReason::Cancelled, emit);
    }

    /// The client wants no more of the answer on `stream` (RFC 9113, 8.7).
    fn cancel_by_client(&mut self, stream: StreamId, emit: &mut Emit<'_>) {
        self.cancel(stream, emit);
        if let Some(number) = self.answering.take(stream) {
            emit(HttpEvent::Cancelled { number });
        }
    }

    /// The answer on `stream` is at its end.
    pub(in crate::http::h2) fn handle_answer_end(&mut self, stream: StreamId, emit: &mut Emit<'_>) {
        if let Some(number) = self.answering.take(stream) {
            emit(HttpEvent::Answered { number });
        }
    }

    /// Everything under way is given up for want of room.
    pub(in crate::http::h2) fn shed(&mut self, emit: &mut Emit<'_>) {
        self.lose_boundaries(DropReason::BufferFull, emit);
        self.block_bytes = Vec::new();
        self.fields = FieldBlock::default();
    }

    /// GOAWAY: the server does not act on streams above `last`, nor on new ones: the client sends those requests
    /// again on another connection (RFC 9113, 6.8).
    pub(in crate::http::h2) fn cancel_above(&mut self, last: StreamId, emit: &mut Emit<'_>) {
        self.last_accepted = self.last_accepted.min(last);
        self.drop_where(|stream| stream.id > last, DropReason::Cancelled, emit);
    }

    /// No more bytes come: requests that have not ended never will.
    pub(in crate::http::h2) fn end_open(&mut self, reason: DropReason, emit: &mut Emit<'_>) {
        self.drop_where(|stream| stream.state == StreamState::Open, reason, emit);
    }

    /// The connection is over.
    pub(in crate::http::h2) fn end_all(&mut self, reason: DropReason, emit: &mut Emit<'_>) {
        self.end_open(reason, emit);
        self.drop_where(|_| true, DropReason::UnprovenBoundary, emit);
    }

    /// Whether a request waits for its proof.
    pub(in crate::http::h2) fn has_held(&self) -> bool {
        self.trust == Trust::None && self.streams.iter().any(|stream| stream.held)
    }

    /// When the oldest of the held requests began.
    pub(in crate::http::h2) fn oldest_held(&self) -> Option<Timestamp> {
        if self.trust == Trust::Full {
            return None;
        }
        self.streams.iter().find(|stream| stream.held).map(|stream| stream.since)
    }

    pub(in crate::http::h2) fn drop_held(
        &mut self,
        too_old: impl Fn(Timestamp) -> bool,
        emit: &mut Emit<'_>,
    ) {
        self.drop_where(|stream| stream.held && too_old(stream.since), DropReason::UnprovenBoundary, emit);
    }

    pub(in crate::http::h2) fn ignore_body(&mut self, number: RequestNumber) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.number == number) {
            stream.body_ignored = true;
        }
    }

    /// Streams of the client's that were never opened take no frames (RFC 9113, 5.1).
    fn check_idle(&self, head: FrameHead) -> Result<(), FrameError> {
        let idle = self.sees_all && head.stream.is_client() && head.stream > self.highest;
        if idle { Err(FrameError::IdleStream) } else { Ok(()) }
    }

    fn handle_whole(
        &mut self,
        head: FrameHead,
        payload: &[u8],
        counters: &mut H2Counters,
        emit: &mut Emit<'_>,
    ) -> Result<(), FrameError> {
        let frame = match Frame::parse(head, payload) {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(()),
            Err(error) if error.is_stream_error() => {
                counters.count_frame(error);
                self.handle_stream_error(head, counters, emit);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        match frame {
            Frame::Headers { end_stream, end_headers, fragment } => {
                let stream = head.stream;
                if end_headers {
                    return self.handle_block((stream, end_stream), fragment, counters, emit);
                }
                self.block = Block::Collecting { stream, end_stream, continuations: 0 };
                self.block_bytes.clear();
                self.block_bytes.extend_from_slice(fragment);
            }
            Frame::Continuation { end_headers, fragment } => {
                return self.handle_continuation(end_headers, fragment, counters, emit);
            }
            Frame::RstStream { .. } => {
                self.check_idle(head)?;
                self.cancel_by_client(head.stream, emit);
            }
            Frame::WindowUpdate { .. } => self.check_idle(head)?,
            Frame::PushPromise { .. } => return Err(FrameError::PushPromise),
            Frame::Priority | Frame::Settings(_) | Frame::Ping { .. } | Frame::GoAway { .. } => {}
        }
        Ok(())
    }

    /// The stream is in error and its request will not be acted upon (RFC 9113, 5.4.2).
    fn handle_stream_error(&mut self, head: FrameHead, counters: &mut H2Counters, emit: &mut Emit<'_>) {
        if head.kind == FrameKind::Headers {
            // Its fragment was not decoded.
            self.forget_table(counters);
            self.skip_block(head);
            self.drop_block(head.stream, DropReason::Malformed, emit);
        } else {
            self.drop_open(head.stream, DropReason::Malformed, emit);
        }
    }

    fn handle_data(&mut self, id: StreamId, bytes: &[u8], counters: &mut H2Counters, emit: &mut Emit<'_>) {
        // Others were dropped, or opened before the join.
        let Some(stream) = self.streams.find(id) else { return };
        if stream.state == StreamState::Ended {
            counters.count_frame(FrameError::StreamClosed);
            return;
        }
        stream.received_bytes = stream.received_bytes.saturating_add(bytes.len() as u64);
        if stream.declared_bytes.is_some_and(|declared| stream.received_bytes > declared) {
            counters.count_head(HeadError::ContentLengthMismatch);
            return self.drop_open(id, DropReason::Malformed, emit);
        }
        if !stream.body_ignored {
            emit(HttpEvent::Body { number: stream.number, bytes });
        }
    }

    /// The request of this stream is whole.
    fn end_stream(&mut self, id: StreamId, counters: &mut H2Counters, emit: &mut Emit<'_>) {
        let Some(stream) = self.streams.find(id).filter(|stream| stream.state == StreamState::Open) else {
            return;
        };
        let differs = stream.declared_bytes.is_some_and(|declared| stream.received_bytes != declared);
        if differs && !stream.body_ignored {
            counters.count_head(HeadError::ContentLengthMismatch);
            return self.drop_open(id, DropReason::Malformed, emit);
        }
        stream.state = StreamState::Ended;
        if !stream.held {
            let number = stream.number;
            emit(HttpEvent::Complete { number });
            self.streams.remove(id);
            self.answering.add(id, number);
        }
    }

    /// One held request was answered: this and all others go.
    fn release_all(&mut self, emit: &mut Emit<'_>) {
        self.highest_certain = self.highest;
        self.trust = Trust::Full;
        for stream in self.streams.iter_mut().filter(|stream| stream.held) {
            stream.held = false;
            emit(HttpEvent::Released { number: stream.number });
        }
        let Self { streams, answering, .. } = self;
        streams.remove_where(
            |stream| stream.state == StreamState::Ended,
            |stream| {
                emit(HttpEvent::Complete { number: stream.number });
                answering.add(stream.id, stream.number);
            },
        );
    }

    fn drop_open(&mut self, id: StreamId, reason: DropReason, emit: &mut Emit<'_>) {
        if self.streams.find(id).is_some_and(|stream| stream.state == StreamState::Open)
            && let Some(stream) = self.streams.remove(id)
        {
            emit(HttpEvent::Dropped { number: stream.number, reason });
        }
    }

    fn drop_where(&mut self, gone: impl Fn(&Stream) -> bool, reason: DropReason, emit: &mut Emit<'_>) {
        self.streams.remove_where(gone, |stream| emit(HttpEvent::Dropped { number: stream.number, reason }));
    }

    fn take_number(&mut self) -> RequestNumber {
        let number = RequestNumber(self.next_number);
        self.next_number = self.next_number.saturating_add(1);
        number
    }
}
