//! The bounded channel through which a large body follows its head.
//!
//! Source: a pipeline thread ([`BodyWriter`]). Destination: a connection task ([`BodyReader`]).
//! The bound is in bytes; a writer that would pass it aborts the body instead of waiting. An abort overtakes
//! the pieces that still wait, and frees them.

use crate::drop_reason::DropReason;
use crate::telemetry::ledger::Level;
use bytes::Bytes;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// What a waiting piece takes beside its bytes, at most, about. No more pieces wait than the window has room for
/// such, so that a body of one-byte chunks can't take many times its window.
const PIECE_BYTES: u64 = 128;
/// Pieces that may wait in the smallest of windows.
const MIN_PIECES: u64 = 16;

/// Why a streamed body ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyAbort(pub DropReason);

/// What a body reader gets next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyPiece {
    /// More bytes; never empty.
    Bytes(Bytes),
    /// The body is whole; trailer field lines, each with its line end, may follow it.
    End {
        /// The trailers; empty where there are none.
        trailers: Bytes,
    },
}

/// The captured side.
#[derive(Debug)]
pub struct BodyWriter {
    shared: Arc<Shared>,
    window_bytes: u64,
    /// Most bytes that may wait in all bodies of the shadow together.
    total_bytes: u64,
}

/// The shadow's side.
#[derive(Debug)]
pub struct BodyReader {
    shared: Arc<Shared>,
}

/// A channel for one body, of which at most `window_bytes` wait at a time, and of all bodies that share `total`
/// at most `total_bytes`.
#[must_use]
pub fn body_channel(window_bytes: u32, total_bytes: u64, total: &Arc<Level>) -> (BodyWriter, BodyReader) {
    let shared = Arc::new(Shared { waiting: Mutex::default(), total: Arc::clone(total) });
    let writer = BodyWriter { shared: Arc::clone(&shared), window_bytes: window_bytes.into(), total_bytes };
    (writer, BodyReader { shared })
}

impl BodyWriter {
    /// Appends `bytes`. Never waits; wakes the reader only when it waits for bytes.
    ///
    /// # Errors
    /// [`DropReason::StreamOverrun`] when the window is full: the caller must then [`abort`](Self::abort).
    pub fn push(&self, bytes: Bytes) -> Result<(), DropReason> {
        let len = bytes.len() as u64;
        let mut waiting = self.shared.lock();
        // A reader that has gone needs no more bytes; it has counted the request already.
        if len == 0 || waiting.is_reader_gone {
            return Ok(());
        }
        let waiting_bytes = waiting.bytes.saturating_add(len);
        let most_pieces = (self.window_bytes / PIECE_BYTES).max(MIN_PIECES);
        if waiting_bytes > self.window_bytes || waiting.pieces.len() as u64 >= most_pieces {
            return Err(DropReason::StreamOverrun);
        }
        if self.shared.total.raise(len) > self.total_bytes {
            self.shared.total.lower(len);
            return Err(DropReason::StreamOverrun);
        }
        waiting.bytes = waiting_bytes;
        waiting.pieces.push_back(bytes);
        wake(waiting);
        Ok(())
    }

    /// False once the shadow's side has gone: what is pushed from now on is thrown away.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        !self.shared.lock().is_reader_gone
    }

    /// Ends the body as whole.
    pub fn finish(self, trailers: Bytes) {
        self.end(Ok(trailers));
    }

    /// Ends the body as not to be completed. A writer that is dropped without a word has the same effect,
    /// with [`DropReason::Truncated`].
    pub fn abort(self, reason: DropReason) {
        self.end(Err(reason));
    }

    fn end(&self, end: Result<Bytes, DropReason>) {
        let mut waiting = self.shared.lock();
        if waiting.end.is_some() {
            return;
        }
        if end.is_err() {
            self.shared.free(&mut waiting);
        }
        waiting.end = Some(end);
        wake(waiting);
    }
}

impl Drop for BodyWriter {
    fn drop(&mut self) {
        self.end(Err(DropReason::Truncated));
    }
}

impl BodyReader {
    /// The next bytes; `Ok(Err(trailers))` at the end of a whole body.
    ///
    /// # Errors
    /// The body will not be completed: the shadow request must be aborted.
    pub async fn next(&mut self) -> Result<Result<Bytes, Bytes>, BodyAbort> {
        poll_fn(|cx| self.poll_piece(cx)).await.map(|piece| match piece {
            BodyPiece::Bytes(bytes) => Ok(bytes),
            BodyPiece::End { trailers } => Err(trailers),
        })
    }

