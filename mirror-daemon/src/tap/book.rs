//! Puts the events of the decoders together into records: one for each request, when it ends, and if so wanted one
//! when it starts.

use super::grpc::GrpcCall;
use super::{Outcome, TapHead, TapRecord};
use crate::flow::FlowKey;
use crate::http::{HttpEvent, RequestNumber};
use std::collections::HashMap;
use std::net::IpAddr;

/// Most requests whose end is awaited at once. Beyond it, a new request is not shown; it is counted in
/// [`TapBook::not_shown`].
pub const MAX_OPEN_REQUESTS: usize = 16_384;

/// The requests that have begun and not ended.
#[derive(Debug, Default)]
pub struct TapBook {
    with_headers: bool,
    with_starts: bool,
    open: HashMap<(FlowKey, RequestNumber), TapRecord>,
    not_shown: u64,
}

impl TapBook {
    /// An empty book; header fields are kept `with_headers`.
    #[must_use]
    pub fn new(with_headers: bool) -> Self {
        Self { with_headers, ..Self::default() }
    }

    /// Gives a record when a request starts, too: [`Outcome::Started`].
    #[must_use]
    pub fn with_starts(self, with_starts: bool) -> Self {
        Self { with_starts, ..self }
    }

    /// Requests that were not shown because too many were open.
    #[must_use]
    pub const fn not_shown(&self) -> u64 {
        self.not_shown
    }

    /// Takes an event of `flow`, and returns the record of the request that ends, or starts, with it. `client_ip` and
    /// `at_unix_ns` count where the event begins a request, or is all that is known of it.
    pub fn handle_event(
        &mut self,
        flow: &FlowKey,
        client_ip: IpAddr,
        at_unix_ns: u64,
        event: &HttpEvent<'_>,
    ) -> Option<TapRecord> {
        let begin = |number, head| TapRecord {
            at_unix_ns,
            client_ip,
            flow: *flow,
            number,
            head,
            body_bytes: 0,
            trailers: 0,
            grpc: None,
            outcome: Outcome::Complete,
        };
        match event {
            HttpEvent::Request { number, head, .. } => {
                if self.open.len() >= MAX_OPEN_REQUESTS {
                    self.not_shown = self.not_shown.saturating_add(1);
                    return None;
                }
                let head_kept = TapHead::of(head, self.with_headers);
                let record = TapRecord { grpc: GrpcCall::begun_by(head), ..begin(*number, Some(head_kept)) };
                let started =
                    self.with_starts.then(|| TapRecord { outcome: Outcome::Started, ..record.clone() });
                self.open.insert((*flow, *number), record);
                return started;
            }
            HttpEvent::Body { number, bytes } => {
                let record = self.open.get_mut(&(*flow, *number))?;
                let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                record.body_bytes = record.body_bytes.saturating_add(len);
                if let Some(call) = &mut record.grpc {
                    call.handle_body(bytes);
                }
            }
            HttpEvent::Trailers { number, fields } => {
                let record = self.open.get_mut(&(*flow, *number))?;
                record.trailers = u64::try_from(fields.len()).unwrap_or(u64::MAX);
            }
            HttpEvent::Complete { number } => return self.open.remove(&(*flow, *number)),
            HttpEvent::Dropped { number, reason } => {
                let record = self.open.remove(&(*flow, *number));
                let record = record.unwrap_or_else(|| begin(*number, None));
                return Some(TapRecord { outcome: Outcome::Dropped(*reason), ..record });
            }
            HttpEvent::Client { .. }
            | HttpEvent::Released { .. }
            | HttpEvent::Cancelled { .. }
            | HttpEvent::Answered { .. }
            | HttpEvent::PassOver { .. } => {}
        }
        None
    }
}
