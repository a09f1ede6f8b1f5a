//! I/O. Sends shadow requests, and reads and throws away what the shadows answer.
//!
//! In: [`ShadowRequest`]s, offered by the pipeline threads without ever waiting. Out: entries in each
//! shadow's ledger. Nothing here can make a pipeline thread wait: every queue is bounded, and when full,
//! sheds and counts.
//!
//! ```text
//!  pipeline thread                       runtime thread
//!  ReplayHandle ──batch──▶ State ──Job──▶ connection task ──▶ exchange ──▶ shadow
//!   offer, flush           queue,         one per pooled      write head and body,
//!                          breaker,       connection          read the answer to its end
//!                          rate, seats
//! ```
//!
//! - A head's form decides over which lane it goes: HTTP/1 connections carry one request at a time, as drawn;
//!   those of HTTP/2 carry many, each on its stream (`h2`). Both lanes share the shadow's bounds on what waits
//!   and on what is in flight, its rate, its breaker, its connections and its books.
//! - A request costs no task and no wake-up of its own: a connection that has read its answer takes the next
//!   request at once; idle ones are woken last in, first out, one for each request that has no taker yet.
//! - Each shadow has its own queue, limits and connections: a slow one cannot hold up another.
//! - Order of the checks at hand-over: breaker (`breaker_open`), queue items and bytes (`queue_full`, the
//!   newest is shed), rate (`rate_limited`, a bucket of a tenth of a second's worth, at least one).
//! - When no connection can be made and none is open, the oldest waiting request is booked with the cause
//!   (`resolve`, `connect`, `tls`) and the breaker counts a failure; when that opens, what waits and what
//!   comes is shed. While other connections work, a failed one only puts off opening more for a moment.
//! - Memory: what waits is bounded by `queue_bytes`; what is in flight by `max_in_flight` bodies of at most
//!   `buffer_body_bytes` or `stream_window_bytes`; answers are read into one buffer per thread and forgotten.
//! - Made for a runtime of one thread. Every future is `Send`, so that several would be right, but dearer.

mod body;
mod breaker;
mod cancel;
mod connect;
mod connection;
mod exchange;
mod h2;
mod job;
mod link;
mod outgoing;
mod rate;
mod replayer;
mod resolve;
mod seat;
mod shadow;
mod state;
mod tls;

#[cfg(test)]
mod tests;

pub use crate::telemetry::snapshot::{BreakerState, ShadowStatus};
pub use body::{BodyAbort, BodyPiece, BodyReader, BodyWriter, body_channel};
pub use cancel::{Canceller, Original, OriginalEnd, original};
pub use connect::{Mark, Marking};
pub use replayer::{ReplayHandle, Replayer};
pub use tls::{TlsError, check_tls};

use crate::rewrite::ShadowHead;
use bytes::Bytes;

/// One copy for one shadow.
#[derive(Debug)]
pub struct ShadowRequest {
    /// Its head, ready for the wire.
    pub head: ShadowHead,
    /// Its body.
    pub body: ShadowBody,
    /// Of calls (HTTP/2), whose answers may go on for hours: tells when the original is answered, or cancelled
    /// although the request itself was whole.
    pub original: Option<Original>,
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
