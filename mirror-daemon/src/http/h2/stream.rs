//! The streams of a connection that are remembered: those whose request has not ended, and those that are
//! held (RFC 9113, 5.1).
//!
//! ```text
//! Open ─(END_STREAM)─▶ not held: forgotten
//!   │                  held: Ended ─(released or dropped)─▶ forgotten
//!   └─(RST_STREAM, loss, violation)─▶ forgotten
//! ```
//!
//! A stream that was dropped is forgotten at once, so that opening and resetting costs nothing that lasts.

use super::frame::StreamId;
use crate::flow::Timestamp;
use crate::http::RequestNumber;
use std::collections::VecDeque;

/// Most streams remembered for one connection; the request of another is dropped. Servers commonly allow
/// 100 to 250 at once.
pub const MAX_STREAMS: usize = 1024;

/// Room for streams that is kept.
const KEPT_STREAMS: usize = 32;

/// One stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    pub(super) id: StreamId,
    pub(super) number: RequestNumber,
    pub(super) state: StreamState,
    /// Not to be told of as whole before its release.
    pub(super) held: bool,
    /// Its body is of no interest.
    pub(super) body_ignored: bool,
    /// When its head was seen.
    pub(super) since: Timestamp,
    /// Content-Length, in bytes.
    pub(super) declared_bytes: Option<u64>,
    /// Body bytes so far.
    pub(super) received_bytes: u64,
}

/// How far the request of a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamState {
    /// More is to come.
    Open,
    /// Whole, and held.
    Ended,
}

/// The streams of one connection, by identifier. New ones come last, so that adding costs nothing and
/// finding one takes a binary search.
#[derive(Debug, Default)]
pub(super) struct Streams {
    streams: Vec<Stream>,
}

impl Streams {
    pub(super) fn is_full(&self) -> bool {
        self.streams.len() >= MAX_STREAMS
    }

    /// Adds a stream. False when the table is full.
    pub(super) fn add(&mut self, stream: Stream) -> bool {
        if self.is_full() {
            return false;
        }
        let place = self.streams.partition_point(|other| other.id < stream.id);
        self.streams.insert(place, stream);
        true
    }

    pub(super) fn find(&mut self, id: StreamId) -> Option<&mut Stream> {
        let place = self.place(id)?;
        self.streams.get_mut(place)
    }

    pub(super) fn remove(&mut self, id: StreamId) -> Option<Stream> {
        let place = self.place(id)?;
        let stream = self.streams.remove(place);
        self.give_back();
        Some(stream)
    }

    /// Removes all streams for which `gone` is true, and tells `tell` of them in order.
    pub(super) fn remove_where(&mut self, gone: impl Fn(&Stream) -> bool, mut tell: impl FnMut(Stream)) {
        self.streams.retain(|stream| {
            let gone = gone(stream);
            if gone {
                tell(*stream);
            }
            !gone
        });
        self.give_back();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.streams.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.streams.iter_mut()
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        self.streams.capacity().saturating_mul(size_of::<Stream>())
    }

    /// Memory that a burst of streams took is not kept for as long as the connection lives.
    fn give_back(&mut self) {
        if self.streams.capacity() > KEPT_STREAMS && self.streams.len() < self.streams.capacity() / 4 {
            self.streams.shrink_to(self.streams.len().saturating_mul(2).max(KEPT_STREAMS));
        }
    }

    fn place(&self, id: StreamId) -> Option<usize> {
        self.streams.binary_search_by_key(&id, |stream| stream.id).ok()
    }
}

/// Streams whose request was whole and whose answer is not known to be at its end: the client may still cancel them.
/// At most [`MAX_ANSWERING`]; the oldest are forgotten first, for ends of answers can be missed.
#[derive(Debug, Default)]
pub(super) struct Answering {
    streams: VecDeque<(StreamId, RequestNumber)>,
}

/// Servers commonly allow 100 to 250 streams at once.
const MAX_ANSWERING: usize = 256;

impl Answering {
    pub(super) fn add(&mut self, id: StreamId, number: RequestNumber) {
        if self.streams.len() >= MAX_ANSWERING {
            self.streams.pop_front();
        }
        self.streams.push_back((id, number));
    }

    pub(super) fn take(&mut self, id: StreamId) -> Option<RequestNumber> {
        // Answers end in the order of their requests, more or less.
        let place = self.streams.iter().position(|(stream, _)| *stream == id)?;
        self.streams.remove(place).map(|(_, number)| number)
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        self.streams.capacity().saturating_mul(size_of::<(StreamId, RequestNumber)>())
    }
}
