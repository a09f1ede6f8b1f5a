//! PURE. Decodes HTTP passively: from the bytes of a connection that others hold, joined at any moment.
//!
//! In: [`FlowEvent`](crate::flow::FlowEvent)s of one flow. Out: [`HttpEvent`]s, handed to a callback while
//! the bytes are still where they were captured. The decoder owns no body: what must be kept is kept by
//! whoever wants it.
//!
//! For each [`RequestNumber`] the events come in this order:
//!
//! ```text
//! Request ─▶ Body* ─▶ Trailers? ─▶ Complete        exactly one of Complete and Dropped
//!    │                                │
//!    │ (held only) Released: any time after Request; without it a held request is never replayed
//!    └──────────────────────────────▶ Dropped      may also come without a Request: the head was refused
//! Complete ─▶ (Cancelled | Answered)?               the client wants no more of the answer; it has all of it
//! ```
//!
//! Several requests can be open at once only in HTTP/2, and in HTTP/1 when earlier ones are still held.

mod connection;
mod detect;
mod h1;
pub mod h2;
pub mod message;
#[cfg(test)]
mod tests;

pub use connection::{HttpFlow, HttpOptions};
pub use h1::{AnswerDecoder, AnswerError, AnswerProgress, AnswerSummary, HELD_TIMEOUT, MAX_HELD_BYTES};
pub use message::{BodyLength, Field, RequestHead, Version};

use crate::drop_reason::DropReason;
use std::net::IpAddr;

/// The number of a request within its flow, counted from 0 in order of appearance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct RequestNumber(pub u64);

/// Most bytes of a request head, request line to blank line.
pub const MAX_HEAD_BYTES: usize = 128 * 1024;
/// Most header fields in a head, and most trailer fields.
pub const MAX_FIELDS: usize = 256;

/// What a decoder makes of a flow.
#[derive(Debug)]
pub enum HttpEvent<'a> {
    /// A PROXY protocol header at the start of the connection named the client's address.
    Client {
        /// The address.
        ip: IpAddr,
    },
    /// A head is whole and right.
    Request {
        /// Which request.
        number: RequestNumber,
        /// The head, borrowed from the capture.
        head: RequestHead<'a>,
        /// True: keep it back until [`HttpEvent::Released`] (boundary not yet proven, or an upgrade may follow).
        held: bool,
    },
    /// Body bytes, transfer coding removed; never empty.
    Body {
        /// Which request.
        number: RequestNumber,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// Trailer fields (RFC 9112, 7.1.2), as captured.
    Trailers {
        /// Which request.
        number: RequestNumber,
        /// The fields, in order.
        fields: &'a [Field<'a>],
    },
    /// A held request may go.
    Released {
        /// Which request.
        number: RequestNumber,
    },
    /// Every byte of the request was seen.
    Complete {
        /// Which request.
        number: RequestNumber,
    },
    /// The request will not be completed, or must not be replayed.
    Dropped {
        /// Which request.
        number: RequestNumber,
        /// Why.
        reason: DropReason,
    },
    /// The request was whole, and the client has cancelled it since, before the end of its answer. May come once
    /// behind [`HttpEvent::Complete`] (HTTP/2).
    Cancelled {
        /// Which request.
        number: RequestNumber,
    },
    /// The answer to a request that was whole is at its end. A hint: it comes once at most behind
    /// [`HttpEvent::Complete`], not behind [`HttpEvent::Cancelled`], and may never come (HTTP/2).
    Answered {
        /// Which request.
        number: RequestNumber,
    },
    /// The rest of this flow is of no interest, for good: capture may pass it over.
    PassOver {
        /// Why.
        reason: DropReason,
    },
}
