//! Puts the events of the decoders together into records: one for each request, when it ends.

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
    open: HashMap<(FlowKey, RequestNumber), TapRecord>,
    not_shown: u64,
}

impl TapBook {
    /// An empty book; header fields are kept `with_headers`.
    #[must_use]
    pub fn new(with_headers: bool) -> Self {
        Self { with_headers, ..Self::default() }
    }

    /// Requests that were not shown because too many were open.
    #[must_use]
    pub const fn not_shown(&self) -> u64 {
        self.not_shown
    }

    /// Takes an event of `flow`, and returns the record of the request that ends with it. `client_ip` and
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
            outcome: Outcome::Complete,
        };
        match event {
            HttpEvent::Request { number, head, .. } => {
                if self.open.len() >= MAX_OPEN_REQUESTS {
                    self.not_shown = self.not_shown.saturating_add(1);
                    return None;
                }
                let record = begin(*number, Some(TapHead::of(head, self.with_headers)));
                self.open.insert((*flow, *number), record);
            }
            HttpEvent::Body { number, bytes } => {
                let record = self.open.get_mut(&(*flow, *number))?;
                let bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                record.body_bytes = record.body_bytes.saturating_add(bytes);
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
            | HttpEvent::PassOver { .. } => {}
        }
        None
    }
}
