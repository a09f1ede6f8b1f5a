//! The bounded channel through which a large body follows its head.
//!
//! Source: a pipeline thread ([`BodyWriter`]). Destination: a connection task ([`BodyReader`]).
//! The bound is in bytes; a writer that would pass it aborts the body instead of waiting.

use crate::drop_reason::DropReason;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// Why a streamed body ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyAbort(pub DropReason);

#[derive(Debug)]
enum Piece {
    Bytes(Bytes),
    End { trailers: Bytes },
    Abort(DropReason),
}

/// The captured side.
#[derive(Debug)]
pub struct BodyWriter {
    piece_tx: mpsc::UnboundedSender<Piece>,
    waiting_bytes: Arc<AtomicU64>,
    window_bytes: u64,
}

/// The shadow's side.
#[derive(Debug)]
pub struct BodyReader {
    piece_rx: mpsc::UnboundedReceiver<Piece>,
    waiting_bytes: Arc<AtomicU64>,
}

/// A channel for one body, of which at most `window_bytes` wait at a time.
#[must_use]
pub fn body_channel(window_bytes: u32) -> (BodyWriter, BodyReader) {
    let (piece_tx, piece_rx) = mpsc::unbounded_channel();
    let waiting_bytes = Arc::new(AtomicU64::new(0));
    let writer =
        BodyWriter { piece_tx, waiting_bytes: Arc::clone(&waiting_bytes), window_bytes: window_bytes.into() };
    (writer, BodyReader { piece_rx, waiting_bytes })
}

impl BodyWriter {
    /// Appends `bytes`. Never waits.
    ///
    /// # Errors
    /// [`DropReason::StreamOverrun`] when the window is full: the caller must then [`abort`](Self::abort).
    pub fn push(&self, bytes: Bytes) -> Result<(), DropReason> {
        let len = bytes.len() as u64;
        let waiting = self.waiting_bytes.fetch_add(len, Ordering::Relaxed);
        if waiting.saturating_add(len) > self.window_bytes {
            return Err(DropReason::StreamOverrun);
        }
        // A reader that has gone needs no more bytes; it has counted the request already.
        let _ = self.piece_tx.send(Piece::Bytes(bytes));
        Ok(())
    }

    /// Ends the body as whole.
    pub fn finish(self, trailers: Bytes) {
        let _ = self.piece_tx.send(Piece::End { trailers });
    }

    /// Ends the body as not to be completed. A writer that is dropped without a word has the same effect,
    /// with [`DropReason::Truncated`].
    pub fn abort(self, reason: DropReason) {
        let _ = self.piece_tx.send(Piece::Abort(reason));
    }
}

impl BodyReader {
    /// The next bytes; `Ok(Err(trailers))` at the end of a whole body.
    ///
    /// # Errors
    /// The body will not be completed: the shadow request must be aborted.
    pub async fn next(&mut self) -> Result<Result<Bytes, Bytes>, BodyAbort> {
        match self.piece_rx.recv().await {
            Some(Piece::Bytes(bytes)) => {
                self.waiting_bytes.fetch_sub(bytes.len() as u64, Ordering::Relaxed);
                Ok(Ok(bytes))
            }
            Some(Piece::End { trailers }) => Ok(Err(trailers)),
            Some(Piece::Abort(reason)) => Err(BodyAbort(reason)),
            None => Err(BodyAbort(DropReason::Truncated)),
        }
    }
}
