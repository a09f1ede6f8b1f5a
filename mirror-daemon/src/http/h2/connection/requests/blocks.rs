//! Header blocks: joining their fragments, decoding them, and what they begin or end.

use super::{Emit, Requests, Trust};
use crate::drop_reason::DropReason;
use crate::http::h2::counters::{H2Counters, Incident};
use crate::http::h2::frame::{FrameError, FrameHead, FrameKind, StreamId, flag};
use crate::http::h2::head::{Context, HeadError, read_request, read_trailers};
use crate::http::h2::hpack::{FieldBlock, HpackError};
use crate::http::h2::stream::{Stream, StreamState};
use crate::http::{BodyLength, Field, HttpEvent, MAX_HEAD_BYTES};

/// Most bytes of a header block in pieces. With more, its request is dropped and the table unknown.
pub const MAX_BLOCK_BYTES: usize = MAX_HEAD_BYTES;
/// Most CONTINUATION frames of a header block, empty ones too.
const MAX_CONTINUATIONS: u32 = 64;
/// Buffers for header blocks, and for what they say, that are kept between them: each at most so large.
const KEPT_BLOCK_BYTES: usize = 4096;
/// The same for fields, in fields.
const KEPT_LINES: usize = 64;

/// A header block that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    None,
    /// Its fragments are being joined in `block_bytes`.
    Collecting {
        stream: StreamId,
        end_stream: bool,
        continuations: u32,
    },
    /// Part of it is lost; what is left is read over.
    Lost {
        stream: StreamId,
    },
}

impl Requests {
    /// A header block is not interrupted, and SETTINGS come first (RFC 9113, 3.4, 6.10).
    pub(super) fn check_order(&mut self, head: FrameHead) -> Result<(), FrameError> {
        let open = match self.block {
            Block::None => None,
            Block::Collecting { stream, .. } | Block::Lost { stream } => Some(stream),
        };
        match (open, head.kind) {
            (Some(stream), FrameKind::Continuation) if stream == head.stream => Ok(()),
            (Some(_), _) => Err(FrameError::ContinuationExpected),
            (None, FrameKind::Continuation) => Err(FrameError::ContinuationUnexpected),
            (None, FrameKind::Settings) => {
                self.settings_due = false;
                Ok(())
            }
            (None, _) if self.settings_due => Err(FrameError::FirstFrameNotSettings),
            (None, _) => Ok(()),
        }
    }

    pub(super) fn handle_continuation(
        &mut self,
        end_headers: bool,
        fragment: &[u8],
        counters: &mut H2Counters,
        emit: &mut Emit<'_>,
    ) -> Result<(), FrameError> {
        let (stream, end_stream, continuations) = match self.block {
            Block::None => return Err(FrameError::ContinuationUnexpected),
            Block::Lost { .. } => {
                if end_headers {
                    self.block = Block::None;
                }
                return Ok(());
            }
            Block::Collecting { stream, end_stream, continuations } => (stream, end_stream, continuations),
        };
        let block_bytes = self.block_bytes.len().saturating_add(fragment.len());
        if continuations >= MAX_CONTINUATIONS || block_bytes > MAX_BLOCK_BYTES {
            counters.count_frame(FrameError::HeaderBlockTooLarge);
            self.forget_table(counters);
            self.block = if end_headers { Block::None } else { Block::Lost { stream } };
            self.block_bytes = Vec::new();
            self.drop_block(stream, DropReason::HeadTooLarge, emit);
            return Ok(());
        }
        self.block_bytes.extend_from_slice(fragment);
        if !end_headers {
            let continuations = continuations.saturating_add(1);
            self.block = Block::Collecting { stream, end_stream, continuations };
            return Ok(());
        }
        self.block = Block::None;
        let mut block = std::mem::take(&mut self.block_bytes);
        let outcome = self.handle_block((stream, end_stream), &block, counters, emit);
        block.clear();
        block.shrink_to(KEPT_BLOCK_BYTES);
        self.block_bytes = block;
        outcome
    }

    /// A whole header block: the head of a request, trailers, or of no interest.
    pub(super) fn handle_block(
        &mut self,
        (stream, end_stream): (StreamId, bool),
        block: &[u8],
        counters: &mut H2Counters,
        emit: &mut Emit<'_>,
    ) -> Result<(), FrameError> {
        let mut fields = std::mem::take(&mut self.fields);
        let decoded = self.hpack.decode(block, &mut fields);
        let outcome = match decoded {
            Ok(()) => {
                let context =
                    Context { end_stream, tolerate_unknown_fields: self.options.tolerate_unknown_fields };
                self.handle_fields((stream, &fields), context, counters, emit)
            }
            Err(error) => {
                counters.count_hpack(error);
                let reason = match error {
                    HpackError::FieldsTooLarge => DropReason::HeadTooLarge,
                    _ => DropReason::Malformed,
                };
                self.drop_block(stream, reason, emit);
                Ok(())
            }
        };
        fields.give_back(KEPT_BLOCK_BYTES);
        self.fields = fields;
        outcome
    }

