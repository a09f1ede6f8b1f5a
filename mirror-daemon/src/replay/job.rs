//! One request on its way from a shadow's queue to its entry in the books.

use super::state::Lane;
use super::{ShadowBody, ShadowRequest};
use crate::rewrite::HeadForm;

/// A request that was let in. Whoever holds it owes the ledger exactly one entry.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) request: ShadowRequest,
    /// Grows with each request that is let in.
    pub(super) number: u64,
    /// What it weighs in the queue, in bytes.
    pub(super) cost_bytes: u64,
    /// Its fate decides what becomes of a half-open breaker.
    pub(super) is_probe: bool,
    /// It is on its second and last connection.
    pub(super) is_resent: bool,
    /// The last byte was accepted by the connection.
    pub(super) is_sent: bool,
    /// Bytes that this connection accepted.
    pub(super) accepted_bytes: u64,
    /// Pieces of a streamed body are gone from its channel, so that it cannot be sent from the start again.
    pub(super) is_body_begun: bool,
}

impl Job {
    pub(super) fn new(request: ShadowRequest, number: u64, is_probe: bool) -> Self {
        Self {
            cost_bytes: cost_bytes(&request),
            request,
            number,
            is_probe,
            is_resent: false,
            is_sent: false,
            accepted_bytes: 0,
            is_body_begun: false,
        }
    }

    /// The connections it goes over.
    pub(super) const fn lane(&self) -> Lane {
        match self.request.head.form {
            HeadForm::Http1 => Lane::Http1,
            HeadForm::Http2 => Lane::Http2,
        }
    }

    /// RFC 9110, 9.2.2 and RFC 9112, 9.3.1: once more on another connection, when this one closed without a
    /// byte of the answer and the request is safe, or none of it was accepted.
    pub(super) fn may_be_resent(&self) -> bool {
        let is_harmless = self.request.head.method.is_safe || self.accepted_bytes == 0;
        is_harmless && !self.is_resent && !self.is_body_begun
    }

    /// Back to the start, for the second connection.
    pub(super) fn rewind(&mut self) {
        self.is_resent = true;
        self.is_sent = false;
        self.accepted_bytes = 0;
    }
}

/// Bytes of head and buffered body; a streamed body is bounded by its own window.
pub(super) fn cost_bytes(request: &ShadowRequest) -> u64 {
    let body = match &request.body {
        ShadowBody::Buffered { bytes, trailers } => bytes.len().saturating_add(trailers.len()),
        ShadowBody::Streaming(_) => 0,
    };
    body.saturating_add(request.head.wire.len()) as u64
}
