//! I/O. Sends shadow requests, and reads and throws away what the shadows answer.
//!
//! In: [`ShadowRequest`]s, offered by the pipeline threads without ever waiting. Out: entries in each
//! shadow's ledger. Nothing here can make a pipeline thread wait: every queue is bounded, and when full,
//! sheds and counts.

mod body;

pub use body::{BodyAbort, BodyReader, BodyWriter, body_channel};

use crate::rewrite::ShadowHead;
use bytes::Bytes;

/// One copy for one shadow.
#[derive(Debug)]
pub struct ShadowRequest {
    /// Its head, ready for the wire.
    pub head: ShadowHead,
    /// Its body.
    pub body: ShadowBody,
}

/// The body of a shadow request, transfer coding removed.
#[derive(Debug)]
pub enum ShadowBody {
    /// Complete before the request is offered, so that nothing half is ever sent.
    Buffered {
        /// All bytes; empty where there is no body.
        bytes: Bytes,
        /// Trailer field lines, each with its line end, edits applied; empty where there are none.
        trailers: Bytes,
    },
    /// Still being captured: follows through a bounded channel, and is aborted when it can't be completed.
    Streaming(BodyReader),
}