    fn handle_fields(
        &mut self,
        (stream, fields): (StreamId, &FieldBlock),
        context: Context,
        counters: &mut H2Counters,
        emit: &mut Emit<'_>,
    ) -> Result<(), FrameError> {
        let mut lines = recycle(std::mem::take(&mut self.lines));
        let outcome = if stream > self.highest {
            self.raise_highest(stream);
            self.begin((stream, fields), &mut lines, context, (counters, emit));
            Ok(())
        } else if self.streams.find(stream).is_some_and(|stream| stream.state == StreamState::Open) {
            let trailers = read_trailers(fields, &mut lines, context);
            self.handle_trailers(stream, trailers.map(|()| &lines[..]), counters, emit);
            Ok(())
        } else if self.streams.find(stream).is_some() {
            // It has ended and is held.
            counters.count_frame(FrameError::StreamClosed);
            Ok(())
        } else if fields.has_known(b":method") {
            Err(FrameError::StreamIdNotIncreasing)
        } else {
            // Trailers of a stream that was dropped, or opened before the join.
            Ok(())
        };
        self.lines = recycle(lines);
        self.lines.shrink_to(KEPT_LINES);
        outcome
    }

    /// The head of a new request.
    fn begin<'f>(
        &mut self,
        (id, block): (StreamId, &'f FieldBlock),
        lines: &mut Vec<Field<'f>>,
        context: Context,
        (counters, emit): (&mut H2Counters, &mut Emit<'_>),
    ) {
        let number = self.take_number();
        let held = self.trust != Trust::Full;
        let head = match read_request(block, lines, context) {
            Ok(head) => head,
            Err(error) => {
                counters.count_head(error);
                return emit(HttpEvent::Dropped { number, reason: error.drop_reason() });
            }
        };
        if id > self.last_accepted {
            return emit(HttpEvent::Dropped { number, reason: DropReason::Cancelled });
        }
        if self.streams.is_full() && (held || !context.end_stream) {
            return emit(HttpEvent::Dropped { number, reason: DropReason::FlowEvicted });
        }
        let declared_bytes = match head.body {
            BodyLength::Known(bytes) => Some(bytes),
            BodyLength::None | BodyLength::Chunked => None,
        };
        emit(HttpEvent::Request { number, head, held });
        if context.end_stream && !held {
            self.answering.add(id, number);
            return emit(HttpEvent::Complete { number });
        }
        self.streams.add(Stream {
            id,
            number,
            state: if context.end_stream { StreamState::Ended } else { StreamState::Open },
            held,
            body_ignored: false,
            since: self.now,
            declared_bytes,
            received_bytes: 0,
        });
    }

    fn handle_trailers(
        &mut self,
        id: StreamId,
        trailers: Result<&[Field<'_>], HeadError>,
        counters: &mut H2Counters,
        emit: &mut Emit<'_>,
    ) {
        let Some(stream) = self.streams.find(id).copied() else { return };
        match trailers {
            Ok(fields) => {
                if !fields.is_empty() {
                    emit(HttpEvent::Trailers { number: stream.number, fields });
                }
                self.end_stream(id, counters, emit);
            }
            Err(error) => {
                counters.count_head(error);
                self.drop_open(id, error.drop_reason(), emit);
            }
        }
    }

    /// The header block on `stream` cannot be decoded: a new request is counted, an open one dropped.
    pub(super) fn drop_block(&mut self, stream: StreamId, reason: DropReason, emit: &mut Emit<'_>) {
        if stream > self.highest {
            self.raise_highest(stream);
            let number = self.take_number();
            emit(HttpEvent::Dropped { number, reason });
        } else {
            self.drop_open(stream, reason, emit);
        }
    }

    fn raise_highest(&mut self, stream: StreamId) {
        self.highest = stream;
        if self.trust == Trust::Full {
            self.highest_certain = stream;
        }
    }

    /// The rest of the block that `head` belongs to is read over.
    pub(super) fn skip_block(&mut self, head: FrameHead) {
        let ends = head.has(flag::END_HEADERS);
        self.block = if ends { Block::None } else { Block::Lost { stream: head.stream } };
    }

    pub(super) fn forget_table(&mut self, counters: &mut H2Counters) {
        counters.count(Incident::ForgottenTable);
        self.hpack.forget();
    }
}

/// The memory of `lines` for lines that borrow something else.
fn recycle<'b>(mut lines: Vec<Field<'_>>) -> Vec<Field<'b>> {
    lines.clear();
    // An empty vector collected in place keeps its allocation.
    lines.into_iter().map_while(|_| None).collect()
}