    /// The next piece, or wakes `cx` when there is one.
    ///
    /// # Errors
    /// The body will not be completed: the shadow request must be aborted.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyPiece, BodyAbort>> {
        let mut waiting = self.shared.lock();
        if let Some(bytes) = waiting.pieces.pop_front() {
            waiting.bytes = waiting.bytes.saturating_sub(bytes.len() as u64);
            self.shared.total.lower(bytes.len() as u64);
            return Poll::Ready(Ok(BodyPiece::Bytes(bytes)));
        }
        match &waiting.end {
            Some(Ok(trailers)) => Poll::Ready(Ok(BodyPiece::End { trailers: trailers.clone() })),
            Some(Err(reason)) => Poll::Ready(Err(BodyAbort(*reason))),
            None => {
                waiting.reader_waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The abort, if there was one, whatever still waits before it; else wakes `cx` at the next event.
    pub fn poll_abort(&mut self, cx: &mut Context<'_>) -> Poll<BodyAbort> {
        let mut waiting = self.shared.lock();
        if let Some(Err(reason)) = waiting.end {
            return Poll::Ready(BodyAbort(reason));
        }
        waiting.reader_waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for BodyReader {
    fn drop(&mut self) {
        let mut waiting = self.shared.lock();
        waiting.is_reader_gone = true;
        self.shared.free(&mut waiting);
    }
}

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// What waits in all bodies of the shadow together.
    total: Arc<Level>,
}

#[derive(Debug, Default)]
struct Waiting {
    pieces: VecDeque<Bytes>,
    bytes: u64,
    end: Option<Result<Bytes, DropReason>>,
    reader_waker: Option<Waker>,
    is_reader_gone: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Throws away what waits.
    fn free(&self, waiting: &mut Waiting) {
        self.total.lower(std::mem::take(&mut waiting.bytes));
        waiting.pieces.clear();
    }
}

/// Wakes the reader after the lock is released.
fn wake(mut waiting: MutexGuard<'_, Waiting>) {
    let waker = waiting.reader_waker.take();
    drop(waiting);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(reader: &mut BodyReader) -> Poll<Result<BodyPiece, BodyAbort>> {
        reader.poll_piece(&mut Context::from_waker(Waker::noop()))
    }

    fn channel(window_bytes: u32) -> (BodyWriter, BodyReader) {
        body_channel(window_bytes, u64::MAX, &Arc::default())
    }

    #[test]
    fn all_bodies_of_a_shadow_share_one_bound_and_give_back_what_they_took() {
        let total = Arc::new(Level::default());
        let (one, mut first) = body_channel(8, 8, &total);
        let (other, second) = body_channel(8, 8, &total);
        assert_eq!(one.push(Bytes::from_static(b"12345")), Ok(()));
        assert_eq!(other.push(Bytes::from_static(b"1234")), Err(DropReason::StreamOverrun));
        assert_eq!(other.push(Bytes::from_static(b"123")), Ok(()));
        assert!(poll(&mut first).is_ready());
        assert_eq!(total.value(), 3);
        drop(second);
        assert_eq!(total.value(), 0);
        assert_eq!(one.push(Bytes::from_static(b"12345678")), Ok(()));
        one.abort(DropReason::Gap);
        assert_eq!(total.value(), 0);
    }

    #[test]
    fn window_takes_its_bytes_and_not_one_more() {
        let (writer, mut reader) = channel(4);
        assert_eq!(writer.push(Bytes::from_static(b"abc")), Ok(()));
        assert_eq!(writer.push(Bytes::from_static(b"d")), Ok(()));
        assert_eq!(writer.push(Bytes::from_static(b"e")), Err(DropReason::StreamOverrun));
        assert_eq!(poll(&mut reader), Poll::Ready(Ok(BodyPiece::Bytes(Bytes::from_static(b"abc")))));
        assert_eq!(writer.push(Bytes::from_static(b"efg")), Ok(()));
        writer.finish(Bytes::new());
        assert_eq!(poll(&mut reader), Poll::Ready(Ok(BodyPiece::Bytes(Bytes::from_static(b"d")))));
        assert_eq!(poll(&mut reader), Poll::Ready(Ok(BodyPiece::Bytes(Bytes::from_static(b"efg")))));
        assert_eq!(poll(&mut reader), Poll::Ready(Ok(BodyPiece::End { trailers: Bytes::new() })));
    }

    #[test]
    fn small_pieces_count_for_what_they_take() {
        let (writer, _reader) = channel(128 * 1024);
        let taken = (0..100_000).take_while(|_| writer.push(Bytes::from_static(b"x")).is_ok()).count();
        assert_eq!(taken, 1024);
    }

    #[test]
    fn abort_overtakes_what_waits() {
        let (writer, mut reader) = channel(100);
        writer.push(Bytes::from_static(b"abc")).unwrap();
        writer.abort(DropReason::Gap);
        assert_eq!(poll(&mut reader), Poll::Ready(Err(BodyAbort(DropReason::Gap))));
    }

    #[test]
    fn dropped_writer_is_an_abort_and_a_dropped_reader_takes_no_more() {
        let (writer, mut reader) = channel(100);
        drop(writer);
        assert_eq!(poll(&mut reader), Poll::Ready(Err(BodyAbort(DropReason::Truncated))));
        let (writer, reader) = channel(1);
        assert!(writer.is_wanted());
        drop(reader);
        assert!(!writer.is_wanted());
        assert_eq!(writer.push(Bytes::from_static(b"abc")), Ok(()));
    }
}
