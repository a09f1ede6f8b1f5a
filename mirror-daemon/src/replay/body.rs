//! The bounded channel through which a large body follows its head.
//!
//! Source: a pipeline thread ([`BodyWriter`]). Destination: a connection task ([`BodyReader`]).
//! The bound is in bytes; a writer that would pass it aborts the body instead of waiting. An abort overtakes
//! the pieces that still wait, and frees them.

use crate::drop_reason::DropReason;
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
}

/// The shadow's side.
#[derive(Debug)]
pub struct BodyReader {
    shared: Arc<Shared>,
}

/// A channel for one body, of which at most `window_bytes` wait at a time.
#[must_use]
pub fn body_channel(window_bytes: u32) -> (BodyWriter, BodyReader) {
    let shared = Arc::new(Shared::default());
    let writer = BodyWriter { shared: Arc::clone(&shared), window_bytes: window_bytes.into() };
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
            waiting.pieces.clear();
            waiting.bytes = 0;
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
        waiting.pieces.clear();
        waiting.bytes = 0;
    }
}

#[derive(Debug, Default)]
struct Shared(Mutex<Waiting>);

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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn window_takes_its_bytes_and_not_one_more() {
        let (writer, mut reader) = body_channel(4);
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
        let (writer, _reader) = body_channel(128 * 1024);
        let taken = (0..100_000).take_while(|_| writer.push(Bytes::from_static(b"x")).is_ok()).count();
        assert_eq!(taken, 1024);
    }

    #[test]
    fn abort_overtakes_what_waits() {
        let (writer, mut reader) = body_channel(100);
        writer.push(Bytes::from_static(b"abc")).unwrap();
        writer.abort(DropReason::Gap);
        assert_eq!(poll(&mut reader), Poll::Ready(Err(BodyAbort(DropReason::Gap))));
    }

    #[test]
    fn dropped_writer_is_an_abort_and_a_dropped_reader_takes_no_more() {
        let (writer, mut reader) = body_channel(100);
        drop(writer);
        assert_eq!(poll(&mut reader), Poll::Ready(Err(BodyAbort(DropReason::Truncated))));
        let (writer, reader) = body_channel(1);
        assert!(writer.is_wanted());
        drop(reader);
        assert!(!writer.is_wanted());
        assert_eq!(writer.push(Bytes::from_static(b"abc")), Ok(()));
    }
}
